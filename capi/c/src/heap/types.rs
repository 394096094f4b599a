//! The structs and numbers of heaps.

use crate::{abi::Grows, source::hm_source};
use core::ffi::{c_int, c_void};

/// A thread's own handle of a heap, with free blocks of its own, so that most calls take no lock;
/// in the memory of the program, thread-local for instance: begin with zeros. It may go to another
/// thread, but one at a time uses it; a copy of it is refused. Any block of the heap may be freed
/// by any handle, and by the heap's own calls.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_local {
    /// Not for programs.
    pub opaque: [usize; 4],
}

/// What a heap does to find faults of its users.
pub type hm_hardening = u32;
/// As `HM_HARDENING_CHECKED`.
pub const HM_HARDENING_DEFAULT: hm_hardening = 0;
/// Frees of what is no live block are refused.
pub const HM_HARDENING_CHECKED: hm_hardening = 1;
/// That, and canaries behind blocks, a pattern at the start of free ones, and frees by a wrong
/// size.
pub const HM_HARDENING_CANARIES: hm_hardening = 2;
/// All that the heap can find: guards, quarantine, frees at the same time.
pub const HM_HARDENING_FULL: hm_hardening = 3;

/// When free memory goes back to the host.
pub type hm_return = u32;
/// When it was free for `return_ms` milliseconds.
pub const HM_RETURN_LATER: hm_return = 0;
/// At once.
pub const HM_RETURN_EAGER: hm_return = 1;
/// Only by `hm_heap_trim`.
pub const HM_RETURN_NEVER: hm_return = 2;

/// How much work is done to give memory back.
pub type hm_trim = u32;
/// What is free as a whole: segments, granules of 64 KiB.
pub const HM_TRIM_FREE: hm_trim = 0;
/// That, and pages between live blocks.
pub const HM_TRIM_DEEP: hm_trim = 1;

/// The configuration of a heap. Begin with `HM_HEAP_CONFIG_INIT`; in every field zero is the
/// default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_heap_config {
    /// The size of this struct.
    pub size: u32,
    /// What is done to find faults.
    pub hardening: hm_hardening,
    /// Where memory comes from; null for the host. It need not live longer than the call. Metadata
    /// keeps out of a window, and lies in a region.
    pub source: *const hm_source,
    /// The most bytes of addresses for metadata; 1 GiB.
    pub metadata: usize,
    /// Bytes of free blocks that a thread's handle keeps of each size; 64 KiB.
    pub magazine: usize,
    /// Bytes of addresses that are reserved at first, a multiple of 64 KiB up to 64 MiB; 4 MiB.
    pub segment: usize,
    /// In how many parts with locks of their own blocks are kept, 1 to 64; 4.
    pub shards: u32,
    /// When free memory goes back.
    pub memory_return: hm_return,
    /// How long it is free before, in milliseconds; 250.
    pub return_ms: u32,
    /// Not zero: the host is not asked for large pages.
    pub no_large_pages: u32,
    /// Not zero: calls look at no clock, and memory goes back by `hm_heap_tick` only.
    pub no_clock: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes of freed blocks up to 256 KiB that wait before they serve again, with
    /// `HM_HARDENING_FULL`; 1 MiB.
    pub quarantine: usize,
    /// Bytes of addresses of larger freed blocks that wait; 1 GiB.
    pub quarantine_addresses: usize,
    /// How many mappings of the host guards may take; half of those that are left.
    pub mappings: usize,
    /// Not zero: calls without a thread's handle take a lock each. By default they have caches of
    /// free blocks, which threads use by turns; a thread may end in any way.
    pub no_thread_caches: u32,
    /// Zero.
    pub reserved_more: u32,
    /// 32 random bytes, from which a heap with `HM_HARDENING_FULL` makes canaries and the order of
    /// its blocks; null to ask the host for them. They need not live longer than the call.
    pub keys: *const u8,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_heap_config {
    const FIRST: usize = 88;
}

const _: () = assert!(size_of::<hm_heap_config>() == 104);

