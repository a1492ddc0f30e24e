//! The bounded queue of one attached client.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::Stream;
use proto::{runner::AttachResponse, sandbox::Stream as StdStream};
use tokio::sync::Notify;
use tonic::Status;

/// Bytes a client may be behind before it holds up the process.
const LIMIT: usize = 1 << 20;
/// Bytes it may be behind once the process has ended: what the guest's buffers held then must not wait for it.
const LAST_LIMIT: usize = 8 << 20;

#[derive(Debug)]
struct Inner {
    items: VecDeque<AttachResponse>,
    bytes: usize,
    limit: usize,
    /// The client left.
    gone: bool,
    /// Nothing comes any more; the stream ends so once the items are out.
    end: Option<Result<(), Status>>,
}

/// A client's end of output, held by the hub.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    inner: Mutex<Inner>,
    readable: Notify,
    writable: Notify,
}

impl Queue {
    /// A queue whose first item is the empty message that says "subscribed".
    pub(super) fn new(stdout: bool, stderr: bool) -> Arc<Self> {
        let inner = Inner {
            items: VecDeque::from([AttachResponse::default()]),
            bytes: 0,
            limit: LIMIT,
            gone: false,
            end: None,
        };
        Arc::new(Self {
            stdout,
            stderr,
            inner: Mutex::new(inner),
            readable: Notify::new(),
            writable: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends once there is room, as dockerd's writer waits for a slow client. False: the client is gone.
    pub(super) async fn push(&self, stream: StdStream, data: &Bytes) -> bool {
        loop {
            let room = self.writable.notified();
            {
                let mut inner = self.lock();
                if inner.gone || inner.end.is_some() {
                    return false;
                }
                if inner.bytes == 0 || inner.bytes + data.len() <= inner.limit {
                    inner.bytes += data.len();
                    inner.items.push_back(AttachResponse { stream: stream.into(), data: data.clone() });
                    break;
                }
                if inner.limit == LAST_LIMIT {
                    tracing::warn!("an attached client that does not read was dropped");
                    inner.end = Some(Err(Status::resource_exhausted("too far behind the ended process")));
                    break;
                }
            }
            room.await;
        }
        self.readable.notify_one();
        true
    }

    /// The process has ended: its last output no longer waits for this client.
    pub(super) fn last_words(&self) {
        self.lock().limit = LAST_LIMIT;
        self.writable.notify_one();
    }

    /// Nothing more will come.
    pub(super) fn end(&self, how: Result<(), Status>) {
        self.lock().end.get_or_insert(how);
        self.readable.notify_one();
        self.writable.notify_one();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// Whether something waits to be read by a client that is there.
    pub(super) fn is_pending(&self) -> bool {
        let inner = self.lock();
        !inner.gone && !inner.items.is_empty()
    }

    async fn next(&self) -> Option<Result<AttachResponse, Status>> {
        loop {
            let more = self.readable.notified();
            {
                let mut inner = self.lock();
                if let Some(item) = inner.items.pop_front() {
                    inner.bytes -= item.data.len();
                    self.writable.notify_one();
                    return Some(Ok(item));
                }
                match &mut inner.end {
                    Some(Err(status)) => {
                        let status = status.clone();
                        inner.end = Some(Ok(()));
                        return Some(Err(status));
                    }
                    Some(Ok(())) => return None,
                    None => {}
                }
            }
            more.await;
        }
    }
}

/// The reading end; the client is gone when this is dropped.
#[derive(Debug)]
struct Reader(Arc<Queue>);

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.gone = true;
        inner.items.clear();
        drop(inner);
        self.0.writable.notify_one();
    }
}

/// What an attached client reads.
pub(crate) type Output = std::pin::Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

/// The stream of a queue's items.
pub(super) fn output(queue: Arc<Queue>) -> Output {
    Box::pin(futures::stream::unfold(Reader(queue), |reader| async move {
        let item = reader.0.next().await?;
        Some((item, reader))
    }))
}
