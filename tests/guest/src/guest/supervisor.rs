//! The real arca-init (`/arca-init`) as PID 1 of a PID namespace of its own, until someone says so on vsock port 5556: then
//! it is killed or stopped, and the VM stays.

use std::{ffi::CString, time::Duration};

use tokio::io::AsyncWriteExt;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

pub(crate) async fn run(mode: &str) {
    // What arca-init mounts, it mounts itself.
    for target in [c"/dev", c"/sys", c"/proc"] {
        // SAFETY: a string that lives through the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
    let program = CString::new("/arca-init").unwrap();
    // SAFETY: one thread; the child only calls execve.
    let pid = unsafe {
        libc::unshare(libc::CLONE_NEWPID);
        let pid = libc::fork();
        if pid == 0 {
            let args = [program.as_ptr(), std::ptr::null()];
            libc::unshare(libc::CLONE_NEWNS);
            libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            );
            libc::execv(program.as_ptr(), args.as_ptr());
            libc::_exit(1);
        }
        pid
    };
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, 5556)).unwrap();
    let signal = if mode == "kill" { libc::SIGKILL } else { libc::SIGSTOP };
    let orders = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // SAFETY: kill(2) with integers.
        unsafe { libc::kill(pid, signal) };
        let _ = stream.write_all(b"done\n").await;
    };
    let end = async {
        loop {
            let mut status = 0;
            // SAFETY: the status lives through the call.
            if unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } == pid {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = orders => std::future::pending().await,
        // Its power-off ends its namespace only.
        () = end => super::power_off(),
    }
}
