//! Downloads of blobs: a few at once, each blob once, resumed when cut, never more than was announced.

use std::{sync::Arc, time::Duration};

use reqwest::{StatusCode, header};
use tokio::sync::Semaphore;

use super::{failure::Failure, session::Session};
use crate::{
    content::{BlobWriter, ContentStore},
    digest::Digest,
    error::{Error, Result},
    flight::Flights,
    progress::LayerProgress,
};

/// Downloads at once, dockerd's default.
const PARALLEL: usize = 3;
/// Bytes gathered before they are hashed and written.
const CHUNK: usize = 1 << 20;

/// All downloads of a store.
pub(crate) struct Downloads {
    flights: Flights,
    slots: Semaphore,
}

impl Default for Downloads {
    fn default() -> Self {
        Self { flights: Flights::default(), slots: Semaphore::new(PARALLEL) }
    }
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
        let flight = self.flights.join(wanted.digest.as_str());
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
            if self.slots.available_permits() == 0 {
                progress.state("Waiting");
            }
            let _slot = self.slots.acquire().await.map_err(|e| Error::System(e.to_string()))?;
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
    // Progress forgives earlier failures, but not for ever: a server could drip bytes.
    let mut left = timeouts.attempts.saturating_mul(20);
    loop {
        let before = writer.len();
        let (returned, outcome) = attempt(session, wanted, writer, &report).await?;
        writer = returned;
        let Err(failure) = outcome else { break };
        if writer.len() > before {
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
    if from > 0 && !resumes_at(&response, from) {
        writer.restart()?;
    }
    let mut gathered = Vec::with_capacity(CHUNK);
    loop {
        let stall = session.timeouts.stall;
        let (end, failure) = match tokio::time::timeout(stall, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                gathered.extend_from_slice(&chunk);
                (false, None)
            }
            Ok(Ok(None)) => (true, None),
            Ok(Err(e)) => (true, Some(Failure::transport(&url, &e))),
            Err(_) => {
                let why = format!("the download stalled for {} s", stall.as_secs_f32());
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

/// Whether the server goes on where we stopped; a plain 200 starts again.
fn resumes_at(response: &reqwest::Response, from: u64) -> bool {
    let range =
        response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let start = range
        .strip_prefix("bytes ")
        .and_then(|r| r.split_once('-'))
        .and_then(|(start, _)| start.parse().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && start == Some(from)
}
