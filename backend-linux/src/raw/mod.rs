//! The system calls that rustix lacks, or wraps in a way that cannot be used here.

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(
    not(any(target_arch = "aarch64", target_arch = "x86_64")),
    path = "other.rs"
)]
mod cpu;

use core::ffi::CStr;
use hostmem_core::page::PageRange;
use rustix::{
    io::Errno,
    time::{ClockId, Timespec},
};

// Of `linux/prctl.h`.
const PR_SET_VMA: usize = 0x5356_4d41;
const PR_SET_VMA_ANON_NAME: usize = 0;
const PR_GET_MDWE: usize = 66;
const PR_MDWE_REFUSE_EXEC_GAIN: usize = 1;
const PR_GET_AUXV: usize = 0x4155_5856;
/// `AT_RANDOM` of `linux/auxvec.h`.
const AT_RANDOM: usize = 25;

// Of `asm-generic/resource.h`.
pub(crate) const RLIMIT_FSIZE: usize = 1;
pub(crate) const RLIMIT_DATA: usize = 2;
pub(crate) const RLIMIT_STACK: usize = 3;
pub(crate) const RLIMIT_MEMLOCK: usize = 8;
pub(crate) const RLIMIT_AS: usize = 9;

/// The argument of `personality` that asks and changes nothing.
const PERSONALITY_ASK: usize = 0xffff_ffff;
/// `READ_IMPLIES_EXEC` of `linux/personality.h`.
const READ_IMPLIES_EXEC: usize = 0x0040_0000;

/// Turns a system call's return value into a result.
fn result(value: isize) -> Result<usize, Errno> {
    // The kernel returns errors as -4095..=-1, and nothing else in that range.
    match usize::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => {
            let number = i32::try_from(value.unsigned_abs()).unwrap_or(i32::MAX);
            Err(Errno::from_raw_os_error(number))
        }
    }
}

/// Names an anonymous private mapping in `/proc/self/maps`. rustix takes the range as a byte slice
/// here, which inaccessible memory cannot be.
pub(crate) fn name_mapping(range: PageRange, name: &CStr) -> Result<(), Errno> {
    name_addresses(range.addr(), range.len_bytes(), name)
}

/// Says whether the kernel keeps names: whether it names no pages at all.
pub(crate) fn keeps_names() -> bool {
    name_addresses(0, 0, c"none").is_ok()
}

fn name_addresses(addr: usize, len: usize, name: &CStr) -> Result<(), Errno> {
    let name = name.as_ptr().expose_provenance();
    // SAFETY: this prctl reads the string, which is borrowed for the call, and changes no memory.
    let value = unsafe {
        cpu::call(
            cpu::PRCTL,
            [PR_SET_VMA, PR_SET_VMA_ANON_NAME, addr, len, name],
        )
    };
    result(value).map(drop)
}

/// Says whether memory-deny-write-execute is on for this process (Linux 6.3 and newer know it).
pub(crate) fn denies_exec_gain() -> Result<bool, Errno> {
    // SAFETY: this prctl only returns a number.
    let value = unsafe { cpu::call(cpu::PRCTL, [PR_GET_MDWE, 0, 0, 0, 0]) };
    result(value).map(|bits| bits & PR_MDWE_REFUSE_EXEC_GAIN != 0)
}

/// Returns the program break: the address behind the memory that `brk(2)` gives.
pub(crate) fn program_break() -> Result<usize, Errno> {
    // SAFETY: no break can be at zero; the kernel changes nothing and returns where it is.
    result(unsafe { cpu::call(cpu::BRK, [0; 5]) })
}

/// `SYS_close_range`, the same number on all CPUs (Linux 5.9 and newer).
const CLOSE_RANGE: usize = 436;

/// Closes the descriptors from `first` to `last`, both included.
///
/// # Safety
///
/// The caller owns all of them.
pub(crate) unsafe fn close_range(first: i32, last: i32) -> Result<(), Errno> {
    let number = |fd: i32| usize::try_from(fd).map_err(|_| Errno::BADF);
    let arguments = [number(first)?, number(last)?, 0, 0, 0];
    // SAFETY: the call closes descriptors, which are the caller's, and touches no memory.
    result(unsafe { cpu::call(CLOSE_RANGE, arguments) }).map(drop)
}

/// Returns where the kernel put the random bytes that a program starts with, in the main thread's
/// stack (Linux 6.4 and newer tell). `None` where it put none.
pub(crate) fn stack_address() -> Result<Option<usize>, Errno> {
    // More than the 20 to 30 pairs that kernels have.
    let mut vector = [[0usize; 2]; 64];
    let (to, len) = ((&raw mut vector).expose_provenance(), size_of_val(&vector));
    // SAFETY: this prctl writes no more than `len` bytes to `vector`, which outlives the call.
    result(unsafe { cpu::call(cpu::PRCTL, [PR_GET_AUXV, to, len, 0, 0]) })?;
    let random = vector.iter().find(|[kind, _]| *kind == AT_RANDOM);
    Ok(random.map(|[_, at]| *at))
}

