//! Which device nodes a container may open (kernel documentation, cgroup-v2, "Device controller"): an eBPF program on its
//! cgroup, since CAP_MKNOD is one of docker's default capabilities and the VM's disks, console and kernel log are only a
//! device number away. The list is runc's without 5:1, the VM's own console: a container's is a pts. A privileged container has no
//! program.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use proto::sandbox::{Device, device};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `BPF_DEVCG_ACC_*` and `BPF_DEVCG_DEV_*` of linux/bpf.h.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// An access that is allowed; `None` is any number.
struct Rule {
    kind: i32,
    access: i32,
    major: Option<u32>,
    minor: Option<u32>,
}

/// null, zero, full, random, urandom, tty, ptmx, net/tun.
const NODES: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (10, 200)];
/// Terminals of a devpts.
const PTS_MAJOR: u32 = 136;

/// Lets the processes of a cgroup open the default devices and `extra` only.
pub(super) fn restrict(cgroup: &Path, extra: &[Device]) -> io::Result<()> {
    let program = load(&program(&rules(extra)))?;
    attach(cgroup, &program)
}

fn rules(extra: &[Device]) -> Vec<Rule> {
    // Nodes may be made: what counts is who can open them.
    let mut rules: Vec<Rule> =
        [CHAR, BLOCK].map(|kind| Rule { kind, access: MKNOD, major: None, minor: None }).into();
    let char = |major, minor| Rule { kind: CHAR, access: ALL, major: Some(major), minor };
    rules.extend(NODES.map(|(major, minor)| char(major, Some(minor))));
    rules.push(char(PTS_MAJOR, None));
    rules.extend(extra.iter().map(|wanted| Rule {
        kind: if wanted.kind() == device::Kind::Block { BLOCK } else { CHAR },
        access: access(&wanted.permissions),
        ..char(wanted.major, Some(wanted.minor))
    }));
    rules
}

/// The mask of `--device`'s letters; a letter that nobody knows opens nothing.
fn access(permissions: &str) -> i32 {
    if permissions.is_empty() {
        return ALL;
    }
    permissions.bytes().fold(0, |access, letter| {
        access
            | match letter {
                b'r' => READ,
                b'w' => WRITE,
                b'm' => MKNOD,
                _ => 0,
            }
    })
}

/// One eBPF instruction (kernel documentation, "BPF Instruction Set").
fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(registers) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(value.cast_unsigned()) << 32
}

