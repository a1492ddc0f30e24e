//! Tools for inside a container. Each says what came of it on stdout.

use std::{
    ffi::CString,
    fs::File,
    io::{Error, Write},
    os::fd::AsRawFd,
    time::Duration,
};

pub(crate) fn main(tool: &str, args: &[String]) {
    let arg = |n: usize| args.get(n).map_or("", String::as_str);
    match tool {
        "vsock" => vsock(arg(0).parse().unwrap(), arg(1).parse().unwrap()),
        "fds" => fds(),
        "open" => println!("{}", said(&File::options().read(true).open(arg(0)))),
        "write" => println!("{}", said(&File::options().write(true).open(arg(0)))),
        "nice" => nice(arg(0).parse().unwrap()),
        "swap" => swap(arg(0), arg(1)),
        "eat" => eat(),
        "forks" => forks(),
        "files" => files(),
        "watches" => watches(),
        "segfaults" => segfaults(),
        "realtime" => realtime(),
        "inodes" => inodes(arg(0)),
        "sleepers" => sleepers(arg(0).parse().unwrap(), arg(1).parse().unwrap()),
        "calls" => calls(),
        other => panic!("unknown tool {other}"),
    }
}

fn said<T>(result: &std::io::Result<T>) -> String {
    match result {
        Ok(_) => "opened".into(),
        Err(error) => format!("refused {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A socket by the library's call and by one with the unused half of the register set, then a connect.
fn vsock(cid: u32, port: u32) {
    // SAFETY: system calls with integers, and an address that lives through the call.
    unsafe {
        let halves = libc::syscall(libc::SYS_socket, 0x1_0000_0000_u64 | libc::AF_VSOCK as u64, 1_u64, 0_u64);
        println!("halves {}", if halves < 0 { errno() } else { 0 });
        let fd = libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0);
        println!("socket {}", if fd < 0 { errno() } else { 0 });
        if fd < 0 {
            return;
        }
        let timeout = libc::timeval { tv_sec: 5, tv_usec: 0 };
        let size = std::mem::size_of::<libc::timeval>() as libc::socklen_t;
        libc::setsockopt(fd, libc::AF_VSOCK, 6, (&raw const timeout).cast(), size);
        let mut address: libc::sockaddr_vm = std::mem::zeroed();
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        address.svm_cid = cid;
        address.svm_port = port;
        let size = std::mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        let result = libc::connect(fd, (&raw const address).cast(), size);
        println!("connect {}", if result < 0 { errno() } else { 0 });
    }
}

/// Descriptors this process was started with.
fn fds() {
    for fd in 0..1024 {
        // SAFETY: fcntl on a number.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
            let target = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
            println!("{fd} {}", target.display());
        }
    }
}

/// Adds to its niceness, and says later what it is.
fn nice(by: i32) {
    // SAFETY: nice(2) and getpriority(2) with integers.
    unsafe { libc::nice(by) };
    std::thread::sleep(Duration::from_secs(7));
    // SAFETY: as above.
    println!("{}", unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) });
}

/// Swaps two names for ever.
fn swap(one: &str, other: &str) {
    let (one, other) = (CString::new(one).unwrap(), CString::new(other).unwrap());
    println!("swapping");
    loop {
        // SAFETY: two strings that live through the call.
        unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                libc::AT_FDCWD,
                one.as_ptr(),
                libc::AT_FDCWD,
                other.as_ptr(),
                libc::RENAME_EXCHANGE,
            );
        }
    }
}

/// Children that take memory until they are killed, for ever; says so once the first was.
fn eat() {
    const PIECE: usize = 64 << 20;
    let eater = || {
        child(|| {
            loop {
                // SAFETY: a new mapping, of which each page is written once.
                unsafe {
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                    let rights = libc::PROT_READ | libc::PROT_WRITE;
                    let piece = libc::mmap(std::ptr::null_mut(), PIECE, rights, flags, -1, 0);
                    for at in (0..PIECE).step_by(4096) {
                        piece.cast::<u8>().add(at).write_volatile(1);
                    }
                }
            }
        })
    };
    eater();
    for round in 0.. {
        eater();
        // SAFETY: wait(2) with no status.
        unsafe { libc::wait(std::ptr::null_mut()) };
        if round == 0 {
            println!("eating");
        }
    }
}

/// Runs something in a child that never returns.
fn child(work: impl FnOnce()) -> i32 {
    // SAFETY: the program has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        work();
        std::process::exit(0);
    }
    pid
}

fn forks() {
    println!("forking");
    loop {
        // SAFETY: the program has one thread.
        unsafe { libc::fork() };
    }
}

