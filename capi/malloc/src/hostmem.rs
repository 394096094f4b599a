//! This library's own calls: whose is an address, and what does the heap hold?
//! `capi/include/hostmem_malloc.h` declares them.

use crate::{
    heap::{HEAP, quietly},
    line::say,
    settings,
};
use core::{
    ffi::{c_int, c_void},
    ptr::{copy_nonoverlapping, null_mut, with_exposed_provenance_mut},
};
use hostmem::{fork::ForkChild, heap::HeapStatistics};

/// Says whether an address, any at all, lies in the memory of this malloc, freed blocks included.
/// Takes no lock, touches nothing there, and may be called in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn hostmem_is_known_allocation(address: *const c_void) -> c_int {
    c_int::from(HEAP.owns(address.addr()))
}

/// Returns the start of the live block around an address, any at all, and stores through `size` how
/// many bytes of it may be used, unless that is null. Returns null where there is none. Takes no
/// lock, touches nothing there, and may be called in a signal handler.
///
/// # Safety
///
/// `size` is null, or a number may be stored through it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hostmem_block_of(address: *const c_void, size: *mut usize) -> *mut c_void {
    let Some(block) = HEAP.block_of(address.addr()) else {
        return null_mut();
    };
    if !size.is_null() {
        // SAFETY: not null, and a number may be stored there, by this function's condition.
        unsafe { size.write(block.len) };
    }
    with_exposed_provenance_mut(block.addr)
}

/// The statistics of this malloc: `struct hostmem_malloc_statistics` of the header. New numbers
/// come at its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    used: u64,
    cached: u64,
    slabs: u64,
    large: u64,
    large_blocks: u64,
    huge: u64,
    huge_blocks: u64,
    segments: u64,
    reserved: u64,
    committed: u64,
    resident: u64,
    refused: u64,
    abandoned: u64,
    corrupt_blocks: u64,
    metadata: u64,
    page_map: u64,
    requested: u64,
    low: u64,
    hardening: u64,
}

impl Statistics {
    fn of(held: &HeapStatistics) -> Self {
        let settings = settings::get();
        Self {
            used: held.used as u64,
            cached: held.cached as u64,
            slabs: held.slabs as u64,
            large: held.large as u64,
            large_blocks: held.large_blocks as u64,
            huge: held.huge as u64,
            huge_blocks: held.huge_blocks as u64,
            segments: held.segments as u64,
            reserved: held.reserved as u64,
            committed: held.committed as u64,
            resident: held.resident as u64,
            refused: held.refused as u64,
            abandoned: held.abandoned as u64,
            corrupt_blocks: held.corrupt_blocks as u64,
            metadata: held.metadata as u64,
            page_map: held.page_map as u64,
            requested: held.requested,
            low: settings.is_low().into(),
            hardening: settings.hardening(),
        }
    }
}

/// Stores what the heap holds through `to`, as far as `size` bytes have room, and zeros in what
/// this library does not know. Returns 0, or -1 where there is no heap: with `HOSTMEM_PASS=1`, or
/// without memory. Not for signal handlers.
///
/// # Safety
///
/// `size` bytes may be stored through `to`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hostmem_malloc_statistics(to: *mut c_void, size: usize) -> c_int {
    let Some(held) = quietly(|heap| heap.statistics()) else {
        return -1;
    };
    let statistics = Statistics::of(&held);
    let known = size_of::<Statistics>().min(size);
    let to = to.cast::<u8>();
    // SAFETY: `known` is no more than `statistics` has, nor than may be stored through `to`, by
    // this function's condition; the numbers lie on this call's stack.
    unsafe { copy_nonoverlapping((&raw const statistics).cast::<u8>(), to, known) };
    // SAFETY: not beyond the end of the caller's place.
    let rest = unsafe { to.add(known) };
    // SAFETY: the rest of the `size` bytes that may be stored, by this function's condition.
    unsafe { rest.write_bytes(0, size - known) };
    0
}

/// Repairs the heap in the child of a raw `clone` that copied the memory of a process with threads;
/// to be called there before any other call of this library. The C library's `fork` does it by
/// itself; children of `vfork`, or with `CLONE_VM`, must not call it. Returns 0, or -1 where there
/// is no memory for it: then the child may run only what does not allocate.
///
/// # Safety
///
/// The calling process is such a child, has no other thread, and has not called it before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hostmem_malloc_fork_child() -> c_int {
    // SAFETY: this is the only thread of a forked child, and the first call there, by this
    // function's conditions.
    match unsafe { HEAP.fork_child() } {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

/// Prints what the heap holds, in one line.
pub(crate) fn say_statistics() {
    // SAFETY: it only tells a number.
    let process = unsafe { libc::getpid() };
    let Some(held) = quietly(|heap| heap.statistics()) else {
        say!("process {process} has no heap");
        return;
    };
    let calls = held.calls;
    let all_calls = [
        calls.reserve,
        calls.commit,
        calls.purge,
        calls.moves,
        calls.decommit,
        calls.release,
    ];
    say!(
        "process {process}: used={} cached={} resident={} committed={} reserved={} metadata={} \
         huge_blocks={} requested={} calls={}",
        held.used,
        held.cached,
        held.resident,
        held.committed,
        held.reserved,
        held.metadata,
        held.huge_blocks,
        held.requested,
        all_calls.iter().sum::<usize>(),
    );
}
