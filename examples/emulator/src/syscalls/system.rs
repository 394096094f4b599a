//! Calls that tell of the system and the user.

use super::{Answer, double, files::Files, host, put, within};
use core::mem;
use linux_raw_sys::general::rusage;
use syscalls::{Errno, Sysno, syscall};

/// The length of each of the six names.
const NAME: usize = 65;

pub(super) fn uname(to: u32) -> Answer {
    let names = ["Linux", "guest", "6.6.0", "#1 hostmem", "riscv32", "(none)"];
    let mut bytes = [0; NAME * 6];
    for (field, name) in bytes.chunks_mut(NAME).zip(names) {
        field[..name.len()].copy_from_slice(name.as_bytes());
    }
    put(to, &bytes)
}

/// The user and group of the guest: no one of the host's.
pub(crate) fn identity() -> u32 {
    1000
}

pub(super) fn umask(mask: u32) -> Answer {
    // SAFETY: the call only sets a number of this process's.
    host(unsafe { syscall!(Sysno::umask, mask & 0o777) })
}

pub(super) fn getrandom(to: u32, len: u32, flags: u32) -> Answer {
    let to = within(to, len)?;
    // SAFETY: the kernel writes to the guest's memory, or says EFAULT.
    host(unsafe { syscall!(Sysno::getrandom, to, len, flags) })
}

pub(super) fn sysinfo(to: u32) -> Answer {
    /// The length of the structure with 32-bit words.
    const LEN: usize = 64;
    let mut bytes = [0; LEN];
    // Total and free memory in units of a page: 4 GiB of the first.
    let words = [(16, 0x10_0000u32), (20, 0x8_0000), (52, 4096)];
    for (at, word) in words {
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    put(to, &bytes)
}

pub(super) fn getrusage(who: u32, to: u32) -> Answer {
    // SAFETY: zero is a value of every field.
    let mut usage: rusage = unsafe { mem::zeroed() };
    // SAFETY: the structure is valid.
    host(unsafe { syscall!(Sysno::getrusage, who.cast_signed(), &raw mut usage) })?;
    // Two times of two words of 32 bits, then fourteen words that stay zero here.
    let mut bytes = [0; 16 + 14 * 4];
    let times = [
        usage.ru_utime.tv_sec,
        usage.ru_utime.tv_usec,
        usage.ru_stime.tv_sec,
        usage.ru_stime.tv_usec,
    ];
    for (field, time) in bytes.chunks_mut(4).zip(times) {
        field.copy_from_slice(&time.to_le_bytes()[..4]);
    }
    put(to, &bytes)
}

/// Limits are told, and that of descriptors can be lowered; there are none of other things but the
/// stack.
pub(super) fn prlimit(files: &Files, resource: u32, new: u32, old: u32) -> Answer {
    const RLIMIT_STACK: u32 = 3;
    const RLIMIT_NOFILE: u32 = 7;
    let now = match resource {
        RLIMIT_STACK => [u64::from(crate::load::STACK); 2],
        RLIMIT_NOFILE => files.limit(),
        _ => [u64::MAX; 2],
    };
    let wanted = match new {
        0 => now,
        new => [double(new)?, double(new.wrapping_add(8))?],
    };
    if wanted != now {
        if resource != RLIMIT_NOFILE {
            return Err(Errno::EPERM);
        }
        files.set_limit(wanted)?;
    }
    if old != 0 {
        for (at, limit) in [old, old.wrapping_add(8)].into_iter().zip(now) {
            put(at, &limit.to_le_bytes())?;
        }
    }
    Ok(0)
}
