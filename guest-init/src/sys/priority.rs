//! The priority that a process has for its start only.

use std::io;

use rustix::process::Pid;

use crate::boot::reserve::NICE;

/// `SCHED_ATTR_SIZE_VER0`: the fields up to sched_period.
const SIZE: u32 = 48;
const NOT_INHERITED: u64 = libc::SCHED_FLAG_RESET_ON_FORK as u64;

/// Gives the calling thread PID 1's priority, which its children do not inherit.
pub(crate) fn boost() -> io::Result<()> {
    set(
        0,
        &libc::sched_attr {
            sched_policy: libc::SCHED_OTHER.cast_unsigned(),
            sched_flags: NOT_INHERITED,
            sched_nice: NICE,
            ..empty()
        },
    )
}

/// Takes it back; a niceness that the process chose itself since then stays.
pub(crate) fn calm_down(pid: Pid) -> io::Result<()> {
    let pid = pid.as_raw_nonzero().get();
    let mut attributes = empty();
    // SAFETY: sched_getattr(2) writes at most SIZE bytes to the attributes, which live through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, pid, &raw mut attributes, SIZE, 0) })?;
    attributes.size = SIZE;
    // Newer kernels tell the length of a turn here, and would fix it.
    attributes.sched_runtime = 0;
    attributes.sched_flags &= !NOT_INHERITED;
    attributes.sched_nice = own(attributes.sched_nice);
    set(pid, &attributes)
}

/// nice(2) adds to what is there: what a process made of our value is meant from 0. Only a process with CAP_SYS_NICE, which
/// can choose again, means a negative one as it is.
fn own(nice: i32) -> i32 {
    if nice < 0 { nice - NICE } else { nice }
}

fn empty() -> libc::sched_attr {
    libc::sched_attr {
        size: SIZE,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    }
}

fn set(pid: i32, attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: sched_setattr(2) reads `size` bytes of the attributes, which live through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, std::ptr::from_ref(attributes), 0) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_chose_stays() {
        for (nice, expected) in [(NICE, 0), (NICE + 19, 19), (NICE + 5, 5), (0, 0), (10, 10), (19, 19)] {
            assert_eq!(own(nice), expected, "{nice}");
        }
    }

    #[test]
    fn the_priority_is_taken_back() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let raised = libc::sched_attr { sched_flags: NOT_INHERITED, sched_nice: 7, ..empty() };
        set(pid.as_raw_nonzero().get(), &raised).unwrap();
        let calmed = calm_down(pid);
        let mut seen = empty();
        // SAFETY: as above.
        let got = check(unsafe {
            libc::syscall(libc::SYS_sched_getattr, pid.as_raw_nonzero().get(), &raw mut seen, SIZE, 0)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        // Only root clears the flag.
        assert!(calmed.is_ok() || !rustix::process::geteuid().is_root(), "{calmed:?}");
        got.unwrap();
        assert_eq!(seen.sched_nice, 7);
        assert_eq!(seen.sched_flags & NOT_INHERITED == 0, calmed.is_ok());
    }
}
