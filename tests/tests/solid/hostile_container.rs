//! A process of a container does what it should not: nobody but its own container is hurt.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{
    daemon::Daemon,
    docker::{Docker, Output},
    saboteur,
};

use super::support::{eventually, fresh, name};

/// For an answer of a container nobody attacks, and of one that is being attacked from within.
const BYSTANDER: Duration = Duration::from_secs(15);
const VICTIM: Duration = Duration::from_secs(30);

/// Who suffers, if anybody does: another container of the same daemon.
struct World {
    daemon: Daemon,
    bystander: String,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    // Little memory, so that it is soon taken.
    let daemon = fresh(&json!({ "defaultMemory": "512m" }));
    saboteur::load(&daemon).unwrap();
    let bystander = name("bystander");
    daemon.docker().run(&["run", "-d", "--name", &bystander, "busybox", "sleep", "3600"]).ok();
    World { daemon, bystander }
});

fn docker() -> &'static Docker {
    WORLD.daemon.docker()
}

/// Nobody is hurt: the bystander answers in time.
#[track_caller]
fn bystander_answers() {
    let out = docker().run_with(&["exec", &WORLD.bystander, "echo", "unharmed"], Vec::new(), BYSTANDER);
    let state = docker().run(&["inspect", "-f", "{{.State.Status}} {{.State.Error}}", &WORLD.bystander]);
    assert_eq!(out.stdout.trim(), "unharmed", "{} {}", out.stderr, state.stdout);
}

/// A container that is removed whatever happens.
struct Container(String);

impl Container {
    #[track_caller]
    fn run(what: &str, options: &[&str], command: &[&str]) -> Self {
        let container = Self(name(what));
        let mut args = vec!["run", "-d", "--name", &container.0];
        args.extend(options);
        args.push("saboteur");
        args.extend(command);
        docker().run(&args).ok();
        container
    }

    #[track_caller]
    fn exec(&self, command: &[&str]) -> Output {
        docker().run_with(&[&["exec", &self.0], command].concat(), Vec::new(), VICTIM)
    }

    #[track_caller]
    fn sh(&self, script: &str) -> Output {
        self.exec(&["sh", "-c", script])
    }

    /// Waits until the attack says that it goes on.
    #[track_caller]
    fn attacks(self, word: &str) -> Self {
        eventually(word, VICTIM, || docker().run(&["logs", &self.0]).stdout.contains(word));
        self
    }

    /// While the attack goes on: its own container can be entered, nobody else notices, and it can be stopped.
    #[track_caller]
    fn is_contained(&self) {
        let limit = Instant::now() + Duration::from_secs(4);
        while Instant::now() < limit {
            assert_eq!(self.exec(&["echo", "inside"]).ok(), "inside");
            bystander_answers();
        }
        docker().run_with(&["stop", "-t", "1", &self.0], Vec::new(), VICTIM).ok();
        let state = docker().run(&["inspect", "-f", "{{.State.Status}} {{.State.Error}}", &self.0]);
        // On a busy host a fork bomb may take longer to die than the runner waits before it ends the VM.
        let killed = state.ok().ends_with("did not end within 10s of SIGKILL");
        assert!(state.ok() == "exited " || killed, "the VM did not survive: {}", state.stdout);
        bystander_answers();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker().run(&["rm", "-f", "-v", &self.0]);
    }
}

/// SPEC C1
#[test]
fn nothing_of_the_guest_is_in_sight() {
    let container = Container::run("sight", &[], &["sh", "-c", "/saboteur fds; exec sleep 1000"]);
    eventually("descriptors", VICTIM, || docker().run(&["logs", &container.0]).stdout.lines().count() == 3);
    let main = docker().run(&["logs", &container.0]).stdout;
    let exec = container.exec(&["/saboteur", "fds"]).stdout;
    let terminal = docker().run(&["exec", "-t", &container.0, "/saboteur", "fds"]).stdout;
    for said in [main, exec, terminal] {
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "more than the three streams are open: {said}");
        assert!(lines.iter().zip(["0 ", "1 ", "2 "]).all(|(line, start)| line.starts_with(start)), "{said}");
    }
    // Its own main process and the shell of the exec.
    assert_eq!(container.sh("set -- /proc/[0-9]*; echo $#").ok(), "2");
    assert_eq!(container.sh("tr '\\0' ' ' < /proc/1/cmdline").ok(), "sleep 1000 ");
    assert_eq!(container.sh("cat /proc/self/cgroup").ok(), "0::/");
    assert_eq!(container.sh("cat /proc/mounts | grep -c ' /run/c'").stdout.trim(), "0");
    assert_eq!(container.sh("kill -9 -1; kill -9 1; kill -9 2; ls /init /run/c 2>/dev/null").stdout, "");
    assert_eq!(container.exec(&["echo", "inside"]).ok(), "inside");
}

