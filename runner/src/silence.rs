//! How long somebody has not answered: what tells a dead peer from a busy one.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Silence after which a guest, or a runner, is taken for dead. Long enough for a guest of twenty that boot on two cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// Pause between an answer and the next question.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time for one answer; then the question is asked anew, over a new connection where the asker makes one.
const ATTEMPT: Duration = Duration::from_secs(15);
/// How often the silence is measured.
const TICK: Duration = Duration::from_secs(1);
/// Most that a tick counts. Who was stopped, starved or asleep with the whole host cannot blame others for the time.
const MOST: Duration = Duration::from_secs(2);

/// Asks again and again; ends once there was no answer (true) for `limit` in a row, as far as this process ran meanwhile.
pub(crate) async fn until_silent<F, Fut>(limit: Duration, mut ask: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let mut silence = Duration::ZERO;
    while silence < limit {
        let mut measured = Instant::now();
        let mut count = || {
            let now = Instant::now();
            silence += now.saturating_duration_since(std::mem::replace(&mut measured, now)).min(MOST);
            silence < limit
        };
        let mut question = pin!(timeout(ATTEMPT, ask()));
        let answered = loop {
            tokio::select! {
                // An answer that is there counts, however late it is looked at.
                biased;
                answer = &mut question => break answer.unwrap_or(false),
                () = sleep(TICK) => if !count() { return },
            }
        };
        if answered {
            silence = Duration::ZERO;
            sleep(INTERVAL).await;
        } else {
            sleep(TICK).await;
            count();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn ends_after(ask: impl AsyncFn(u32) -> bool) -> Duration {
        let (begin, asked) = (Instant::now(), Cell::new(0));
        until_silent(LIMIT, || {
            asked.set(asked.get() + 1);
            ask(asked.get())
        })
        .await;
        begin.elapsed()
    }

    /// SPEC V3
    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_answer() {
        let hung = async |n| if n <= 4 { true } else { std::future::pending().await };
        let after = ends_after(hung).await;
        assert!((4 * INTERVAL + LIMIT..4 * INTERVAL + LIMIT + 2 * TICK).contains(&after), "{after:?}");
        let refused = ends_after(async |_| false).await;
        assert!((LIMIT..LIMIT + 2 * TICK).contains(&refused), "{refused:?}");
        // One answer in time is enough.
        let slow = async |n| match n {
            2 => {
                sleep(ATTEMPT - TICK).await;
                true
            }
            n => n == 1,
        };
        let after = ends_after(slow).await;
        assert!(after >= 2 * INTERVAL + ATTEMPT - TICK + LIMIT, "{after:?}");
    }

    /// SPEC V4
    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_asker_did_not_run_does_not_count() {
        let asked = Cell::new(0);
        let waiting = until_silent(LIMIT, || {
            asked.set(asked.get() + 1);
            std::future::pending()
        });
        tokio::pin!(waiting);
        // Stopped for 10 minutes, after 20 s of silence: 20 s, one tick of the 10 minutes, and then some.
        assert!(timeout(Duration::from_secs(20), &mut waiting).await.is_err());
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(timeout(Duration::from_secs(5), &mut waiting).await.is_err(), "condemned too soon");
        assert!(timeout(Duration::from_secs(10), &mut waiting).await.is_ok());
        assert!(asked.get() >= 2);
    }
}
