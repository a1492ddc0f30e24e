//! The files a runner and the daemon leave for each other: `exit.json` and `vm.json`.

use runner::{VmSpec, read_exit};

use super::choice;
use crate::{Reach, scratch};

pub(super) const WORDS: &[&str] = &[
    "\"exit_code\":",
    "\"vm_id\":\"a\"",
    "\"disks\":[]",
    "\"serial\":\"x\"",
    "\"accelerator\":\"tcg\"",
    "\"memory_mib\":",
    "\"cpus\":",
    "null",
    "-1",
];

pub(super) fn target(data: &[u8]) -> Reach {
    let (which, text) = choice(data);
    let dir = scratch::dir();
    let parsed = serde_json::from_slice::<serde_json::Value>(text).is_ok();
    if which & 1 == 0 {
        let accepted =
            std::fs::write(dir.join("exit.json"), text).is_ok() && read_exit(dir).is_ok_and(|r| r.is_some());
        return Reach::of(parsed, accepted);
    }
    let path = dir.join("vm.json");
    let accepted = std::fs::write(&path, text).is_ok()
        && VmSpec::read(&path).is_ok_and(|spec| {
            let _ = (spec.runner_socket(), spec.vsock_socket());
            spec.check().is_ok()
        });
    Reach::of(parsed, accepted)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let exit = r#"{"exit_code":137,"oom_killed":true,"started_at":"2026-01-02T03:04:05.000000006Z","finished_at":"2026-01-02T03:04:06.000000007Z","error":"why","pid":42}"#;
    let mut seeds = vec![[b"\0", exit.as_bytes()].concat()];
    let spec = VmSpec {
        vm_id: "abc".into(),
        run_dir: "/r".into(),
        state_dir: "/s".into(),
        kernel: "/k".into(),
        initramfs: "/i".into(),
        qemu: "/q".into(),
        accelerator: runner::Accelerator::Tcg,
        cpus: 2,
        memory_mib: 512,
        disks: vec![runner::Disk { path: "/d".into(), serial: "layer0".into(), readonly: true }],
        boot_timeout_ms: 60_000,
    };
    seeds.push([&b"\x01"[..], &serde_json::to_vec(&spec).unwrap_or_default()].concat());
    seeds
}