/// Processes that hold as many descriptors as they can, and eat epoll watches.
fn hold(what: &str, work: impl Fn()) {
    println!("{what}");
    for _ in 0..16 {
        child(|| {
            work();
            std::thread::sleep(Duration::from_secs(3600));
        });
    }
    std::thread::sleep(Duration::from_secs(3600));
}

fn files() {
    let most = libc::rlimit { rlim_cur: 1 << 19, rlim_max: 1 << 19 };
    // SAFETY: setrlimit reads one struct; it may fail.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) };
    hold("files", || {
        // SAFETY: descriptors nobody else owns.
        while unsafe { libc::eventfd(0, 0) } >= 0 {}
    });
}

fn watches() {
    hold("watches", || {
        // SAFETY: descriptors nobody else owns; the event lives through the call.
        unsafe {
            let targets: Vec<i32> = (0..500).map(|_| libc::eventfd(0, 0)).collect();
            loop {
                let set = libc::epoll_create1(0);
                if set < 0 {
                    return;
                }
                for fd in &targets {
                    let mut event = libc::epoll_event { events: 1, u64: 0 };
                    if libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, *fd, &raw mut event) < 0 {
                        return;
                    }
                }
            }
        }
    });
}

/// The kernel has a line for each on its console, if it likes.
fn segfaults() {
    println!("segfaults");
    loop {
        child(|| {
            // SAFETY: none: it is to be killed.
            unsafe { std::ptr::without_provenance_mut::<u8>(16).write_volatile(1) };
        });
        // SAFETY: wait(2) with no status.
        unsafe { libc::wait(std::ptr::null_mut()) };
    }
}

/// A real-time process that never sleeps on each processor; ordinary ones when that is refused.
fn realtime() {
    let priority: libc::c_int = 99;
    // SAFETY: the kernel's sched_param is one int, which lives through the call.
    let refused =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const priority) };
    println!("realtime {}", if refused < 0 { errno() } else { 0 });
    let _ = std::io::stdout().flush();
    for _ in 0..3 {
        child(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    loop {
        std::hint::spin_loop();
    }
}

fn inodes(folder: &str) {
    for number in 0u64.. {
        if let Err(error) = File::create(format!("{folder}/{number}")) {
            println!("inodes {number} {}", error.raw_os_error().unwrap_or(0));
            return;
        }
    }
}

/// Children with long command lines.
fn sleepers(count: usize, length: usize) {
    let program = std::env::current_exe().unwrap();
    if let Ok(left) = std::env::var("SLEEPER") {
        let left: usize = left.parse().unwrap();
        for _ in 0..left {
            child(|| std::thread::sleep(Duration::from_secs(3600)));
        }
        println!("sleepers");
        std::thread::sleep(Duration::from_secs(3600));
    }
    let word = "x".repeat(100_000);
    let mut command = std::process::Command::new(program);
    command.args(["sleepers", "0", "0"]).env("SLEEPER", count.to_string());
    for _ in 0..length.div_ceil(word.len()) {
        command.arg(&word);
    }
    let status = command.spawn().and_then(|mut child| child.wait());
    println!("{status:?}");
}

/// System calls that no default profile allows; their error numbers.
fn calls() {
    // SAFETY: calls that are to fail, with pointers that live.
    unsafe {
        let empty = c"".as_ptr();
        for (name, result) in [
            ("unshare", libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER)),
            ("mount", libc::syscall(libc::SYS_mount, empty, c"/".as_ptr(), empty, libc::MS_REMOUNT, 0)),
            ("keyctl", libc::syscall(libc::SYS_keyctl, 0, -3)),
            ("bpf", libc::syscall(libc::SYS_bpf, 0, empty, 0)),
            ("reboot", libc::syscall(libc::SYS_reboot, 0, 0, 0, 0)),
            ("io_uring", libc::syscall(libc::SYS_io_uring_setup, 1, empty)),
            ("userfaultfd", libc::syscall(libc::SYS_userfaultfd, 0)),
            ("module", libc::syscall(libc::SYS_finit_module, 0, empty, 0)),
            ("settime", libc::syscall(libc::SYS_clock_settime, 0, 0)),
            ("swapon", libc::syscall(libc::SYS_swapon, empty, 0)),
            ("handle", libc::syscall(libc::SYS_open_by_handle_at, 0, empty, 0)),
        ] {
            println!("{name} {}", if result < 0 { "refused" } else { "allowed" });
        }
    }
    let null = File::open("/dev/null").unwrap();
    println!("null {}", null.as_raw_fd() > 2);
}