/// SPEC C2
#[test]
fn the_control_port_is_out_of_reach() {
    let script = "for cid in 0 1 2 3 4 4294967295; do /saboteur vsock $cid 5555; done";
    let container = Container::run("vsock", &[], &["sleep", "1000"]);
    assert_eq!(container.sh(script).ok(), "halves 1\nsocket 1\n".repeat(6).trim_end());
    // Rights of an exec do not lift the container's filter, as with dockerd.
    let said = docker().run(&["exec", "--privileged", &container.0, "sh", "-c", script]);
    assert_eq!(said.ok(), "halves 1\nsocket 1\n".repeat(6).trim_end());
    // Whoever may open such sockets finds nobody at the other end: PID 1 listens to the host, the host to nobody.
    for option in ["--security-opt=seccomp=unconfined", "--privileged"] {
        let container = Container::run("vsock", &[option], &["sleep", "1000"]);
        assert_eq!(container.sh("grep Seccomp: /proc/self/status").ok(), "Seccomp:\t0");
        let said = container.sh(script);
        let said = said.ok().to_owned();
        assert_eq!(said.matches("socket 0").count(), 6, "{option}: {said}");
        assert_eq!(said.matches("connect").count(), 6, "{option}: {said}");
        assert!(!said.contains("connect 0"), "{option}: {said}");
        assert_eq!(container.exec(&["echo", "inside"]).ok(), "inside");
    }
}

/// SPEC C3
#[test]
fn the_kernels_switches_are_out_of_reach() {
    let container = Container::run("switches", &[], &["sleep", "1000"]);
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/release_agent",
    ] {
        let out = container.sh(&format!("echo 1 > {path}"));
        assert_ne!(out.code, 0, "{path} was written");
    }
    for command in [
        "mkdir /sys/fs/cgroup/x",
        "mount -t proc proc /mnt",
        "mount -o remount,rw /sys",
        "mount -t cgroup -o memory cgroup /mnt",
        "umount /proc/sys",
        "dmesg",
        "chroot / true && chroot /proc/1/root/../.. ls /init",
        "hostname x",
        "ip link add dummy0 type dummy",
        "swapoff -a && reboot -f",
    ] {
        assert_ne!(container.sh(command).code, 0, "{command}");
    }
    let calls = container.exec(&["/saboteur", "calls"]);
    assert!(!calls.ok().contains("allowed"), "{}", calls.stdout);
    assert_eq!(calls.stdout.matches("refused").count(), 11);
    let devices = container.sh("ls /dev | grep -c -E 'mem|kmsg|vd|sd|tty.|vsock|loop|fuse'");
    assert_eq!(devices.stdout.trim(), "0");
    for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware/*"] {
        assert_eq!(container.sh(&format!("cat {masked} 2>/dev/null | wc -c")).ok(), "0", "{masked}");
    }
}

/// SPEC C4
#[test]
fn disks_and_consoles_cannot_be_opened() {
    let container = Container::run("devices", &[], &["sleep", "1000"]);
    let script = "cd /root; n=0
        for disk in /sys/block/*/dev; do
            mknod d$n b $(tr : ' ' < $disk) || echo mknod; /saboteur open /root/d$n; n=$((n+1)); done
        for c in '4 64' '5 1' '5 3' '1 1' '1 2' '1 11' '10 232' '229 0' '241 0'; do
            mknod c$n c $c || echo mknod; /saboteur open /root/c$n; n=$((n+1)); done
        mknod null c 1 3; /saboteur open /root/null; mknod tun c 10 200; /saboteur open /root/tun; mount d0 /mnt || echo no mount";
    let said = container.sh(script).ok().to_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() > 12, "{said}");
    assert_eq!(&lines[lines.len() - 3..], ["opened", "opened", "no mount"], "{said}");
    assert!(lines[..lines.len() - 3].iter().all(|line| *line == "refused 1"), "{said}");
    // What the user named is open, and nothing else.
    let container = Container::run("devices", &["--device", "/dev/fuse"], &["sleep", "1000"]);
    let script = "/saboteur open /dev/fuse; /saboteur write /dev/fuse; mknod /t c 10 232; /saboteur open /t";
    assert_eq!(container.sh(script).ok(), "opened\nopened\nrefused 1");
    let container = Container::run("devices", &["--device", "/dev/fuse:/dev/fuse:r"], &["sleep", "1000"]);
    assert_eq!(container.sh("/saboteur open /dev/fuse; /saboteur write /dev/fuse").ok(), "opened\nrefused 1");
}

