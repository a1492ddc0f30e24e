//! `wait`: until a container stops, stops again, or is gone.

use super::{Engine, container::Container};
use crate::error::{Error, Result};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// It does not run (now or later).
    #[default]
    NotRunning,
    /// It exits from now on.
    NextExit,
    /// It is removed.
    Removed,
}

impl Condition {
    /// Parses the parameter `condition`.
    ///
    /// # Errors
    /// 400 `invalid condition: "x"`
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(Error::invalid(format!("invalid condition: {text:?}"))),
        }
    }
}

/// The answer to a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    /// Exit code of the last run.
    pub exit_code: i32,
    /// Why its VM was lost, else empty.
    pub error: String,
}

impl Engine {
    /// Waits from this call on, whenever the future is polled first. It has no deadline: the client goes away instead.
    pub fn wait(
        &self,
        container: &Container,
        condition: Condition,
    ) -> impl Future<Output = Waited> + Send + use<> {
        let mut watch = container.seen.subscribe();
        let exits = watch.borrow().exits;
        async move {
            let done = watch.wait_for(|seen| {
                seen.removed
                    || match condition {
                        Condition::NotRunning => !seen.running,
                        Condition::NextExit => seen.exits > exits,
                        Condition::Removed => false,
                    }
            });
            match done.await {
                Ok(seen) => Waited { exit_code: seen.exit_code, error: seen.error.clone() },
                // The container's last holder dropped it: it was removed.
                Err(_) => Waited { exit_code: 0, error: String::new() },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        assert_eq!(Condition::parse("").unwrap(), Condition::NotRunning);
        assert_eq!(Condition::parse("removed").unwrap(), Condition::Removed);
        assert_eq!(Condition::parse("x").unwrap_err().message, "invalid condition: \"x\"");
    }
}
