//! Files of a container: `cp`, `diff`. A stopped container's are reached through a VM booted for them, unseen by the user.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use proto::sandbox::{
    ArchiveGetRequest, ArchiveGetResponse, ArchivePutOpen, ArchivePutRequest, ArchiveStatRequest, Change,
    ChangesRequest, PathStat, SetTimeRequest,
};
use runner::Handle;
use tokio::{
    sync::{MutexGuard, mpsc, oneshot},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Engine, clock, container::Container, prepare, record::Status, vm};
use crate::error::{Error, Result};

/// How long an unseen VM waits for the next call: `docker cp` makes two or three.
const IDLE: Duration = Duration::from_secs(5);
/// Longest wait for the first bytes of an archive, and for the end of one put in.
const ARCHIVE: Duration = Duration::from_secs(60);
/// Parts of an archive on their way to a slow client.
const PARTS: usize = 4;
/// Longest pause of a client that is sent an archive, or sends a body: nothing else can use an unseen VM meanwhile.
pub(crate) const STALL: Duration = Duration::from_secs(300);
/// Longest wait for the files of a container that somebody else uses.
const LOCK: Duration = Duration::from_secs(60);
/// Memory for the changes of a container, and of each beside its path; arca-init itself lists fewer.
const MAX_CHANGES: usize = 96 << 20;
const CHANGE_COST: usize = 48;
/// Mounting a root.
const PREPARE: Duration = Duration::from_secs(60);

/// The unseen VM of a stopped container.
#[derive(Debug, Default)]
pub struct Files {
    vm: Option<Handle>,
    used: Option<Instant>,
}

/// A guest in which a container's files are, for as long as this lives.
struct Guest<'a> {
    vm: Handle,
    /// Held while an unseen VM is in use.
    _files: Option<MutexGuard<'a, Files>>,
}

impl Engine {
    /// What a path of a container is.
    ///
    /// # Errors
    /// 404 when it is not there.
    pub async fn stat_path(self: &Arc<Self>, container: &Arc<Container>, path: &str) -> Result<PathStat> {
        let guest = self.guest(container).await?;
        let request = ArchiveStatRequest { container_id: container.id.clone(), path: path.into() };
        let answer = vm::call("stat", vm::QUICK, guest.vm.sandbox().archive_stat(request)).await;
        answer
            .map_err(|error| no_such_file(error, container, path))?
            .stat
            .ok_or_else(|| Error::system("no stat"))
    }

    /// A tar of a path: what the path is, and the bytes.
    ///
    /// # Errors
    /// 404 when it is not there.
    pub async fn get_archive(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: &str,
    ) -> Result<(PathStat, impl Stream<Item = Result<Bytes>> + Send + use<>)> {
        let (give_stat, stat) = oneshot::channel();
        let (parts, body) = mpsc::channel(PARTS);
        let (engine, container, path) = (self.clone(), container.clone(), path.to_owned());
        let (whole, ended) = oneshot::channel();
        tokio::spawn(async move { engine.copy_out(&container, &path, give_stat, parts, whole).await });
        let stat = stat.await.map_err(|_| Error::system("the task that reads an archive was lost"))??;
        Ok((stat, or_broken(body, ended)))
    }

    /// Reads an archive from the guest; the guest stays until it is read.
    async fn copy_out(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: &str,
        stat: oneshot::Sender<Result<PathStat>>,
        parts: mpsc::Sender<Result<Bytes>>,
        whole: oneshot::Sender<()>,
    ) {
        let open = async {
            let guest = self.guest(container).await?;
            let request = ArchiveGetRequest { container_id: container.id.clone(), path: path.into() };
            let mut stream = vm::call("archive", ARCHIVE, guest.vm.sandbox().archive_get(request))
                .await
                .map_err(|error| no_such_file(error, container, path))?;
            let first = next(&mut stream).await.map_err(|error| no_such_file(error, container, path))?;
            let first = first.unwrap_or_default();
            let stat = first.stat.ok_or_else(|| Error::system("the guest sent an archive without a stat"))?;
            Ok((guest, stream, stat, first.data))
        };
        let (_guest, mut stream, what, first) = match open.await {
            Ok(opened) => opened,
            Err(error) => return drop(stat.send(Err(error))),
        };
        self.events.publish(container.event("archive-path").with("path", path));
        if stat.send(Ok(what)).is_err() || !give(&parts, Ok(first), STALL).await {
            return;
        }
        loop {
            match next(&mut stream).await {
                Ok(Some(part)) => {
                    if !give(&parts, Ok(part.data), STALL).await {
                        return;
                    }
                }
                Ok(None) => {
                    // An error is as good: nobody reads any more.
                    let _ = whole.send(());
                    return;
                }
                Err(error) => {
                    give(&parts, Err(error), STALL).await;
                    return;
                }
            }
        }
    }