/// The rules in order; each that does not match jumps to the next, and the end refuses.
fn program(rules: &[Rule]) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const MOVE: u8 = 0xbf;
    const MOVE_VALUE: u8 = 0xb7;
    const JUMP_UNLESS: u8 = 0x55;
    const JUMP_UNLESS_EQUAL: u8 = 0x5d;
    const EXIT: u8 = 0x95;
    // struct bpf_cgroup_dev_ctx { access << 16 | kind, major, minor } in r1; kind r2, access r3, major r4, minor r5.
    let mut program = vec![
        instruction(LOAD_WORD, 0x12, 0, 0),
        instruction(MOVE, 0x23, 0, 0),
        instruction(AND, 0x02, 0, 0xffff),
        instruction(SHIFT_RIGHT, 0x03, 0, 16),
        instruction(LOAD_WORD, 0x14, 4, 0),
        instruction(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules {
        // (code, registers, value) of the checks; their jumps lead behind the rule.
        let mut checks = vec![(JUMP_UNLESS, 0x02, rule.kind)];
        if rule.access != ALL {
            checks.extend([(MOVE, 0x30, 0), (AND, 0x00, rule.access), (JUMP_UNLESS_EQUAL, 0x30, 0)]);
        }
        for (register, number) in [(0x04, rule.major), (0x05, rule.minor)] {
            checks.extend(number.map(|number| (JUMP_UNLESS, register, number.cast_signed())));
        }
        let length = checks.len() + 2;
        for (at, (code, registers, value)) in checks.into_iter().enumerate() {
            let jump = matches!(code, JUMP_UNLESS | JUMP_UNLESS_EQUAL);
            let offset = if jump { i16::try_from(length - at - 1).unwrap_or(i16::MAX) } else { 0 };
            program.push(instruction(code, registers, offset, value));
        }
        program.extend([instruction(MOVE_VALUE, 0, 0, 1), instruction(EXIT, 0, 0, 0)]);
    }
    program.extend([instruction(MOVE_VALUE, 0, 0, 0), instruction(EXIT, 0, 0, 0)]);
    program
}

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; what follows is zero.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct AttachAttributes {
    target: i32,
    program: i32,
    kind: u32,
    flags: u32,
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"arca_devices\0\0\0\0",
        interface: 0,
        expected_attach_type: BPF_CGROUP_DEVICE,
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(cgroup: &Path, program: &OwnedFd) -> io::Result<()> {
    let cgroup = File::open(cgroup)?;
    let attributes = AttachAttributes {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: bpf(2) reads `size` bytes of the attributes; the memory they point to lives through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), std::mem::size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap_or(-1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn allows(program: &[u64], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let context = [i64::from(access << 16 | kind), i64::from(major), i64::from(minor)];
        let mut registers = [0i64; 16];
        let mut at = 0usize;
        loop {
            let word = program[at];
            let (code, dst, src) = (word as u8, (word >> 8 & 0xf) as usize, (word >> 12 & 0xf) as usize);
            let (offset, value) = ((word >> 16) as i16, i64::from((word >> 32) as i32));
            at += 1;
            let jump = match code {
                0x61 => {
                    registers[dst] = context[usize::try_from(offset).unwrap() / 4];
                    false
                }
                0x57 => {
                    registers[dst] &= value;
                    false
                }
                0x77 => {
                    registers[dst] >>= value;
                    false
                }
                0xbf => {
                    registers[dst] = registers[src];
                    false
                }
                0xb7 => {
                    registers[dst] = value;
                    false
                }
                0x55 => registers[dst] != value,
                0x5d => registers[dst] != registers[src],
                0x95 => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            };
            if jump {
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    /// SPEC C4
    #[test]
    fn default_devices_and_named_ones_only() {
        let fuse = Device { major: 10, minor: 229, ..Device::default() };
        let rtc = Device { major: 252, minor: 0, permissions: "r".into(), ..Device::default() };
        let unknown = Device { major: 10, minor: 237, permissions: "x".into(), ..Device::default() };
        let program = program(&rules(&[fuse, rtc, unknown]));
        for (kind, access, major, minor, expected) in [
            (CHAR, ALL, 1, 3, true),
            (CHAR, 2, 136, 7, true),
            (CHAR, 6, 10, 229, true),
            (CHAR, MKNOD, 4, 64, true),
            (BLOCK, MKNOD, 254, 0, true),
            (BLOCK, 2, 254, 0, false),
            (BLOCK, MKNOD | 4, 254, 0, false),
            (BLOCK, 2, 1, 3, false),
            (CHAR, 2, 1, 1, false),
            (CHAR, 4, 1, 11, false),
            (CHAR, 4, 4, 64, false),
            (CHAR, 2, 10, 232, false),
            (CHAR, WRITE, 5, 1, false),
            (CHAR, READ, 5, 1, false),
            (CHAR, READ | WRITE, 10, 200, true),
            (CHAR, READ, 252, 0, true),
            (CHAR, MKNOD, 252, 0, true),
            (CHAR, WRITE, 252, 0, false),
            (CHAR, READ | WRITE, 252, 0, false),
            (CHAR, READ, 252, 1, false),
            (CHAR, READ, 10, 237, false),
        ] {
            assert_eq!(
                allows(&program, kind, access, major, minor),
                expected,
                "{kind} {major}:{minor} {access}"
            );
        }
    }
}
