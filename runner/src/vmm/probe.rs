//! Which accelerator works here.

use std::{fs, path::Path, time::Duration};

use tokio::{io::AsyncReadExt, time::timeout};

use super::qemu;
use crate::Accelerator;

/// Time a test boot may take to its first console line.
const TEST_BOOT: Duration = Duration::from_secs(10);
/// What every kernel says first.
const FIRST_WORDS: &str = "Linux version";

/// The accelerator to use: KVM only where `/dev/kvm` opens, the CPU has the extension, and a test boot under it reaches the
/// kernel's first console line. Elsewhere an ordinary kernel may hang under KVM. Takes at most about 10 s, never fails.
pub async fn pick_accelerator(kernel: &Path, initramfs: &Path, qemu: &Path) -> Accelerator {
    // The first console line comes long before the initramfs.
    let _ = initramfs;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !has_extension(&cpuinfo, std::env::consts::ARCH) {
        tracing::info!("accelerator tcg: the CPU has no virtualization extension");
        return Accelerator::Tcg;
    }
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        tracing::info!(%error, "accelerator tcg: /dev/kvm does not open");
        return Accelerator::Tcg;
    }
    match timeout(TEST_BOOT, boots(kernel, qemu)).await {
        Ok(true) => Accelerator::Kvm,
        Ok(false) => {
            tracing::warn!("accelerator tcg: QEMU under KVM ended before the kernel spoke");
            Accelerator::Tcg
        }
        Err(_) => {
            tracing::warn!("accelerator tcg: no sign of the kernel under KVM within {TEST_BOOT:?}");
            Accelerator::Tcg
        }
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
    let args = qemu::args::probe(Accelerator::Kvm, kernel);
    let Ok(mut child) = qemu::spawn(program, &args, Path::new("/")) else { return false };
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
