//! The hostile guest: PID 1 of a VM. What it does is the word in `/mode`; with `grpc` the command of the container decides.

mod raw;
mod service;
mod supervisor;

use std::{ffi::CString, fs, io::Write, time::Duration};

pub(crate) fn main() -> ! {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(kind, target);
    }
    let mode = fs::read_to_string("/mode").unwrap_or_default().trim().to_owned();
    console(&format!("saboteur {mode}\n"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match mode.as_str() {
            "deaf" => {}
            "ends" => std::process::exit(1),
            "console" => loop {
                console(&"\x1b[31mflood \u{7} of the console\r\n".repeat(100));
            },
            "dials" => raw::dial_the_host().await,
            "kill" | "stop" => supervisor::run(&mode).await,
            "grpc" => service::serve().await,
            other => raw::serve(other).await,
        }
    });
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

pub(crate) fn mount(kind: &str, target: &str) {
    let (kind, target) = (CString::new(kind).unwrap(), CString::new(target).unwrap());
    // SAFETY: strings that live through the call.
    unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
}

pub(crate) fn console(text: &str) {
    if let Ok(mut console) = fs::File::options().write(true).open("/dev/console") {
        let _ = console.write_all(text.as_bytes());
    }
}

/// Cuts the power.
pub(crate) fn power_off() -> ! {
    // SAFETY: reboot(2) with integers.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    std::process::exit(1)
}
