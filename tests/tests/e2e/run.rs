//! `docker run` and its options.

use crate::support::{Container, arca, docker, docker_with, sh};

#[test]
fn prints_and_exits() {
    let out = docker().sh("run --rm busybox echo hello world");
    assert_eq!(out.ok(), "hello world");
    assert_eq!(out.stderr, "");
}

#[test]
fn runs_in_a_vm_with_our_kernel() {
    let Some(_) = arca() else { return };
    let inside = sh("", "uname -r").ok().to_owned();
    let outside = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_ne!(inside, outside.trim());
    assert_eq!(sh("", "uname -m").ok(), "x86_64");
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let out = sh("", "echo one; echo two >&2");
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("one\n", "two\n"));
}

#[test]
fn exit_codes_come_through() {
    for code in [0, 1, 7, 42, 126, 127, 255] {
        assert_eq!(sh("", &format!("exit {code}")).code, code);
    }
    assert_eq!(sh("", "kill -KILL $$; sleep 9").code, 0, "PID 1 ignores its own SIGKILL");
    assert_eq!(sh("", "sh -c 'kill -TERM $$'; exit $?").code, 143);
}

#[test]
fn commands_that_cannot_run() {
    docker()
        .sh("run --rm busybox nosuchcommand")
        .fails(127, "exec: \"nosuchcommand\": executable file not found in $PATH");
    docker().sh("run --rm busybox /no/such").fails(127, "no such file or directory");
    docker().sh("run --rm busybox /etc/passwd").fails(126, "permission denied");
    docker()
        .sh("run --rm -u bob busybox true")
        .fails(125, "unable to find user bob: no matching entries in passwd file");
    docker().sh("run --rm nosuchimage:1 true").fails(125, "nosuchimage");
    docker().sh("run --rm -m 1k busybox true").fails(125, "Minimum memory limit allowed is 6MB");
}

#[test]
fn environment_workdir_user_hostname() {
    let script = "echo $A-$B; pwd; id -u; id -g; hostname; echo $HOME; echo $HOSTNAME";
    let out = sh("-e A=1 -e B=two -w /tmp/deep/er -u 1000:2000 --hostname box", script);
    assert_eq!(out.ok(), "1-two\n/tmp/deep/er\n1000\n2000\nbox\n/\nbox");
    assert_eq!(sh("-u guest", "id -un; id -G; echo $HOME").ok(), "guest\n100 50\n/home");
    assert_eq!(
        sh("--domainname example.org --hostname box", "cat /proc/sys/kernel/domainname").ok(),
        "example.org"
    );
}

#[test]
fn default_hostname_is_the_short_id() {
    let container = Container::run("hostname", "", "hostname");
    assert_eq!(container.wait(), "0");
    assert_eq!(container.logs().ok(), &container.inspect("{{.Id}}")[..12]);
}

#[test]
fn entrypoint() {
    assert_eq!(docker().sh("run --rm --entrypoint /bin/echo busybox a b").ok(), "a b");
    assert_eq!(docker().run(&["run", "--rm", "--entrypoint", "", "busybox", "echo", "c"]).ok(), "c");
}

#[test]
fn memory_limit_is_enforced_and_told() {
    if arca().is_some() {
        assert_eq!(sh("-m 64m", "cat /sys/fs/cgroup/memory.max").ok(), "67108864");
    }
    let container = Container::run("oom", "-m 32m --memory-swap 32m", "x=a; while :; do x=$x$x$x$x; done");
    assert_eq!(container.wait(), "137");
    assert_eq!(container.inspect("{{.State.OOMKilled}}"), "true");
}

#[test]
fn cpu_limit_shows_in_the_cgroup() {
    // The reference may run on cgroup v1.
    let Some(_) = arca() else { return };
    assert_eq!(sh("--cpus 0.5", "cat /sys/fs/cgroup/cpu.max").ok(), "50000 100000");
    assert_eq!(sh("--pids-limit 50", "cat /sys/fs/cgroup/pids.max").ok(), "50");
}

#[test]
fn read_only_root_with_a_tmpfs() {
    let out =
        sh("--read-only --tmpfs /scratch:size=1m", "echo a > /scratch/f && cat /scratch/f; echo b > /f");
    assert_eq!(out.stdout, "a\n");
    assert!(out.stderr.contains("Read-only file system"), "{}", out.stderr);
    assert!(sh("--tmpfs /scratch:size=1m", "mount | grep /scratch").ok().contains("size=1024k"));
    assert_ne!(
        sh("--tmpfs /scratch:size=1m", "dd if=/dev/zero of=/scratch/f bs=1M count=2 2>/dev/null").code,
        0
    );
}