    /// Unpacks a tar into a folder. `parts` is what the client sends.
    ///
    /// # Errors
    /// 404 when the folder is not there, 400 for what is no folder or no tar, 403 for a read-only root.
    pub async fn put_archive(
        self: &Arc<Self>,
        container: &Arc<Container>,
        mut open: ArchivePutOpen,
        parts: impl futures::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<()> {
        if container.record().host.readonly_rootfs {
            return Err(Error::new(crate::error::Kind::Forbidden, "container rootfs is marked read-only"));
        }
        let guest = self.guest(container).await?;
        open.container_id.clone_from(&container.id);
        let path = open.path.clone();
        let first = ArchivePutRequest { open: Some(open), data: Bytes::new() };
        let (sending, sent) = oneshot::channel::<()>();
        let rest = parts.map(move |data| {
            // Dropped with the stream.
            let _ = &sending;
            ArchivePutRequest { open: None, data }
        });
        let requests = stream::iter([first]).chain(rest);
        let mut sandbox = guest.vm.sandbox();
        let put = sandbox.archive_put(requests);
        // It lasts as long as the client sends, and then what the guest needs to write it.
        let late = async {
            let _ = sent.await;
            tokio::time::sleep(ARCHIVE).await;
        };
        let put = tokio::select! {
            put = put => put,
            () = late => return Err(Error::system(format!("archive: not unpacked within {ARCHIVE:?}"))),
        };
        put.map_err(|status| no_such_file(vm::status_error(&status), container, &path))?;
        self.events.publish(container.event("extract-to-dir").with("path", path));
        Ok(())
    }

    /// What differs from the image.
    ///
    /// # Errors
    /// When the guest fails.
    pub async fn changes(self: &Arc<Self>, container: &Arc<Container>) -> Result<Vec<Change>> {
        let guest = self.guest(container).await?;
        let request = ChangesRequest { container_id: container.id.clone() };
        let mut stream = vm::call("changes", ARCHIVE, guest.vm.sandbox().changes(request)).await?;
        let mut changes = Vec::new();
        let mut size = 0;
        loop {
            let part = tokio::time::timeout(ARCHIVE, stream.message())
                .await
                .map_err(|_| Error::system(format!("changes: nothing within {ARCHIVE:?}")))?
                .map_err(|status| vm::status_error(&status))?;
            let Some(part) = part else { return Ok(changes) };
            size += part.changes.iter().map(|change| change.path.len() + CHANGE_COST).sum::<usize>();
            if size > MAX_CHANGES {
                return Err(Error::system("changes: the guest tells of too many"));
            }
            changes.extend(part.changes);
        }
    }

    /// Ends the unseen VM, if there is one.
    pub(crate) async fn close_files(&self, container: &Container) {
        close(&mut *container.files.lock().await).await;
    }

    async fn guest<'a>(self: &Arc<Self>, container: &'a Arc<Container>) -> Result<Guest<'a>> {
        self.settled(container).await?;
        if let Some(run) = container.run() {
            return Ok(Guest { vm: run.vm.clone(), _files: None });
        }
        let mut files = lock(container, LOCK).await?;
        // A start holds the lock while it boots.
        if let Some(run) = container.run() {
            return Ok(Guest { vm: run.vm.clone(), _files: None });
        }
        if matches!(container.status(), Status::Removing | Status::Dead) {
            return Err(Error::conflict(format!("container {} is marked for removal", container.id)));
        }
        let alive = files.vm.clone().filter(Handle::is_alive);
        let handle = match alive {
            Some(handle) => handle,
            None => {
                // The VM of the last run may still be ending.
                self.wait_idle(container).await?;
                let handle = self.boot_files(container).await?;
                files.vm = Some(handle.clone());
                handle
            }
        };
        let used = Instant::now();
        files.used = Some(used);
        let again = container.clone();
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let mut files = again.files.lock().await;
            if files.used == Some(used) {
                close(&mut files).await;
            }
        });
        Ok(Guest { vm: handle, _files: Some(files) })
    }

    async fn boot_files(&self, container: &Container) -> Result<Handle> {
        let record = container.record();
        let lowers = self.images.disks(&record.image_id).await?;
        let request = prepare::prepare(&record, lowers.len(), true)?;
        // A folder of its own: the exit record of the last run must stay.
        let dir = self.home.container(&record.id).join("files");
        let handle = self.boot(&record, &lowers, dir).await?;
        let now = clock::since_epoch();
        let time = SetTimeRequest {
            seconds: i64::try_from(now.as_secs()).unwrap_or(0),
            nanoseconds: i32::try_from(now.subsec_nanos()).unwrap_or(0),
        };
        let ready = async {
            vm::call("set the clock", vm::QUICK, handle.sandbox().set_time(time)).await?;
            vm::call("mount the root", PREPARE, handle.sandbox().prepare(request)).await
        };
        match ready.await {
            Ok(_) => Ok(handle),
            Err(error) => {
                vm::retire(&handle).await;
                Err(error)
            }
        }
    }
}

