//! All attached clients of the main process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use proto::sandbox::Stream as StdStream;
use tonic::Status;

use super::queue::{Output, Queue, output};

#[derive(Debug)]
struct Inner {
    clients: Vec<Arc<Queue>>,
    last_words: bool,
    end: Option<Result<(), Status>>,
}

/// Hands output to every attached client.
#[derive(Debug)]
pub(crate) struct Hub(Mutex<Inner>);

impl Hub {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inner { clients: Vec::new(), last_words: false, end: None }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new client; it gets what comes from now on.
    pub(crate) fn subscribe(&self, stdout: bool, stderr: bool) -> Output {
        let queue = Queue::new(stdout, stderr);
        let mut inner = self.lock();
        if inner.last_words {
            queue.last_words();
        }
        match &inner.end {
            Some(how) => queue.end(how.clone()),
            None => inner.clients.push(Arc::clone(&queue)),
        }
        output(queue)
    }

    /// Hands data to all who want it; waits for the slow, forgets the gone.
    pub(crate) async fn deliver(&self, stream: StdStream, data: Bytes) {
        let wants = |queue: &&Arc<Queue>| match stream {
            StdStream::Stderr => queue.stderr,
            _ => queue.stdout,
        };
        let clients: Vec<_> = self.lock().clients.iter().filter(wants).cloned().collect();
        for queue in clients {
            if !queue.push(stream, &data).await {
                self.lock().clients.retain(|other| !Arc::ptr_eq(other, &queue));
            }
        }
    }

    /// The process has ended: nobody holds up its last output.
    pub(crate) fn last_words(&self) {
        let mut inner = self.lock();
        inner.last_words = true;
        inner.clients.iter().for_each(|queue| queue.last_words());
    }

    /// Ends all streams, after what they were handed; later clients get the same end.
    pub(crate) fn end(&self, how: Result<(), Status>) {
        let mut inner = self.lock();
        for queue in &inner.clients {
            queue.end(how.clone());
        }
        inner.end.get_or_insert(how);
    }

    /// Whether a client that is there has not got everything yet.
    pub(crate) fn is_pending(&self) -> bool {
        let mut inner = self.lock();
        inner.clients.retain(|queue| !queue.is_gone());
        inner.clients.iter().any(|queue| queue.is_pending())
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_holds_up_and_a_gone_one_does_not() {
        let hub = Arc::new(Hub::new());
        let mut client = hub.subscribe(true, false);
        assert_eq!(client.next().await.unwrap().unwrap().data.len(), 0);
        let chunk = Bytes::from(vec![0; 1 << 18]);
        for _ in 0..4 {
            hub.deliver(StdStream::Stdout, chunk.clone()).await;
        }
        hub.deliver(StdStream::Stderr, chunk.clone()).await;
        let blocked = tokio::spawn({
            let (hub, chunk) = (Arc::clone(&hub), chunk.clone());
            async move { hub.deliver(StdStream::Stdout, chunk).await }
        });
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert!(!blocked.is_finished());
        assert_eq!(client.next().await.unwrap().unwrap().data.len(), 1 << 18);
        blocked.await.unwrap();
        let blocked = hub.deliver(StdStream::Stdout, chunk.clone());
        drop(client);
        blocked.await;
        assert!(!hub.is_pending());
    }

    #[tokio::test]
    async fn last_words_wait_for_nobody_and_all_is_read_before_the_end() {
        let hub = Hub::new();
        let mut client = hub.subscribe(true, true);
        hub.last_words();
        let chunk = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..3 {
            hub.deliver(StdStream::Stdout, chunk.clone()).await;
        }
        hub.end(Ok(()));
        assert!(hub.is_pending());
        let mut total = 0;
        while let Some(item) = client.next().await {
            total += item.unwrap().data.len();
        }
        assert_eq!(total, 3 << 20);
        // Who comes late gets the greeting and the end.
        assert_eq!(hub.subscribe(true, true).count().await, 1);
    }
}
