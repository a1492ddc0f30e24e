//! Daemons with busybox, shared or a test's own.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use tests::daemon::Daemon;
pub(crate) use tests::wait::eventually;

/// A daemon with busybox for tests that neither kill nor configure it.
static SHARED: LazyLock<Daemon> = LazyLock::new(|| fresh(&serde_json::json!({})));

/// The daemon that all tests share which neither kill nor configure it.
pub(crate) fn shared() -> &'static Daemon {
    &SHARED
}

/// A daemon of the test's own, with this `config.json` and busybox loaded.
#[track_caller]
pub(crate) fn fresh(config: &Value) -> Daemon {
    let daemon = Daemon::with_config(config).unwrap();
    daemon.load("busybox").unwrap();
    daemon
}

/// A name no other test uses.
pub(crate) fn name(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
