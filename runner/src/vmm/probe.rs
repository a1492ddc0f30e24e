//! Which accelerator works here.

use std::{fs, path::Path, time::Duration};

use tokio::{io::AsyncReadExt, time::timeout};

use super::qemu;
use crate::Accelerator;

/// Time a test boot may take to its first console line.
const TEST_BOOT: Duration = Duration::from_secs(10);
/// What every kernel says first.
const FIRST_WORDS: &str = "Linux version";

/// The accelerator to use, and why it is not KVM: that only where `/dev/kvm` opens, the CPU has the extension, and a test
/// boot under it reaches the kernel's first console line. Elsewhere an ordinary kernel may hang under KVM. Takes at most about
/// 10 s, never fails.
pub async fn pick_accelerator(kernel: &Path, qemu: &Path) -> (Accelerator, Option<String>) {
    match try_kvm(kernel, qemu).await {
        Ok(()) => (Accelerator::Kvm, None),
        Err(why) => {
            tracing::info!("accelerator tcg: {why}");
            (Accelerator::Tcg, Some(why))
        }
    }
}

async fn try_kvm(kernel: &Path, qemu: &Path) -> Result<(), String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !has_extension(&cpuinfo, std::env::consts::ARCH) {
        return Err("the CPU offers no virtualization extension".into());
    }
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Err(format!("/dev/kvm does not open: {error}"));
    }
    match timeout(TEST_BOOT, boots(kernel, qemu)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("QEMU under KVM ended before the kernel spoke".into()),
        Err(_) => Err(format!("a kernel under KVM says nothing within {TEST_BOOT:?}")),
    }
}

/// Whether x86 flags name VMX or SVM; other architectures tell by `/dev/kvm` alone.
fn has_extension(cpuinfo: &str, arch: &str) -> bool {
    if arch != "x86_64" {
        return true;
    }
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// Whether a kernel under KVM gets to its first words. The child is killed when this future ends or is dropped.
async fn boots(kernel: &Path, program: &Path) -> bool {
    // As the VMs will run: what only root can open does not help.
    let credentials = qemu::Credentials::of_vm("probe", Accelerator::Kvm);
    let mut files = qemu::Inherited::default();
    let Ok(kernel) = qemu::readable(kernel, credentials.is_foreign()) else { return false };
    let args = qemu::args::probe(Accelerator::Kvm, files.add(kernel));
    let launch = qemu::Launch { program, args: &args, credentials: &credentials, files, largest: 0 };
    let Ok(mut child) = qemu::spawn(launch) else { return false };
    let Some(mut console) = child.stdout.take() else { return false };
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = console.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..n]);
        if String::from_utf8_lossy(&seen).contains(FIRST_WORDS) {
            return true;
        }
        if seen.len() > 64 << 10 {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x86_needs_the_flag_as_a_word() {
        assert!(has_extension("flags\t\t: fpu vmx sse", "x86_64"));
        assert!(has_extension("flags\t\t: fpu svm", "x86_64"));
        assert!(!has_extension("flags\t\t: fpu vmxnet hypervisor\nmodel name : vmx", "x86_64"));
        assert!(has_extension("", "aarch64"));
    }
}
