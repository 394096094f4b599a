//! DragonFly. Its process map is in `/proc` only, where that is mounted, in a form for people.

pub(crate) use super::lacking::{core_sync, deny_write_execute, large_pages, sync_cores};

use crate::shared::{limits::process_record, object::MemoryObject, sysctl::long};
use core::{ffi::c_int, mem::offset_of, sync::atomic::AtomicU32, time::Duration};
use hostmem_core::{
    page::PageSize,
    provider::{Capabilities, DualRequest, DualStep, Error, ErrorKind, MapEntry, Resource, order},
};
use libc::kinfo_proc as Record;
use rustix::mm::{MapFlags, ProtFlags};

/// A reservation: private and inaccessible.
pub(crate) const RESERVED: c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// Exactly there, or not at all: `MAP_TRYFIXED` of `sys/mman.h`. Where it comes to lie is looked at
/// all the same.
pub(crate) const EXACT: c_int = 0x0001_0000;

/// There are no alignments to ask for but that of the length.
pub(crate) fn aligned(_align: usize) -> Option<c_int> {
    None
}

/// There are no limits to what `mprotect(2)` may do.
pub(crate) fn most(_protections: ProtFlags) -> ProtFlags {
    ProtFlags::empty()
}

/// There is nothing to ask for.
pub(crate) const SUPERPAGE_ALIGNED: MapFlags = MapFlags::empty();

/// For views of files, whose contents need not reach a disk.
pub(crate) const FILE: MapFlags = MapFlags::from_bits_retain(libc::MAP_NOSYNC.unsigned_abs());

/// Of which reservations are a part. `RLIMIT_DATA` is about the program break only.
pub(crate) const LIMITED: Resource = Resource::Addresses;
pub(crate) const LIMIT: c_int = libc::RLIMIT_VMEM;

/// Returns the bytes of addresses that are mapped.
pub(crate) fn used() -> Option<usize> {
    let record = process_record::<{ size_of::<Record>() }>(libc::KERN_PROC, false)?;
    usize::try_from(long(&record, offset_of!(Record, kp_vm_map_size))?).ok()
}

/// What every DragonFly has. Mapping over unmaps first, in a step of its own.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::TOGGLE_EXEC
    .union(Capabilities::RWX)
    .union(Capabilities::DUAL)
    .union(Capabilities::EXEC_ONLY_WHERE_ASKED);

pub(crate) const ORDERS: [&[DualStep]; 3] = [order::DRAGONFLY, order::DRAGONFLY, &[]];

/// Says that there is no map. Places are then searched for by trying.
pub(crate) fn walk(_visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
    Err(ErrorKind::Unsupported.into())
}

/// Makes the object of one strategy, empty as yet: one with a new name that is unlinked at once
/// (`shm_open(3)`).
pub(crate) fn open(
    step: DualStep,
    request: &DualRequest<'_>,
    base: PageSize,
) -> Result<MemoryObject, Error> {
    match step {
        DualStep::PosixShm => MemoryObject::named(request.len as u64, base),
        _ => Err(ErrorKind::Unsupported.into()),
    }
}

/// Microseconds after which a sleeping thread looks at the word by itself in any case: the kernel
/// finds sleepers by the memory of the word, which is another one after a fork if the page was
/// written meanwhile.
const LOOK_AGAIN: c_int = 100_000;

/// Sleeps (`umtx(2)`) while the word is `expected`, until it is woken or `at_most` is over; may
/// return early.
pub(crate) fn wait(word: &AtomicU32, expected: u32, at_most: Duration) {
    let word: *const c_int = word.as_ptr().cast();
    let at_most = c_int::try_from(at_most.as_micros()).unwrap_or(LOOK_AGAIN);
    // None would be without end.
    let time = at_most.clamp(1, LOOK_AGAIN);
    // SAFETY: umtx_sleep(2) reads the word, which is borrowed for the call, and changes no memory.
    // That it failed, was interrupted or took too long, is an early return.
    unsafe { libc::umtx_sleep(word, expected.cast_signed(), time) };
}

/// Wakes one of those that sleep on the word.
pub(crate) fn wake_one(word: &AtomicU32) {
    let word: *const c_int = word.as_ptr().cast();
    // SAFETY: umtx_wakeup(2) takes the address and changes no memory.
    unsafe { libc::umtx_wakeup(word, 1) };
}
