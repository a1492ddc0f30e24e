//! Downloads of blobs: a few at once, each blob once, resumed when cut, never more than was announced.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{StatusCode, header};

use super::{
    failure::Failure,
    session::{Session, check_encoding},
};
use crate::{
    content::{BlobWriter, ContentStore},
    digest::Digest,
    error::{Error, Result},
    flight::Flights,
    progress::LayerProgress,
    store::Timeouts,
};

/// Bytes gathered before they are hashed and written.
const CHUNK: usize = 1 << 20;

/// All downloads of a store.
#[derive(Default)]
pub(crate) struct Downloads {
    flights: Flights,
}

/// What to download.
pub(crate) struct Wanted {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Downloads {
    /// Brings a blob into the content store. Who asks for a blob that is on its way waits for that one,
    /// and takes over if it fails.
    pub(crate) async fn fetch(
        &self,
        session: &Session,
        content: &Arc<ContentStore>,
        wanted: &Wanted,
        progress: &LayerProgress,
    ) -> Result<()> {
        let flight = self.flights.join(&session.flight(&wanted.digest));
        let mut done = flight.done.subscribe();
        let gate = Arc::clone(&flight.gate).lock_owned();
        tokio::pin!(gate);
        let _gate = loop {
            tokio::select! {
                gate = &mut gate => break gate,
                Ok(()) = done.changed() => {
                    let n = *done.borrow_and_update();
                    progress.count("Downloading", n, wanted.size);
                }
            }
        };
        if content.size(&wanted.digest) != Some(wanted.size) {
            if session.slots.available_permits() == 0 {
                progress.state("Waiting");
            }
            let _slot = session.slots.acquire().await.map_err(|e| Error::System(e.to_string()))?;
            let report = |n| {
                flight.done.send_replace(n);
                progress.count("Downloading", n, wanted.size);
            };
            download(session, content, wanted, report, || progress.state("Verifying Checksum")).await?;
        }
        progress.state("Download complete");
        Ok(())
    }
}

async fn download(
    session: &Session,
    content: &ContentStore,
    wanted: &Wanted,
    report: impl Fn(u64),
    verifying: impl Fn(),
) -> Result<()> {
    let timeouts = session.timeouts;
    let mut writer = content.writer()?;
    let (mut failures, mut backoff) = (0, timeouts.backoff);
    // Progress forgives earlier failures, but not for ever.
    let mut left = timeouts.attempts.saturating_mul(20);
    loop {
        let before = writer.len();
        let (returned, outcome) = attempt(session, wanted, writer, &report).await?;
        writer = returned;
        let Err(failure) = outcome else { break };
        // What was received before a restart is no progress either.
        if writer.len() >= before.saturating_add(timeouts.least) {
            (failures, backoff) = (0, timeouts.backoff);
        }
        failures += 1;
        left = left.saturating_sub(1);
        if !failure.is_passing() || failures >= timeouts.attempts || left == 0 {
            return Err(failure.into_error());
        }
        tracing::warn!(digest = %wanted.digest, at = writer.len(), ?failure, "download cut, trying again");
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(Duration::from_secs(30));
    }
    verifying();
    let expected = wanted.digest.clone();
    tokio::task::spawn_blocking(move || writer.commit(Some(&expected))).await??;
    Ok(())
}

/// One request, from where the writer stands. The outer error is final; the writer comes back otherwise.
async fn attempt(
    session: &Session,
    wanted: &Wanted,
    mut writer: BlobWriter,
    report: &impl Fn(u64),
) -> Result<(BlobWriter, Result<(), Failure>)> {
    let url = session.blob_url(&wanted.digest);
    let from = writer.len();
    if from == wanted.size && from > 0 {
        return Ok((writer, Ok(())));
    }
    let mut response = match session.blob(&wanted.digest, from).await {
        Ok(response) => response,
        Err(failure) => return Ok((writer, Err(failure))),
    };
    if let Err(failure) = check_encoding(&response, &url) {
        return Ok((writer, Err(failure)));
    }
    let Some(start) = answered_from(&response, from) else {
        writer.restart()?;
        let why = "the server answered with another range than was asked for".to_owned();
        return Ok((writer, Err(Failure::Transport { url, why, timeout: false })));
    };
    if start == 0 && from > 0 {
        writer.restart()?;
    }
    if let Some(stated) = response.content_length()
        && start.checked_add(stated) != Some(wanted.size)
    {
        return Err(Error::Corrupt(format!(
            "filesystem layer verification failed for digest {}: the registry has {} bytes of it, the manifest states {}",
            wanted.digest,
            start.saturating_add(stated),
            wanted.size
        )));
    }
    let mut gathered = Vec::with_capacity(CHUNK);
    let mut pace = Pace::new(&session.timeouts);
    loop {
        let (end, failure) = match tokio::time::timeout(pace.patience(), response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                gathered.extend_from_slice(&chunk);
                let slow = pace.count(chunk.len() as u64).err();
                (slow.is_some(), slow.map(|why| Failure::Transport { url: url.clone(), why, timeout: true }))
            }
            Ok(Ok(None)) => (true, None),
            Ok(Err(e)) => (true, Some(Failure::transport(&url, &e))),
            Err(_) => {
                let why = pace.over();
                (true, Some(Failure::Transport { url: url.clone(), why, timeout: true }))
            }
        };
        let received = writer.len() + gathered.len() as u64;
        if received > wanted.size {
            return Err(Error::Corrupt(format!(
                "filesystem layer verification failed for digest {}: longer than its {} bytes",
                wanted.digest, wanted.size
            )));
        }
        report(received);
        if gathered.len() >= CHUNK || end {
            (writer, gathered) = tokio::task::spawn_blocking(move || {
                writer.write(&gathered)?;
                gathered.clear();
                Ok::<_, Error>((writer, gathered))
            })
            .await??;
        }
        if end {
            let short = writer.len() < wanted.size;
            let cut =
                || Failure::Transport { url: url.clone(), why: "unexpected EOF".into(), timeout: false };
            return Ok((writer, failure.or(short.then(cut)).map_or(Ok(()), Err)));
        }
    }
}