/// SPEC C5
#[test]
fn the_guests_program_cannot_be_replaced() {
    // CVE-2019-5736: --init and the launcher of an exec run the program of PID 1.
    let container = Container::run("program", &["--init"], &["sleep", "1000"]);
    for file in ["/proc/1/exe", "/proc/1/root/proc/1/exe"] {
        let said = container.sh(&format!("/saboteur write {file}; chmod 777 {file}; echo x > {file}"));
        assert!(said.stdout.starts_with("refused"), "{file}: {}", said.stdout);
        assert_ne!(said.code, 0);
    }
    let trap = "echo '#!/proc/self/exe' > /bin/trap; chmod 755 /bin/trap";
    container.sh(trap).ok();
    for _ in 0..3 {
        assert_ne!(container.exec(&["/bin/trap"]).code, 0);
    }
    assert_eq!(container.exec(&["echo", "inside"]).ok(), "inside");
}

/// SPEC C6
#[test]
fn a_working_directory_leads_nowhere_else() {
    // CVE-2024-21626: descriptors of the launcher as a working directory.
    let container = Container::run("cwd", &[], &["sleep", "1000"]);
    for number in 0..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let out = docker().run(&["exec", "-w", &cwd, &container.0, "ls", "../../../../../../../init"]);
        assert_ne!(out.code, 0, "{cwd}: {}", out.stdout);
    }
    container.sh("ln -s /proc/self/fd/7 /w; ln -s /proc/1/root /r; ln -s loop /loop").ok();
    for cwd in ["/w", "/w/../../..", "/r/../../..", "/loop"] {
        let out = docker().run(&["exec", "-w", cwd, &container.0, "ls", "init", "run/c"]);
        assert_ne!(out.code, 0, "{cwd}: {}", out.stdout);
    }
}

/// SPEC C7
#[test]
fn lookups_of_users_end() {
    let container = Container::run("users", &[], &["sleep", "1000"]);
    for trap in [
        "rm -rf /etc/passwd; mkfifo /etc/passwd",
        "rm -rf /etc/passwd; ln -s passwd /etc/passwd",
        "rm -rf /etc/passwd; ln -s /dev/zero /etc/passwd",
        "rm -rf /etc/passwd; mknod /etc/passwd c 5 0",
        "rm -rf /etc/passwd; mkdir /etc/passwd",
        "rm -rf /etc/passwd; ln -s /proc/self/fd/0 /etc/passwd",
        "rm -rf /etc/passwd; truncate -s 1G /etc/passwd",
        "rm -rf /etc/passwd; yes root:x:0:0:root:/:/bin/sh | head -c 5m > /etc/passwd",
    ] {
        container.sh(trap).ok();
        let started = Instant::now();
        let out = docker().run(&["exec", "-u", "nobody-here", &container.0, "true"]);
        let said = out.stdout + &out.stderr;
        assert!(out.code != 0 && said.contains("unable to find user"), "{trap}: {said}");
        docker().run(&["exec", "-u", "1000:1000", &container.0, "true"]).ok();
        docker().run(&["top", &container.0]).ok();
        assert!(started.elapsed() < VICTIM, "{trap}: {:?}", started.elapsed());
    }
}