/// What a heap holds, in bytes where nothing else is said. Begin with `HM_HEAP_STATISTICS_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_heap_statistics {
    /// The size of this struct.
    pub size: u32,
    /// Zero.
    pub padding: u32,
    /// Ever asked for.
    pub requested: u64,
    /// Of live blocks, as they are rounded up.
    pub used: u64,
    /// Of free blocks that threads' handles have.
    pub cached: u64,
    /// Of slabs, free blocks in them included.
    pub slabs: u64,
    /// Of blocks without a slab, up to 1 MiB each.
    pub large: u64,
    /// How many of them are live.
    pub large_blocks: u64,
    /// Of larger blocks.
    pub huge: u64,
    /// How many of them are live.
    pub huge_blocks: u64,
    /// How many segments there are.
    pub segments: u64,
    /// Of addresses, those of metadata excluded.
    pub reserved: u64,
    /// That have memory, or get it when they are written.
    pub committed: u64,
    /// An estimate of what the host has in memory.
    pub resident: u64,
    /// Free, but the host did not take them back.
    pub refused: u64,
    /// That a forked child could not take over.
    pub abandoned: u64,
    /// How many blocks were found corrupt.
    pub corrupt_blocks: u64,
    /// Of freed blocks that wait before they serve again.
    pub quarantined: u64,
    /// Of addresses of larger ones that wait.
    pub quarantined_addresses: u64,
    /// How many live blocks have no guards that should have.
    pub unguarded_blocks: u64,
    /// Of metadata that has memory, without the page map.
    pub metadata: u64,
    /// Of addresses of the page map.
    pub page_map: u64,
    /// How many calls of the provider for blocks there were.
    pub provider_calls: u64,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_heap_statistics {
    const FIRST: usize = 176;
}

const _: () = assert!(size_of::<hm_heap_statistics>() == 176);

/// Blocks that are rounded up to one size.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_heap_class {
    /// Bytes of a block.
    pub block_size: usize,
    /// How many slabs there are.
    pub slabs: usize,
    /// How many blocks they have, live and free.
    pub blocks: usize,
    /// How many blocks are live.
    pub used: usize,
    /// How many free blocks threads have.
    pub cached: usize,
    /// How many freed blocks wait before they serve again.
    pub quarantined: usize,
}

/// Is told of blocks of one size; returns 0 to go on, and anything else to stop. It must not
/// unwind.
pub type hm_heap_class_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, found: *const hm_heap_class) -> c_int>;

/// The kind of memory in addresses that a heap holds.
pub type hm_heap_range_kind = u32;
/// Blocks up to 1 MiB, live and free ones, or room for them.
pub const HM_HEAP_RANGE_SEGMENT: hm_heap_range_kind = 0;
/// One larger block, and what its reservation is longer by.
pub const HM_HEAP_RANGE_HUGE: hm_heap_range_kind = 1;
/// One larger block that was freed, and is kept for the next, or until it can be released.
pub const HM_HEAP_RANGE_KEPT: hm_heap_range_kind = 2;
/// Metadata: descriptors, bitmaps and magazines.
pub const HM_HEAP_RANGE_ARENA: hm_heap_range_kind = 3;
/// Metadata: a part of the page map.
pub const HM_HEAP_RANGE_PAGE_MAP: hm_heap_range_kind = 4;

/// Addresses that a heap holds, with or without memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_heap_range {
    /// The first address.
    pub first: usize,
    /// The last address.
    pub last: usize,
    /// The kind of memory there.
    pub kind: hm_heap_range_kind,
    /// Zero.
    pub reserved: u32,
}

/// Is told of addresses that a heap holds; returns 0 to go on, and anything else to stop. It must
/// not unwind.
pub type hm_heap_range_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, found: *const hm_heap_range) -> c_int>;

/// Is told of a live block; returns 0 to go on, and anything else to stop. It must not unwind.
pub type hm_heap_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, block: *mut c_void, size: usize) -> c_int>;
