//! The structs and numbers of regions.

use crate::{
    abi::Grows,
    source::hm_source,
    types::{HM_ACCESS_NONE, access_of, hm_access},
};
use core::ffi::{c_int, c_void};
use hostmem::{
    page::AddressRange,
    provider::Purged,
    region::{PageState, RegionRange},
};

/// Which free addresses are taken first.
pub type hm_order = u32;
/// The lowest.
pub const HM_ORDER_LOWEST: hm_order = 0;
/// The highest.
pub const HM_ORDER_HIGHEST: hm_order = 1;
/// Those nearest to what was taken last.
pub const HM_ORDER_RECENT: hm_order = 2;

/// The configuration of a region. Begin with `HM_REGION_CONFIG_INIT`; in every field zero is the
/// default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_region_config {
    /// The size of this struct.
    pub size: u32,
    /// Which free addresses are taken first.
    pub order: hm_order,
    /// The most bytes of metadata; 64 MiB, which serve three million ranges.
    pub metadata: usize,
    /// How many mappings the host allows a process; 65,530, as Linux has it.
    pub mapping_limit: usize,
    /// Not zero: signals are blocked while the region is locked, so that a handler may map and
    /// unmap, too. Two system calls for each call.
    pub block_signals: u32,
    /// Zero.
    pub reserved: u32,
    /// Where its addresses and its memory come from; null for the host. It need not live longer
    /// than the call.
    pub source: *const hm_source,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_region_config {
    const FIRST: usize = 32;
}

const _: () = assert!(size_of::<hm_region_config>() == 40);

/// What a region is to claim. Begin with `HM_CLAIM_INIT`; set at least `first`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_claim {
    /// The size of this struct.
    pub size: u32,
    /// Not zero: the program break is kept from growing.
    pub block_break: u32,
    /// The lowest address to claim.
    pub first: usize,
    /// The highest address to claim; 0 for all that there are.
    pub last: usize,
    /// The first address of a part that is claimed to be inaccessible for good.
    pub hole_first: usize,
    /// The last address of that part; 0 for none.
    pub hole_last: usize,
    /// The first address of a part that is left as it is.
    pub leave_first: usize,
    /// The last address of that part; 0 for none.
    pub leave_last: usize,
    /// Bytes at the start that are claimed to be inaccessible for good; a multiple of pages. Zero
    /// for 64 KiB, and `HM_NO_GUARD` for none.
    pub guard: usize,
    /// How long a growing stack may come to be; 0 for what the host's limit allows and some more.
    pub stack_room: usize,
    /// Gaps shorter than this are not claimed; 0 for pages.
    pub least: usize,
    /// Bytes that are not claimed where the host limits a process's addresses; 0 for a quarter.
    pub spare: usize,
    /// Not zero: a claim that misses anything is an error, and nothing is claimed then.
    pub require_complete: u32,
    /// Zero.
    pub reserved: u32,
}

/// No guard at the start of a claim.
pub const HM_NO_GUARD: usize = 1;

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_claim {
    const FIRST: usize = 96;
}

const _: () = assert!(size_of::<hm_claim>() == 96);

/// What became of a claim. Begin with `HM_CLAIM_REPORT_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_claim_report {
    /// The size of this struct.
    pub size: u32,
    /// Whether all is claimed that was to be: 0 or 1.
    pub complete: u32,
    /// The first address that the host has of what was asked for.
    pub first: usize,
    /// The last one; 0 where it has none.
    pub last: usize,
    /// How many free pieces could not be had.
    pub missed_ranges: u64,
    /// Their bytes.
    pub missed_bytes: u64,
    /// The host's error number for the first of them, or 0.
    pub system_error: i32,
    /// Whether the process map could be read: 0 or 1.
    pub saw_map: u32,
    /// Bytes of the memory that `brk` gave that lie in the range: the C library goes on to serve
    /// from there.
    pub heap_bytes: u64,
    /// Whether a page lies behind the program break now, so that it cannot grow: 0 or 1.
    pub break_blocked: u32,
    /// The bits of an address of this process, or 0 where that is not known.
    pub address_bits: u32,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_claim_report {
    const FIRST: usize = 64;
}