/// The unseen VM of a container, once nobody else uses it.
///
/// # Errors
/// 409 when a copy or a start has it for longer than a request waits.
pub(crate) async fn lock_files(container: &Container) -> Result<MutexGuard<'_, Files>> {
    lock(container, LOCK).await
}

async fn lock(container: &Container, within: Duration) -> Result<MutexGuard<'_, Files>> {
    tokio::time::timeout(within, container.files.lock()).await.map_err(|_| {
        Error::conflict(format!(
            "the files of container {} have been in use for {within:?}: end the `docker cp` whose client does not go on, or wait \
             for the start that is under way",
            container.id
        ))
    })
}

/// Hands a part to the client; false when it is gone, or has read nothing for `stall`.
async fn give(parts: &mpsc::Sender<Result<Bytes>>, part: Result<Bytes>, stall: Duration) -> bool {
    let sent = tokio::time::timeout(stall, parts.send(part)).await;
    if sent.is_err() {
        tracing::warn!("an archive is broken off: its client has read nothing for {stall:?}");
    }
    matches!(sent, Ok(Ok(())))
}

/// The parts, then an error unless the archive is said to be whole: what is cut between two files looks complete.
fn or_broken(
    parts: mpsc::Receiver<Result<Bytes>>,
    whole: oneshot::Receiver<()>,
) -> impl Stream<Item = Result<Bytes>> + Send {
    let broken = |ended: Result<(), _>| ended.is_err().then(|| Err(Error::system("the archive broke off")));
    let end = stream::once(whole).filter_map(move |ended| std::future::ready(broken(ended)));
    ReceiverStream::new(parts).chain(end)
}

async fn next(stream: &mut Streaming<ArchiveGetResponse>) -> Result<Option<ArchiveGetResponse>> {
    tokio::time::timeout(ARCHIVE, stream.message())
        .await
        .map_err(|_| Error::system(format!("archive: nothing within {ARCHIVE:?}")))?
        .map_err(|status| vm::status_error(&status))
}

/// Ends the unseen VM.
pub(crate) async fn close(files: &mut Files) {
    files.used = None;
    if let Some(handle) = files.vm.take() {
        vm::retire(&handle).await;
    }
}

fn no_such_file(error: Error, container: &Container, path: &str) -> Error {
    if error.kind == crate::error::Kind::NotFound {
        let text = format!("Could not find the file {path} in container {}", container.record().name);
        return Error::not_found(text).because(error);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::tests::record;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_nobody_up() {
        let (parts, body) = mpsc::channel(1);
        let (whole, ended) = oneshot::channel();
        assert!(give(&parts, Ok(Bytes::from_static(b"a")), SHORT).await);
        assert!(!give(&parts, Ok(Bytes::from_static(b"b")), SHORT).await);
        // What it was sent does not end as if it were all.
        drop((parts, whole));
        let seen: Vec<_> = or_broken(body, ended).collect().await;
        assert_eq!(seen[0].as_ref().unwrap(), "a");
        assert!(seen.len() == 2 && seen[1].is_err());
    }

    #[tokio::test]
    async fn a_whole_archive_just_ends() {
        let (parts, body) = mpsc::channel(1);
        let (whole, ended) = oneshot::channel();
        assert!(give(&parts, Ok(Bytes::new()), SHORT).await);
        whole.send(()).unwrap();
        drop(parts);
        assert!(or_broken(body, ended).all(|part| std::future::ready(part.is_ok())).await);
    }

    #[tokio::test]
    async fn files_in_use_are_waited_for_and_not_for_ever() {
        let container = Container::new(record("a", "web"));
        let held = lock(&container, SHORT).await.unwrap();
        let error = lock(&container, SHORT).await.unwrap_err();
        assert!(error.message.contains("docker cp"), "{}", error.message);
        drop(held);
        assert!(lock_files(&container).await.is_ok());
    }
}
