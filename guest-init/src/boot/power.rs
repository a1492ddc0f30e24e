//! The end of the VM.

use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};

use crate::log;

/// Between the last answer and the power: vsock hands its data to the device from a worker.
const FLUSH: Duration = Duration::from_millis(5);

/// Writes what is dirty to the disks and cuts the power.
pub(crate) fn off() -> ! {
    nix::unistd::sync();
    std::thread::sleep(FLUSH);
    loop {
        let Err(error) = reboot(RebootMode::RB_POWER_OFF);
        log::error!("power off: {error}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A panic of PID 1 ends the VM with its message on the console: the host sees a dead VM, never a mute one.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        log::error!("{panic}");
        let _ = reboot(RebootMode::RB_POWER_OFF);
    }));
}