/// The byte an answer starts with: `from`, or 0 of a server that cannot resume. Nothing for another range.
fn answered_from(response: &reqwest::Response, from: u64) -> Option<u64> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Some(0);
    }
    let range =
        response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    start.parse().ok().filter(|start| *start == from)
}

/// The least progress of a download: some byte within the stall time, and some kilobytes within the window.
struct Pace {
    stall: Duration,
    window: Duration,
    least: u64,
    since: Instant,
    received: u64,
}

impl Pace {
    fn new(timeouts: &Timeouts) -> Self {
        let Timeouts { stall, window, least, .. } = *timeouts;
        Self { stall, window, least, since: Instant::now(), received: 0 }
    }

    /// How long to wait for the next byte.
    fn patience(&self) -> Duration {
        if self.received >= self.least {
            return self.stall;
        }
        self.stall.min(self.window.saturating_sub(self.since.elapsed()))
    }

    fn count(&mut self, bytes: u64) -> Result<(), String> {
        self.received = self.received.saturating_add(bytes);
        if self.since.elapsed() < self.window {
            return Ok(());
        }
        if self.received < self.least {
            return Err(self.slow());
        }
        (self.since, self.received) = (Instant::now(), 0);
        Ok(())
    }

    /// Why waiting has ended.
    fn over(&self) -> String {
        if self.received < self.least && self.since.elapsed() >= self.window {
            return self.slow();
        }
        format!("the download stalled for {} s", self.stall.as_secs_f32())
    }

    fn slow(&self) -> String {
        format!("the download is too slow: {} bytes in {} s", self.received, self.window.as_secs_f32())
    }
}