#[test]
fn capabilities() {
    let effective = |options: &str| sh(options, "grep CapEff /proc/self/status").ok().to_owned();
    assert!(effective("").ends_with("00000000a80425fb"), "{}", effective(""));
    assert!(effective("--cap-drop ALL").ends_with("0000000000000000"));
    assert!(effective("--cap-drop ALL --cap-add CHOWN").ends_with("0000000000000001"));
    assert_ne!(sh("--cap-drop CHOWN", "touch /x && chown 5 /x").code, 0);
    assert_eq!(sh("", "touch /x && chown 5 /x").code, 0);
}

#[test]
fn ulimits_and_sysctls() {
    assert_eq!(sh("--ulimit nofile=321:654", "ulimit -Sn; ulimit -Hn").ok(), "321\n654");
    assert_eq!(sh("--sysctl kernel.shmmax=12345678", "cat /proc/sys/kernel/shmmax").ok(), "12345678");
    assert_eq!(sh("--sysctl net.core.somaxconn=77", "cat /proc/sys/net/core/somaxconn").ok(), "77");
}

#[test]
fn an_init_reaps_and_forwards() {
    let out = sh("--init", "cat /proc/1/comm; (sleep 0.1 &) ; sleep 0.5; ps -o pid,stat,comm");
    assert!(!out.ok().starts_with("sh\n"), "{}", out.stdout);
    assert!(!out.stdout.contains('Z'), "a zombie: {}", out.stdout);
    assert_eq!(sh("--init", "exit 9").code, 9);
}

#[test]
fn names_and_labels() {
    let container = Container::run("named", "--label role=test --label empty", "sleep 60");
    let listed = docker().run(&[
        "ps",
        "--filter",
        "label=role=test",
        "--filter",
        &format!("name={}", container.name),
        "--format",
        "{{.Names}}",
    ]);
    assert_eq!(listed.ok(), container.name);
    assert_eq!(container.inspect("{{.Config.Labels.role}}-{{.Config.Labels.empty}}"), "test-");
    docker()
        .run(&["run", "--rm", "--name", &container.name, "busybox", "true"])
        .fails(125, "is already in use by container");
}

#[test]
fn a_container_sees_only_itself() {
    assert_eq!(sh("", "echo $$").ok(), "1");
    let processes = sh("", "ps -o comm; true").ok().to_owned();
    assert_eq!(processes.lines().count(), 3, "header, sh and ps: {processes}");
    assert_ne!(sh("", "mount -t tmpfs none /mnt").code, 0, "mount needs CAP_SYS_ADMIN");
    assert_ne!(sh("", "echo 1 > /proc/sys/kernel/panic").code, 0, "/proc/sys is read-only");
    assert_eq!(sh("", "cat /proc/kcore | wc -c").ok(), "0", "masked");
}

#[test]
fn dev_is_dockers() {
    let out = sh(
        "",
        "ls /dev; stat -c %t:%T /dev/null; ls -d /dev/shm /dev/mqueue /dev/pts; df -k /dev/shm | tail -1",
    );
    let text = out.ok();
    for device in
        ["fd", "full", "null", "ptmx", "random", "stderr", "stdin", "stdout", "tty", "urandom", "zero"]
    {
        assert!(text.lines().any(|line| line == device), "{device} lacks: {text}");
    }
    assert!(text.contains("1:3") && text.contains("65536"), "{text}");
    assert!(sh("--shm-size 8m", "df -k /dev/shm | tail -1").ok().contains(" 8192 "));
}

#[test]
fn resolver_files_are_there() {
    let out = sh("--hostname box", "cat /etc/hosts; cat /etc/hostname; ls -la /etc/resolv.conf");
    assert!(out.ok().contains("127.0.0.1\tlocalhost") && out.stdout.contains("box"), "{}", out.stdout);
    assert_eq!(sh("", "ping -c 1 127.0.0.1 | grep -c '1 packets received'").ok(), "1", "lo is up");
}

#[test]
fn privileged_has_everything() {
    let out =
        sh("--privileged", "grep CapEff /proc/self/status; mkdir /m; mount -t tmpfs none /m && echo mounted");
    assert!(out.ok().contains("mounted"), "{}", out.stdout);
    if arca().is_some() {
        assert!(out.stdout.contains("1ffffffffff"), "{}", out.stdout);
    }
}

#[test]
fn a_debian_image_runs() {
    let docker = docker_with("debian");
    assert!(docker.sh("run --rm debian:bookworm cat /etc/debian_version").ok().starts_with("12."));
    assert_eq!(
        docker.run(&["run", "--rm", "debian:bookworm", "bash", "-c", "echo ${BASH_VERSION%%.*}"]).ok(),
        "5"
    );
    assert_eq!(
        docker.run(&["run", "--rm", "debian:bookworm", "stat", "-c", "%a %U", "/usr/bin/passwd"]).ok(),
        "4755 root"
    );
}