/// SPEC C8
#[test]
fn copies_stay_inside_while_names_are_swapped() {
    let script = "mkdir -p /a/x; ln -s ../../../../../../.. /a/y; /saboteur swap /a/x /a/y & exec sleep 1000";
    let container = Container::run("swap", &[], &["sh", "-c", script]).attacks("swapping");
    let local = tempfile::tempdir().unwrap();
    std::fs::write(local.path().join("mark"), "mark").unwrap();
    let out = local.path().join("out");
    let mut landed = 0;
    for round in 0..25 {
        // The guest's root has /init and /run/c, the container's has not.
        for path in ["init", "run/c"] {
            let from = format!("{}:/a/x/{path}", container.0);
            let got = docker().run(&["cp", &from, out.to_str().unwrap()]);
            assert!(got.code != 0 && !out.exists(), "{from} was copied: {}", got.stdout);
        }
        let to = format!("{}:/a/x/mark-{round}", container.0);
        let put = docker().run(&["cp", local.path().join("mark").to_str().unwrap(), &to]);
        landed += usize::from(put.code == 0);
    }
    container.sh("killall saboteur").ok();
    let found =
        container.sh("ls -d /mark-* /a/x/mark-* /a/y/mark-* 2>/dev/null | sed 's,.*/,,' | sort -u | wc -l");
    assert_eq!(found.ok(), landed.to_string(), "something was written elsewhere");
    assert!(landed > 0, "no copy got through");
}

/// SPEC C9, C10, C15
#[test]
fn fork_bombs() {
    Container::run("forks", &[], &["/saboteur", "forks"]).attacks("forking").is_contained();
    let container = Container::run("forks", &["--pids-limit", "200"], &["/saboteur", "forks"]);
    container.attacks("forking").is_contained();
}

/// SPEC C9, C10, C15
#[test]
fn memory_bombs() {
    Container::run("eat", &[], &["/saboteur", "eat"]).attacks("eating").is_contained();
    Container::run("eat", &["-m", "64m"], &["/saboteur", "eat"]).attacks("eating").is_contained();
}

/// SPEC C9, C10
#[test]
fn files_and_watches_run_out_for_their_owner() {
    Container::run("files", &[], &["/saboteur", "files"]).attacks("files").is_contained();
    Container::run("watches", &[], &["/saboteur", "watches"]).attacks("watches").is_contained();
}

/// SPEC C9, C10, C15
#[test]
fn processor_hogs() {
    Container::run("hog", &[], &["/saboteur", "realtime"]).attacks("realtime 1").is_contained();
    let options = ["--cap-add", "SYS_NICE"];
    Container::run("hog", &options, &["/saboteur", "realtime"]).attacks("realtime 0").is_contained();
}

/// SPEC C9, C11
#[test]
fn output_without_a_reader() {
    let options = ["--log-opt", "max-size=1m", "--log-opt", "max-file=2"];
    let container = Container::run("output", &options, &["yes", "a line that nobody reads"]);
    eventually("a tail", VICTIM, || {
        docker().run(&["logs", "-n", "1", &container.0]).stdout.contains("a line")
    });
    container.is_contained();
}

/// SPEC C12
#[test]
fn the_console_cannot_be_flooded() {
    let container = Container::run("segfaults", &[], &["/saboteur", "segfaults"]).attacks("segfaults");
    let id = docker().run(&["inspect", "-f", "{{.Id}}", &container.0]).ok().to_owned();
    container.is_contained();
    let console = WORLD.daemon.home().join("containers").join(id).join("console.log");
    let size = std::fs::metadata(&console).map_or(0, |meta| meta.len());
    assert!(size < 256 << 10, "{size} bytes on the console");
}

