//! FreeBSD: guards, `MAP_EXCL`, `MAP_ALIGNED` and `PROT_MAX` (`mmap(2)`), superpages, and
//! `kern.elf64.allow_wx`.

mod map;
mod object;
mod sync;

pub(crate) use map::walk;
pub(crate) use object::open;
pub(crate) use sync::{core_sync, sync_cores, wait, wake_one};

use crate::shared::{errno::check, limits::process_record, sysctl::long};
use core::{ffi::c_int, mem::offset_of};
use hostmem_core::{
    page::PageSize,
    probe::{LargePageSize, MAX_LARGE_SIZES, Setting},
    provider::{Capabilities, DualStep, Resource, order},
};
use libc::kinfo_proc as Record;
use object::page_sizes;
use rustix::mm::{MapFlags, ProtFlags};

/// A reservation: a guard, which cannot be made accessible by protection. Such a mapping takes no
/// other flags than those of placement.
pub(crate) const RESERVED: c_int = libc::MAP_GUARD;

/// Exactly there, or not at all.
pub(crate) const EXACT: c_int = libc::MAP_FIXED | libc::MAP_EXCL;

/// Returns the flags that ask for an alignment, a power of two of at least a page.
pub(crate) fn aligned(align: usize) -> Option<c_int> {
    let log2 = c_int::try_from(align.trailing_zeros()).ok()?;
    // An `int` has its sign in the way of the largest, which no address space has either.
    (log2 < 64).then(|| libc::MAP_ALIGNED(log2))
}

/// Returns the flags that keep a mapping from ever having other protections than these, not even
/// by `mprotect(2)`.
pub(crate) fn most(protections: ProtFlags) -> ProtFlags {
    /// `_PROT_MAX_SHIFT` of `sys/mman.h`.
    const SHIFT: u32 = 16;
    ProtFlags::from_bits_retain(protections.bits() << SHIFT)
}

/// For views where larger pages are welcome: starts where one can.
pub(crate) const SUPERPAGE_ALIGNED: MapFlags =
    MapFlags::from_bits_retain(libc::MAP_ALIGNED_SUPER.unsigned_abs());

/// For views of files, whose contents need not reach a disk.
pub(crate) const FILE: MapFlags = MapFlags::from_bits_retain(libc::MAP_NOSYNC.unsigned_abs());

/// Of which reservations are a part, guards too. `RLIMIT_DATA` is about the program break only, and
/// what a user has of `RLIMIT_SWAP` is not told.
pub(crate) const LIMITED: Resource = Resource::Addresses;
pub(crate) const LIMIT: c_int = libc::RLIMIT_VMEM;

/// Returns the bytes of addresses that are mapped.
pub(crate) fn used() -> Option<usize> {
    let record = process_record::<{ size_of::<Record>() }>(libc::KERN_PROC, false)?;
    usize::try_from(long(&record, offset_of!(Record, ki_size))?).ok()
}

pub(crate) const ORDERS: [&[DualStep]; 3] = [
    order::FREEBSD,
    order::FREEBSD_LARGE,
    order::FREEBSD_ONLY_LARGE,
];

/// What every FreeBSD has. Mapping over is one step under the map's lock.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::TOGGLE_EXEC
    .union(Capabilities::RWX)
    .union(Capabilities::ATOMIC_INTO)
    .union(Capabilities::DUAL)
    .union(Capabilities::EXEC_ONLY_WHERE_ASKED);

/// Lists the sizes of large pages, smallest first. No pool is set aside for them.
pub(crate) fn large_pages() -> [Option<LargePageSize>; MAX_LARGE_SIZES] {
    let mut found = [None; MAX_LARGE_SIZES];
    // The first is the host's ordinary page.
    for (slot, &bytes) in found.iter_mut().zip(&page_sizes()[1..]) {
        *slot = PageSize::new(bytes).map(LargePageSize::of_size);
    }
    found
}

/// Says whether this process may not have memory that is writable and executable; procctl(2).
pub(crate) fn deny_write_execute() -> Setting {
    let mut status: c_int = 0;
    let data = (&raw mut status).cast();
    // The calling process.
    let id = 0;
    // SAFETY: this command writes an integer, for which there is room.
    let done = unsafe { libc::procctl(libc::P_PID, id, libc::PROC_WXMAP_STATUS, data) };
    match check(done) {
        Err(_) => Setting::Absent,
        Ok(_) if status & libc::PROC_WXORX_ENFORCE != 0 => Setting::On,
        Ok(_) => Setting::Off,
    }
}
