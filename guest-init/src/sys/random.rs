//! The kernel's random generator (random(4)).

use std::{fs::File, io, os::fd::AsRawFd};

/// Longest seed taken: the generator's state is 32 bytes, more is only hashed in.
pub(crate) const MAX_SEED: usize = 512;
/// `_IOW('R', 0x03, int[2])`
const RNDADDENTROPY: u64 = 0x4008_5203;
/// `_IO('R', 0x07)`
const RNDRESEEDCRNG: u64 = 0x5207;

/// `struct rand_pool_info` of linux/random.h with room for the longest seed.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    bytes: libc::c_int,
    seed: [u8; MAX_SEED],
}

/// Credits `seed` (at most [`MAX_SEED`] bytes) as entropy and has the generator take it at once.
pub(crate) fn seed(seed: &[u8]) -> io::Result<()> {
    let mut info = PoolInfo { entropy_bits: 0, bytes: 0, seed: [0; MAX_SEED] };
    let room = info.seed.get_mut(..seed.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(seed);
    info.bytes = libc::c_int::try_from(seed.len()).map_err(io::Error::other)?;
    info.entropy_bits = info.bytes * 8;
    let device = File::options().write(true).open("/dev/urandom")?;
    // SAFETY: RNDADDENTROPY reads two ints and `bytes` bytes behind them; `info` holds them.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as _, &raw const info) })?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as _) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
