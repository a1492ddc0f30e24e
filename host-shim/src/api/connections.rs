//! The clients at hand: who idles, who is served, who does not read; and who has to go when there are too many.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
};
use tokio_util::sync::CancellationToken;

use super::limits::Limits;

/// How often a client that is being served is checked for having left.
const CHECK: Duration = Duration::from_secs(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection is doing: idle -> served -> idle ..., or served -> hijacked until its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No whole request is there, since then.
    Idle(Instant),
    /// A request is worked on, or its answer is made. The last part of it may still have to be sent when it is idle again.
    Served,
    /// It carries raw stdio.
    Hijacked,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    open: Mutex<(u64, BTreeMap<u64, Weak<Connection>>)>,
    sessions: Arc<AtomicUsize>,
}

/// One connection; it counts for as long as anything holds it.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    stream: UnixStream,
    all: Arc<Connections>,
    phase: Mutex<Phase>,
    /// Since when the kernel takes no more for the client.
    unread: Mutex<Option<Instant>>,
    cut: CancellationToken,
}

impl Connections {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default(), sessions: Arc::default() })
    }

    /// A place for a client, for which another may have to go; the stream back when there is none.
    pub(crate) fn admit(self: &Arc<Self>, stream: UnixStream) -> Result<Arc<Connection>, UnixStream> {
        // Outside the lock: dropping the last holder of a connection takes it.
        if lock(&self.open).1.len() >= self.limits.connections && !self.make_room() {
            return Err(stream);
        }
        let mut open = lock(&self.open);
        open.0 += 1;
        let connection = Arc::new(Connection {
            id: open.0,
            stream,
            all: self.clone(),
            phase: Mutex::new(Phase::Idle(Instant::now())),
            unread: Mutex::default(),
            cut: CancellationToken::new(),
        });
        let id = open.0;
        open.1.insert(id, Arc::downgrade(&connection));
        Ok(connection)
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.open).1.values().filter_map(Weak::upgrade).collect()
    }

    /// Cuts the connection that idles longest, else the one that has been unread longest. Whether there was one.
    pub(crate) fn make_room(&self) -> bool {
        let all = self.all();
        let idle = all.iter().filter_map(|c| match *lock(&c.phase) {
            Phase::Idle(since) if !c.cut.is_cancelled() => Some((since, c)),
            _ => None,
        });
        let unread = || {
            all.iter()
                .filter(|c| !c.cut.is_cancelled())
                .filter_map(|c| c.unread_for(self.limits.unread).map(|since| (since, c)))
                .min_by_key(|(since, _)| *since)
        };
        let Some((_, victim)) = idle.min_by_key(|(since, _)| *since).or_else(unread) else { return false };
        tracing::debug!(connection = victim.id, "closed to make room for another client");
        victim.cut();
        true
    }

    /// Cuts clients that do not take an answer that is made. Streams may be left unread.
    pub(crate) fn sweep(&self) {
        for connection in self.all() {
            let made = matches!(*lock(&connection.phase), Phase::Idle(_));
            if made && connection.unread_for(self.limits.stall).is_some() {
                tracing::debug!(connection = connection.id, "its client does not read its answer");
                connection.cut();
            }
        }
    }
}

/// A place among the hijacked connections.
#[derive(Debug)]
pub(crate) struct Session(Arc<AtomicUsize>);

impl Drop for Session {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Makes it one that is to be closed: it no longer counts, whoever still holds it.
    fn cut(&self) {
        self.cut.cancel();
        lock(&self.all.open).1.remove(&self.id);
    }

    /// Resolves when it has to go.
    pub(crate) async fn is_cut(&self) {
        self.cut.cancelled().await;
    }

    /// Since when it is unread, if that is longer ago than `limit`.
    fn unread_for(&self, limit: Duration) -> Option<Instant> {
        lock(&self.unread).filter(|since| since.elapsed() >= limit)
    }

    /// A request is here; it is being served until its body is dropped.
    pub(crate) fn serve(self: &Arc<Self>) -> Serving {
        *lock(&self.phase) = Phase::Served;
        Serving(self.clone())
    }

    /// A place among the hijacked connections; none when there are too many.
    pub(crate) fn session(&self) -> Option<Session> {
        let sessions = &self.all.sessions;
        let fits = |n: usize| (n < self.all.limits.sessions).then_some(n + 1);
        sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Session(sessions.clone()))
    }

    /// From now on it carries raw stdio.
    pub(crate) fn hijacked(&self) {
        *lock(&self.phase) = Phase::Hijacked;
    }

    /// Resolves when the client has closed its socket altogether while it is being served. One that only ended its half
    /// reads as EOF in the same way, but does not hang up (`unix_poll` in the kernel).
    pub(crate) async fn hung_up(&self) {
        loop {
            tokio::time::sleep(CHECK).await;
            let ready = self.stream.ready(Interest::WRITABLE).now_or_never();
            let gone = ready.is_some_and(|r| r.map_or(true, tokio::io::Ready::is_write_closed));
            if gone && !matches!(*lock(&self.phase), Phase::Idle(_)) {
                return;
            }
        }
    }

    fn wrote<T>(&self, outcome: Poll<T>) -> Poll<T> {
        let mut unread = lock(&self.unread);
        match outcome {
            Poll::Pending => drop(unread.get_or_insert_with(Instant::now)),
            Poll::Ready(_) => *unread = None,
        }
        outcome
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.all.open).1.remove(&self.id);
    }
}

/// A request that is being served.
#[derive(Debug)]
pub(crate) struct Serving(Arc<Connection>);

impl Serving {
    /// The answer's body, which ends the serving.
    pub(crate) fn body<B>(self, body: B) -> Served<B>
    where
        B: Body<Data = Bytes>,
    {
        Served { body, _serving: self }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut phase = lock(&self.0.phase);
        if *phase == Phase::Served {
            *phase = Phase::Idle(Instant::now());
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Served<B> {
    body: B,
    _serving: Serving,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Served<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The bytes of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Io(pub(crate) Arc<Connection>);

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.stream.poll_read_ready(cx))?;
            match self.0.stream.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome.map(drop)),
            }
        }
    }
}

impl Io {
    fn poll_try(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.0.stream.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.0.wrote(Poll::Pending),
            }
            match write(&self.0.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return self.0.wrote(Poll::Ready(outcome)),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |stream| stream.try_write(data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |stream| stream.try_write_vectored(data))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = rustix::net::shutdown(&self.0.stream, rustix::net::Shutdown::Write);
        Poll::Ready(ended.map_err(io::Error::from))
    }
}
