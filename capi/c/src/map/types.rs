//! The structs and functions of range maps.

use crate::{abi::Grows, source::hm_source};
use core::ffi::{c_int, c_void};

/// The configuration of a range map. Begin with `HM_RANGE_MAP_CONFIG_INIT`; set at least `last`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_range_map_config {
    /// The size of this struct.
    pub size: u32,
    /// Not zero: signals are blocked while the map is locked, so that a handler may change it, too.
    pub block_signals: u32,
    /// Where the map's own memory comes from; null for the host. It need not live longer than the
    /// call.
    pub source: *const hm_source,
    /// The lowest address that a range may have, a multiple of pages.
    pub first: usize,
    /// The highest address that a range may have: the last byte of a page.
    pub last: usize,
    /// The size of pages, a power of two, which need not be the host's; 4096. With 1 it is a map of
    /// any ranges.
    pub page_size: usize,
    /// The most bytes of the map's own memory; 64 MiB.
    pub metadata: usize,
    /// Not zero: ranges that touch stay apart though they have the same value.
    pub keep_apart: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_range_map_config {
    const FIRST: usize = 56;
}

const _: () = assert!(size_of::<hm_range_map_config>() == 56);

/// A range of a map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_mapped_range {
    /// Its first address.
    pub first: usize,
    /// Its last address.
    pub last: usize,
    /// Its value.
    pub value: u64,
}

/// What a map holds. Begin with `HM_RANGE_MAP_STATISTICS_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_range_map_statistics {
    /// The size of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Ranges.
    pub ranges: u64,
    /// Pages that the ranges cover.
    pub pages: u64,
    /// Bytes of memory that the map holds.
    pub metadata: u64,
    /// Bytes that a forked child left behind.
    pub abandoned: u64,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_range_map_statistics {
    const FIRST: usize = 40;
}

const _: () = assert!(size_of::<hm_range_map_statistics>() == 40);

/// Is told of a range; returns 0 to go on, and anything else to stop. It must not unwind.
pub type hm_range_map_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, range: *const hm_mapped_range) -> c_int>;

/// Says what is to lie in a piece of a map: `has_value` is not zero where there was a range, whose
/// value is in `piece`. Returns 1 to have there the value that it leaves in `piece`, and 0 to have
/// nothing. It must not unwind, nor call the map but by what signal handlers may.
pub type hm_range_map_change_fn = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        piece: *mut hm_mapped_range,
        has_value: c_int,
    ) -> c_int,
>;
