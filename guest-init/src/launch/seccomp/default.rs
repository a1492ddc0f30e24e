//! Docker's default profile (moby `profiles/seccomp/default.json`, as of Docker 28), for the processors Arca runs on.

use super::profile::{Action, Argument, Compare, Profile, Rule};

/// Address family of vsock, the way to PID 1's control port.
const AF_VSOCK: u64 = 40;
/// The `CLONE_NEW*` flags that clone(2) takes.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// personality(2) values that only change how a program sees the machine.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];

/// What everybody may call. io_uring is not among them: Docker took it out in version 25.
const ALLOWED: &str = "\
    accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown clock_adjtime \
    clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 \
    dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 \
    fallocate fanotify_mark fchdir fchmod fchmodat fchown fchownat fcntl fdatasync fgetxattr flistxattr \
    flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_waitv futimesat getcpu \
    getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp \
    getpid getppid getpriority getrandom getresgid getresuid getrlimit get_robust_list getrusage getsid \
    getsockname getsockopt get_thread_area gettid gettimeofday getuid getxattr inotify_add_watch \
    inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents \
    ioprio_get ioprio_set io_setup io_submit kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek \
    lsetxattr lstat madvise membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat \
    mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend \
    mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at \
    nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc \
    pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease \
    process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink \
    readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2 \
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam \
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl \
    semget semop semtimedop sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups \
    setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit set_robust_list setsid \
    setsockopt set_thread_area set_tid_address setuid setxattr shmat shmctl shmdt shmget shutdown \
    sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync \
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timerfd_create \
    timerfd_gettime timerfd_settime timer_getoverrun timer_gettime timer_settime times tkill truncate \
    umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev \
    arch_prctl modify_ldt";

/// What a capability adds.
const BY_CAPABILITY: [(&str, &str); 13] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday clock_settime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
];

/// The profile of a process with these capabilities.
pub(super) fn profile(capabilities: &[String]) -> Profile {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut rules = vec![
        allow(ALLOWED, Vec::new()),
        allow("socket", vec![Argument { index: 0, compare: Compare::Ne, value: AF_VSOCK }]),
    ];
    for value in PERSONALITIES {
        rules.push(allow("personality", vec![Argument { index: 0, compare: Compare::Eq, value }]));
    }
    for (capability, names) in BY_CAPABILITY {
        if has(capability) {
            rules.push(allow(names, Vec::new()));
        }
    }
    if has("CAP_SYSLOG") {
        rules.push(allow("syslog", Vec::new()));
    }
    if !has("CAP_SYS_ADMIN") {
        let no_namespaces = Argument { index: 0, compare: Compare::Masked(CLONE_NAMESPACES), value: 0 };
        rules.push(allow("clone", vec![no_namespaces]));
        // Its flags are in memory, out of a filter's sight: programs fall back to clone.
        let action = Action::Errno(libc::ENOSYS.cast_unsigned());
        rules.push(Rule { names: vec!["clone3".to_owned()], action, arguments: Vec::new() });
    }
    Profile { default: Action::Errno(libc::EPERM.cast_unsigned()), rules }
}

fn allow(names: &str, arguments: Vec<Argument>) -> Rule {
    let names = names.split_ascii_whitespace().map(str::to_owned).collect();
    Rule { names, action: Action::Allow, arguments }
}

#[cfg(test)]
mod tests {
    use super::{super::table, *};

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_name_is_known() {
        let all = BY_CAPABILITY.iter().map(|(_, names)| *names).chain([ALLOWED]);
        for name in all.flat_map(str::split_ascii_whitespace) {
            assert!(table::number(name).is_some(), "{name}");
        }
    }

    #[test]
    fn mount_needs_the_capability() {
        let allows = |profile: Profile, name: &str| {
            profile
                .rules
                .iter()
                .any(|rule| rule.action == Action::Allow && rule.names.iter().any(|n| n == name))
        };
        assert!(!allows(profile(&[]), "mount"));
        assert!(allows(profile(&["CAP_SYS_ADMIN".to_owned()]), "mount"));
        assert!(!allows(profile(&[]), "clone3"));
    }
}