const _: () = assert!(size_of::<hm_claim_report>() == 64);

/// The state of pages.
pub type hm_state = u32;
/// Given out, and without memory.
pub const HM_STATE_RESERVED: hm_state = 0;
/// Given out, with memory.
pub const HM_STATE_COMMITTED: hm_state = 1;
/// A view of a dual mapping.
pub const HM_STATE_DUAL: hm_state = 2;
/// In a forked child: a call of another thread was mapping or unmapping these pages when the
/// process forked; see `hm_region_free_interrupted`.
pub const HM_STATE_INTERRUPTED: hm_state = 3;

/// Pages that were given out, all alike.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_region_range {
    /// The first address.
    pub first: usize,
    /// The last address.
    pub last: usize,
    /// The state of the pages.
    pub state: hm_state,
    /// Their access, of pages that have memory.
    pub access: hm_access,
    /// The tag that they were mapped with.
    pub tag: u16,
    /// Zeros.
    pub reserved: [u16; 3],
}

/// Free addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_gap {
    /// The first address.
    pub first: usize,
    /// The last address.
    pub last: usize,
}

/// What a region holds, in bytes where nothing else is said. Begin with
/// `HM_REGION_STATISTICS_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_region_statistics {
    /// The size of this struct.
    pub size: u32,
    /// Whether the region has adopted anything; before, it passes everything on to the host.
    pub active: u32,
    /// Addresses that were adopted and not returned.
    pub adopted: u64,
    /// Addresses given out.
    pub used: u64,
    /// Ranges that the region tells apart.
    pub ranges: u64,
    /// Metadata that has memory.
    pub metadata: u64,
    /// Metadata that a forked child left behind.
    pub abandoned: u64,
    /// How many mappings the host keeps for the region, of which it allows a process
    /// `mapping_limit`.
    pub host_mappings: u64,
    /// Whether that is more than three quarters of the limit: 0 or 1.
    pub mapping_pressure: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_region_statistics {
    const FIRST: usize = 64;
}

const _: () = assert!(size_of::<hm_region_statistics>() == 64);

/// What purged pages show until they are written.
pub type hm_purged = u32;
/// Zero.
pub const HM_PURGED_ZERO: hm_purged = 0;
/// Zero, or the old contents as long as the host has not taken the memory.
pub const HM_PURGED_ZERO_OR_OLD: hm_purged = 1;
/// The old contents: the host keeps the memory.
pub const HM_PURGED_KEPT: hm_purged = 2;

pub(crate) const fn purged_of(purged: Purged) -> hm_purged {
    match purged {
        Purged::Zero => HM_PURGED_ZERO,
        Purged::ZeroOrOld => HM_PURGED_ZERO_OR_OLD,
        Purged::Kept => HM_PURGED_KEPT,
    }
}

/// Is told of pages; returns 0 to go on, and anything else to stop. It must not unwind.
pub type hm_region_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, range: *const hm_region_range) -> c_int>;

/// Is told of free addresses; returns 0 to go on, and anything else to stop. It must not unwind.
pub type hm_gap_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, gap: *const hm_gap) -> c_int>;

impl hm_gap {
    pub(super) fn of(range: AddressRange) -> Self {
        Self {
            first: range.start(),
            last: range.last(),
        }
    }
}

impl hm_region_range {
    pub(super) fn of(range: &RegionRange) -> Self {
        let (state, access) = match range.state {
            PageState::Committed(access) => (HM_STATE_COMMITTED, access_of(access)),
            PageState::Dual => (HM_STATE_DUAL, HM_ACCESS_NONE),
            PageState::Interrupted => (HM_STATE_INTERRUPTED, HM_ACCESS_NONE),
            _ => (HM_STATE_RESERVED, HM_ACCESS_NONE),
        };
        Self {
            first: range.addresses.start(),
            last: range.addresses.last(),
            state,
            access,
            tag: range.tag,
            reserved: [0; 3],
        }
    }
}
