//! QEMU's command line. Only options that QEMU 7.2 and 10 both know.
//!
//! The machine is the same for every container: same devices at the same PCI addresses, same kernel arguments.

use std::ffi::OsString;

use serde_json::json;

use super::files::{self, Files};
use crate::{Accelerator, DISK_SLOTS, Disk, VmSpec};

/// Kernel command line of every guest (kernel/README.md says why each).
const KERNEL_ARGS: &str = "console=ttyS0 quiet panic=-1 reboot=t";
/// More of it under TCG, where a timer interrupt may be late and a calibration fails on a busy host.
const KERNEL_ARGS_TCG: &str = "tsc=reliable no_timer_check";
/// Capacity of an unused slot. Large, since a guest keeps the capacity it saw when a slot's content is swapped.
const EMPTY_SLOT_BYTES: u64 = 64 << 30;
/// First PCI device number of the disks; eight functions each.
const FIRST_DISK_DEVICE: usize = 0x10;

/// The arguments for a VM whose files QEMU inherits. `tsc_khz`: the rate of the host's time stamp counter, for guests under TCG,
/// which see it; `None` lets the kernel calibrate.
pub(super) fn arguments(spec: &VmSpec, files: &Files, tsc_khz: Option<u64>) -> Vec<OsString> {
    let mut args = Args::default();
    let name: String = spec.vm_id.chars().take(12).collect();
    args.pair("-name", format!("arca-{name}"));
    args.base(spec.accelerator);
    args.pair("-object", format!("memory-backend-memfd,id=mem,size={}M,share=on", spec.memory_mib));
    args.pair("-machine", "q35,memory-backend=mem,vmport=off,smbus=off,sata=off,usb=off,graphics=off");
    args.pair("-m", format!("{}M", spec.memory_mib));
    args.pair("-smp", spec.cpus.to_string());
    args.firmware();
    args.pair("-kernel", files::name(files.kernel));
    args.pair("-initrd", files::name(files.initramfs));
    args.pair("-append", kernel_args(spec.accelerator, tsc_khz));
    args.pair("-chardev", "stdio,id=console,signal=off");
    args.pair("-serial", "chardev:console");
    args.pair("-chardev", format!("socket,id=vsock,fd={}", files.vsock));
    args.pair("-device", "vhost-user-vsock-pci,chardev=vsock,addr=03.0");
    args.pair("-chardev", format!("socket,id=monitor,fd={}", files.monitor));
    args.pair("-mon", "chardev=monitor,mode=control");
    args.pair("-object", "rng-random,id=rng,filename=/dev/urandom");
    args.pair("-device", "virtio-rng-pci,rng=rng,addr=04.0");
    args.pair("-device", "virtio-balloon-pci,free-page-reporting=on,addr=05.0");
    for slot in 0..DISK_SLOTS {
        args.disk(slot, spec.disks.get(slot).zip(files.disks.get(slot)));
    }
    args.0
}

fn kernel_args(accelerator: Accelerator, tsc_khz: Option<u64>) -> String {
    match (accelerator, tsc_khz) {
        (Accelerator::Kvm, _) => KERNEL_ARGS.into(),
        (Accelerator::Tcg, None) => format!("{KERNEL_ARGS} {KERNEL_ARGS_TCG}"),
        (Accelerator::Tcg, Some(khz)) => format!("{KERNEL_ARGS} {KERNEL_ARGS_TCG} tsc_early_khz={khz}"),
    }
}