/// Returns a limit of this process, in bytes; `u64::MAX` for none. rustix's call for it takes for
/// granted that no filter refuses.
pub(crate) fn limit(of: usize) -> Result<u64, Errno> {
    let mut limit = [0u64; 2];
    let old = (&raw mut limit).expose_provenance();
    // SAFETY: asks for this process's limit and sets none; `limit` is a `struct rlimit64`, the
    // current value first, and outlives the call.
    result(unsafe { cpu::call(cpu::PRLIMIT64, [0, of, 0, old, 0]) })?;
    Ok(limit[0])
}

/// Returns the kernel's version, the major number above the low 16 bits and the minor one in them.
/// rustix's call for it takes for granted that no filter refuses.
pub(crate) fn kernel_version() -> Result<u32, Errno> {
    /// `__NEW_UTS_LEN` of `linux/utsname.h`, and a zero.
    const FIELD: usize = 65;
    /// The release is the third of six fields.
    const RELEASE: usize = 2;
    let mut name = [[0u8; FIELD]; 6];
    let to = (&raw mut name).expose_provenance();
    // SAFETY: this call writes a `struct new_utsname`, which `name` has the size of and outlives.
    result(unsafe { cpu::call(cpu::UNAME, [to, 0, 0, 0, 0]) })?;
    version(&name[RELEASE]).ok_or(Errno::INVAL)
}

/// Reads a clock, as seconds and nanoseconds. rustix's call for it looks for the kernel's function
/// where the kernel says that it is, which is nowhere under valgrind.
pub(crate) fn clock(id: ClockId) -> Result<Timespec, Errno> {
    let mut time = [0i64; 2];
    let to = (&raw mut time).expose_provenance();
    // SAFETY: this call writes a `struct timespec`, two words on 64-bit CPUs, and these are the
    // only ones that know it here; `time` outlives it.
    result(unsafe { cpu::call(cpu::CLOCK_GETTIME, [id as usize, to, 0, 0, 0]) })?;
    let [tv_sec, tv_nsec] = time;
    Ok(Timespec { tv_sec, tv_nsec })
}

/// Says whether mappings of this thread that are readable become executable too.
pub(crate) fn read_implies_exec() -> Result<bool, Errno> {
    // SAFETY: with this argument the call only returns a number.
    let value = unsafe { cpu::call(cpu::PERSONALITY, [PERSONALITY_ASK, 0, 0, 0, 0]) };
    result(value).map(|bits| bits & READ_IMPLIES_EXEC != 0)
}

/// Returns the memory of the host, swap space included, in bytes. rustix's call for it takes for
/// granted that no filter refuses.
pub(crate) fn memory() -> Result<u64, Errno> {
    /// `struct sysinfo` of `linux/sysinfo.h` on 64-bit CPUs, in words: the fifth is the memory, the
    /// ninth the swap space, and the low half of the fourteenth what both are counted in.
    const WORDS: usize = 14;
    let mut info = [0u64; WORDS];
    let to = (&raw mut info).expose_provenance();
    // SAFETY: this call writes a `struct sysinfo`, which `info` has the size of and outlives.
    result(unsafe { cpu::call(cpu::SYSINFO, [to, 0, 0, 0, 0]) })?;
    let [.., last] = info;
    let unit = last & u64::from(u32::MAX);
    Ok(info[4].saturating_add(info[8]).saturating_mul(unit))
}

/// Reads the first two numbers of a release like `6.12.1-arch`.
fn version(release: &[u8]) -> Option<u32> {
    let mut numbers = release.split(|byte| !byte.is_ascii_digit());
    let mut next = || {
        core::str::from_utf8(numbers.next()?)
            .ok()?
            .parse::<u16>()
            .ok()
    };
    let (major, minor) = (next()?, next()?);
    Some(u32::from(major) << 16 | u32::from(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases() {
        let cases: [(&[u8], _); 7] = [
            (b"6.12.1-arch1\0\0", Some(6 << 16 | 12)),
            (b"5.4\0", Some(5 << 16 | 4)),
            (b"6.6-rc1\0", Some(6 << 16 | 6)),
            (b"2.6.78\0", Some(2 << 16 | 6)),
            (b"6\0", None),
            (b"\0", None),
            (b"99999.1", None),
        ];
        for (release, expected) in cases {
            assert_eq!(version(release), expected, "{release:?}");
        }
        assert_eq!(kernel_version().is_ok(), cpu::UNAME != 0);
    }

    #[test]
    fn the_host_has_memory() {
        let memory = memory().expect("no filter refuses");
        assert!((1 << 24..1 << 50).contains(&memory), "{memory} bytes");
    }
}
