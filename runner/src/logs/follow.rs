//! Waiting for a log to grow or to be rotated.

use std::{path::Path, time::Duration};

use tokio::time::sleep;

/// Longest wait without a sign: file systems that tell no changes are looked at so often.
const POLL: Duration = Duration::from_millis(250);

#[cfg(target_os = "linux")]
use self::linux::Watch;
#[cfg(not(target_os = "linux"))]
use self::other::Watch;

/// Changes in a log's folder.
pub(super) struct Changes(Option<Watch>);

impl Changes {
    /// Begins to watch; without a watch (no folder yet, no watches left) [`Changes::next`] just paces a poll.
    pub(super) fn of(log: &Path) -> Self {
        Self(log.parent().and_then(Watch::of))
    }

    /// Answers when something may have changed.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            () = sleep(POLL) => {}
            () = async {
                match &mut self.0 {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;

    use futures::StreamExt;
    use inotify::{EventStream, Inotify, WatchMask};

    pub(super) struct Watch(EventStream<[u8; 4096]>);

    impl Watch {
        pub(super) fn of(folder: &Path) -> Option<Self> {
            let inotify = Inotify::init().ok()?;
            let events = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
            inotify.watches().add(folder, events).ok()?;
            Some(Self(inotify.into_event_stream([0; 4096]).ok()?))
        }

        /// The next event; which it is does not matter: the caller looks again.
        pub(super) async fn next(&mut self) {
            if self.0.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::path::Path;

    pub(super) struct Watch;

    impl Watch {
        pub(super) fn of(_folder: &Path) -> Option<Self> {
            None
        }

        pub(super) async fn next(&mut self) {
            std::future::pending().await
        }
    }
}