/// A VM that only shows whether an accelerator gets a kernel to its first console line.
pub(in crate::vmm) fn probe(accelerator: Accelerator, kernel: i32) -> Vec<OsString> {
    let mut args = Args::default();
    args.base(accelerator);
    args.pair("-machine", "q35,vmport=off,smbus=off,sata=off,usb=off,graphics=off");
    args.pair("-m", "128M");
    args.pair("-smp", "1");
    args.firmware();
    args.pair("-kernel", files::name(kernel));
    args.pair("-append", "console=ttyS0 panic=-1 reboot=t");
    args.pair("-chardev", "stdio,id=console,signal=off");
    args.pair("-serial", "chardev:console");
    args.0
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    /// No default devices, no display, a seccomp sandbox, the accelerator.
    fn base(&mut self, accelerator: Accelerator) {
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            self.0.push(flag.into());
        }
        self.pair("-display", "none");
        self.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        self.pair("-accel", accelerator.as_str());
        let cpu = match accelerator {
            Accelerator::Kvm => "host",
            // Five-level paging only lengthens every translated page walk; string moves go byte by byte.
            Accelerator::Tcg => "max,la57=off,erms=off,fsrm=off",
        };
        self.pair("-cpu", cpu);
    }

    /// qboot comes with every QEMU of its age. SeaBIOS would first set up all disks as boot devices, one after another: with
    /// 16 slots that took 1 s of a 3 s boot, against 0.3 s here.
    fn firmware(&mut self) {
        self.pair("-bios", "qboot.rom");
    }

    /// A disk with its descriptor, which QEMU opens through a set of its own: it checks that reading or writing is what it was
    /// opened for, and locks it.
    fn disk(&mut self, slot: usize, disk: Option<(&Disk, &i32)>) {
        let node = format!("disk{slot}");
        let (backend, serial) = match disk {
            Some((disk, fd)) => {
                self.pair("-add-fd", format!("fd={fd},set={slot}"));
                let file = json!({
                    "driver": "file",
                    "filename": format!("/dev/fdset/{slot}"),
                    "aio": "threads",
                    // Shared by many VMs when read-only.
                    "locking": if disk.readonly { "off" } else { "auto" },
                });
                let raw = json!({
                    "driver": "raw",
                    "node-name": node,
                    "read-only": disk.readonly,
                    "discard": "unmap",
                    "detect-zeroes": "off",
                    "cache": { "direct": false, "no-flush": false },
                    "file": file,
                });
                (raw, disk.serial.clone())
            }
            None => {
                let null = json!({
                    "driver": "null-co",
                    "node-name": node,
                    "read-zeroes": true,
                    "read-only": slot != 0,
                    "size": EMPTY_SLOT_BYTES,
                });
                (null, format!("empty{slot}"))
            }
        };
        self.pair("-blockdev", backend.to_string());
        let (device, function) = (FIRST_DISK_DEVICE + slot / 8, slot % 8);
        self.pair(
            "-device",
            format!(
                "virtio-blk-pci,drive={node},serial={serial},num-queues=1,disable-legacy=on,addr={device:02x}.{function},multifunction=on"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            vm_id: "0123456789abcdef".into(),
            run_dir: "/r".into(),
            state_dir: "/s".into(),
            kernel: "/k".into(),
            initramfs: "/i".into(),
            qemu: "qemu".into(),
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory_mib: 512,
            disks: vec![
                Disk { path: PathBuf::from("/d/a,b.img"), serial: "rw".into(), readonly: false },
                Disk { path: PathBuf::from("/d/l0"), serial: "l0".into(), readonly: true },
            ],
            boot_timeout_ms: 1,
        }
    }

    fn text(spec: &VmSpec) -> Vec<String> {
        let disks = (7..).take(spec.disks.len()).collect();
        let files = Files { kernel: 3, initramfs: 4, vsock: 5, monitor: 6, disks, largest: 0 };
        arguments(spec, &files, Some(2_000_000)).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    fn value<'a>(args: &'a [String], option: &str) -> &'a str {
        &args[args.iter().position(|arg| arg == option).unwrap() + 1]
    }

    #[test]
    fn is_recognisable_sandboxed_and_without_defaults() {
        let args = text(&spec());
        assert_eq!(value(&args, "-name"), "arca-0123456789ab");
        assert!(value(&args, "-sandbox").starts_with("on,"));
        assert!(args.contains(&"-nodefaults".into()));
        assert!(value(&args, "-append").ends_with(" tsc_early_khz=2000000"));
        let kvm = VmSpec { accelerator: Accelerator::Kvm, ..spec() };
        assert!(!value(&text(&kvm), "-append").contains("tsc"));
        assert!(args.contains(&"memory-backend-memfd,id=mem,size=512M,share=on".into()));
    }

    /// SPEC P3
    #[test]
    fn no_path_of_the_daemon_is_among_them() {
        let args = text(&spec());
        for path in ["/k", "/i", "/d/", "/r", "/s"] {
            assert!(!args.iter().any(|arg| arg.contains(&format!("={path}"))
                || arg == path
                || arg.contains(&format!("\"{path}"))));
        }
        assert_eq!(
            (value(&args, "-kernel"), value(&args, "-initrd")),
            ("/proc/self/fd/3", "/proc/self/fd/4")
        );
        assert!(args.contains(&"socket,id=vsock,fd=5".into()) && args.contains(&"fd=8,set=1".into()));
    }

    #[test]
    fn the_machine_does_not_depend_on_the_disks() {
        let devices = |spec: &VmSpec| {
            let args = text(spec);
            let strip = |arg: &String| {
                arg.split(',').filter(|part| !part.starts_with("serial=")).collect::<Vec<_>>().join(",")
            };
            args.windows(2)
                .filter(|pair| pair[0] == "-device")
                .map(|pair| strip(&pair[1]))
                .collect::<Vec<_>>()
        };
        let bare = VmSpec { disks: Vec::new(), ..spec() };
        assert_eq!(devices(&bare), devices(&spec()));
        assert_eq!(devices(&bare).iter().filter(|device| device.contains("virtio-blk")).count(), DISK_SLOTS);
    }

    #[test]
    fn only_layers_are_read_only_and_unlocked() {
        let args = text(&spec());
        let blocks: Vec<serde_json::Value> = args
            .windows(2)
            .filter(|pair| pair[0] == "-blockdev")
            .map(|pair| serde_json::from_str(&pair[1]).unwrap())
            .collect();
        assert_eq!(blocks[0]["file"]["filename"], "/dev/fdset/0");
        assert_eq!((&blocks[0]["read-only"], &blocks[0]["file"]["locking"]), (&json!(false), &json!("auto")));
        assert_eq!((&blocks[1]["read-only"], &blocks[1]["file"]["locking"]), (&json!(true), &json!("off")));
        assert_eq!(blocks[2]["driver"], "null-co");
    }
}