/// SPEC C13
#[test]
fn a_full_disk_hurts_its_container_only() {
    let daemon = fresh(&json!({}));
    saboteur::load(&daemon).unwrap();
    // Every container's disk is a copy of the template: a small one is soon full.
    let small = tempfile::tempdir().unwrap();
    let small = diskimg::ext4_template(small.path(), 192 << 20).unwrap();
    let template = diskimg::ext4_template(&daemon.home().join("templates"), diskimg::DEFAULT_SIZE).unwrap();
    std::fs::copy(small, template).unwrap();
    let docker = daemon.docker();
    let other = name("other");
    docker.run(&["run", "-d", "--name", &other, "busybox", "sleep", "1000"]).ok();
    let fills = [
        "dd if=/dev/zero of=/fill bs=64k; echo x > /more; echo full; sleep 1000",
        "mkdir /n; /saboteur inodes /n; echo full; sleep 1000",
    ];
    let one_is_full = &|fill| {
        let full = name("full");
        docker.run(&["run", "-d", "--name", &full, "saboteur", "sh", "-c", fill]).ok();
        eventually("full", Duration::from_secs(120), || docker.run(&["logs", &full]).stdout.contains("full"));
        assert_ne!(docker.run(&["exec", &full, "sh", "-c", "echo x > /y"]).code, 0, "the disk is not full");
        assert_eq!(docker.run(&["exec", &full, "echo", "inside"]).ok(), "inside");
        assert_eq!(docker.run(&["exec", "-t", &full, "echo", "inside"]).ok(), "inside");
        docker.run(&["exec", &other, "sh", "-c", "echo x > /y"]).ok();
        docker.run(&["stop", "-t", "1", &full]).ok();
        docker.run(&["start", &full]).ok();
        docker.run(&["rm", "-f", &full]).ok();
    };
    std::thread::scope(|scope| {
        for fill in fills {
            scope.spawn(move || one_is_full(fill));
        }
    });
}

/// SPEC C14
#[test]
fn tables_of_many_processes_are_bounded() {
    let container = Container::run("sleepers", &[], &["/saboteur", "sleepers", "2000", "1000000"]);
    let container = container.attacks("sleepers");
    let top = docker().run_with(&["top", &container.0], Vec::new(), Duration::from_secs(60));
    assert!(top.code == 0 && top.stdout.len() < 8 << 20, "{} bytes, {}", top.stdout.len(), top.stderr);
    assert!(top.stdout.lines().count() > 2000);
    // Who enters such a crowd is helped to the start, and then has the priority it asked for.
    std::thread::scope(|scope| {
        let nice = scope.spawn(|| container.exec(&["/saboteur", "nice", "19"]));
        assert_eq!(container.exec(&["/saboteur", "nice", "0"]).ok(), "0");
        assert_eq!(nice.join().unwrap().ok(), "19");
    });
    container.is_contained();
}

/// SPEC C16
#[test]
fn a_privileged_container_has_its_own_vm_and_no_more() {
    let container = Container::run("privileged", &["--privileged"], &["sleep", "1000"]);
    // It sees the disks of its VM, and may change its kernel.
    assert!(container.sh("mknod /d b $(tr : ' ' < /sys/block/vda/dev); /saboteur open /d").ok() == "opened");
    container.sh("echo core.%p > /proc/sys/kernel/core_pattern").ok();
    // There is nothing to be loaded into it, and no disk of anybody else in the slots.
    assert_ne!(container.sh("insmod /saboteur").code, 0);
    let disks = "cat /sys/block/*/size | sort -u | wc -l; cat /sys/block/*/serial | sort | uniq -d | wc -l";
    assert!(container.sh(disks).ok().ends_with("\n0"));
    assert_eq!(container.sh("ls /sys/class/net | grep -v lo | wc -l").ok(), "0");
    // The end of its kernel is the end of its VM.
    let _ = container.sh("echo c > /proc/sysrq-trigger");
    eventually("the VM ends", VICTIM, || {
        docker().run(&["inspect", "-f", "{{.State.Status}}", &container.0]).ok() == "exited"
    });
    assert_ne!(docker().run(&["inspect", "-f", "{{.State.Error}}", &container.0]).ok(), "");
    bystander_answers();
    docker().run(&["start", &container.0]).ok();
    assert_eq!(container.exec(&["echo", "inside"]).ok(), "inside");
}
