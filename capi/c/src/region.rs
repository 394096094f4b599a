//! Addresses that belong to the program alone, and what lies in them.

use crate::{
    abi::{Grows, growing, place, read},
    jit::or,
    object::{self, Kind, List, opened},
    signals,
    status::{HM_OK, HM_UNKNOWN_POINTER, answer, hm_error, hm_status, invalid},
    types::{
        HM_ACCESS_NONE, HM_CEILING_DEFAULT, access_of, commit, hm_access, hm_ceiling, hm_page_wish,
        hm_range, hm_request, pages, range_of, request, window,
    },
};
use core::ffi::{c_int, c_void};
use hostmem::{
    RegionAllocator, RegionConfig,
    page::AddressRange,
    provider::{Error, PageProvider, Purged},
    region::{BreakBlock, ClaimRequest, Order, PageState, RegionRange},
};

/// An allocator of addresses: mmap's calls, inside of what it has claimed. Every call on it is
/// thread-safe.
pub struct hm_region {
    _opaque: [u8; 0],
}

pub(crate) type Region = RegionAllocator;

impl Kind for Region {
    const MAGIC: u32 = 0x686d_6731;

    fn list() -> &'static List<Self> {
        static ALL: List<Region> = List::new();
        &ALL
    }
}

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
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_region_config {
    const FIRST: usize = 32;
}

const _: () = assert!(size_of::<hm_region_config>() == 32);

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

/// Finds the region of a handle from C.
macro_rules! region {
    ($handle:expr) => {
        opened!(Region, $handle).1
    };
}

impl hm_region_range {
    fn of(range: &RegionRange) -> Self {
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

/// Makes a region without addresses: it passes everything on to the host until it adopts some. A
/// null configuration stands for the defaults.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_create(
    config: *const hm_region_config,
    region: *mut *mut hm_region,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(region);
        let from: hm_region_config = read!(config);
        let order = match from.order {
            HM_ORDER_LOWEST => Order::Lowest,
            HM_ORDER_HIGHEST => Order::Highest,
            HM_ORDER_RECENT => Order::Recent,
            _ => return Err(invalid(c"no such order")),
        };
        let mut config = RegionConfig::new().order(order);
        config = config.metadata(or(from.metadata, 64 << 20));
        config = config.mapping_limit(or(from.mapping_limit, 65_530));
        if from.block_signals != 0 {
            config = config.signals(signals::FOR_REGIONS);
        }
        let made = object::open(|| Ok(RegionAllocator::new(config)?))?;
        to.write(made.cast().as_ptr());
    })
}

/// Closes a region. What it adopted stays claimed until the process ends, and what was mapped in it
/// stays mapped: unmap it, and call `hm_region_release_unused`, before. Returns `HM_BUSY` while
/// something made on the region is open.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_close(
    region: *mut hm_region,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<Region, _>(region, false, drop)? };
        crate::mmap::forget_default(region);
    })
}

/// Claims all that is free in a range of addresses, so that what others map lands elsewhere, and
/// places everything new in it from then on. Stores what became of it through `report`, unless that
/// is null. That something could not be had is no error, unless all was required.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_claim(
    region: *mut hm_region,
    claim: *const hm_claim,
    report: *mut hm_claim_report,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = if report.is_null() {
            None
        } else {
            Some(growing!(report))
        };
        let region = region!(region);
        let from: hm_claim = read!(claim);
        if claim.is_null() || from.first == 0 {
            return Err(invalid(c"a claim without a first address"));
        }
        let part = |first: usize, last: usize| match last {
            0 => Ok(None),
            last => window(first, last).map(Some),
        };
        let mut request = ClaimRequest::range(window(from.first, from.last)?);
        request.hole = part(from.hole_first, from.hole_last)?;
        request.leave = part(from.leave_first, from.leave_last)?;
        request.guard = match from.guard {
            0 => 64 << 10,
            HM_NO_GUARD => 0,
            bytes => bytes,
        };
        request.stack_room = (from.stack_room != 0).then_some(from.stack_room);
        request.spare = (from.spare != 0).then_some(from.spare);
        request.least = from.least.max(request.least);
        request.complete = from.require_complete != 0;
        request.block_break = from.block_break != 0;
        let got = hostmem::adopt_claim(region, &request)?;
        if let Some(to) = to {
            to.write(hm_claim_report {
                size: 0,
                complete: got.is_complete().into(),
                first: got.range.map_or(0, AddressRange::start),
                last: got.range.map_or(0, AddressRange::last),
                missed_ranges: got.missed.ranges as u64,
                missed_bytes: got.missed.bytes as u64,
                system_error: got.error.and_then(Error::errno).unwrap_or(0),
                saw_map: got.map.is_ok().into(),
                heap_bytes: got.heap_bytes as u64,
                break_blocked: matches!(got.block_break, BreakBlock::Blocked | BreakBlock::Already)
                    .into(),
                address_bits: got.address_bits.unwrap_or(0),
            });
        }
    })
}

/// Takes over addresses that the program has reserved, mapped without access and private, as by
/// `hm_pages_reserve` from the host; from now on they are the region's alone.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_adopt(
    region: *mut hm_region,
    range: hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        // SAFETY: the caller in C promises that it has reserved the range.
        unsafe { region.adopt(pages(range)?)? };
    })
}

/// Gives free addresses back to the host, in pieces of `least` bytes or more; stores through
/// `bytes`, unless that is null, how many went.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_release_unused(
    region: *mut hm_region,
    least: usize,
    bytes: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let released = region!(region).release_unused(least)?;
        if !bytes.is_null() {
            place!(bytes).write(released);
        }
    })
}

/// Finds addresses and maps memory there, all but the guards, which lie within the range that is
/// stored through `range`. `tag` is what `hm_region_query` tells of it.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_map(
    region: *mut hm_region,
    wanted: *const hm_request,
    access: hm_access,
    ceiling: hm_ceiling,
    wish: hm_page_wish,
    tag: u16,
    range: *mut hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, region) = (place!(range), region!(region));
        let from: hm_request = read!(wanted);
        // SAFETY: the caller in C promises that the name is null or a string.
        let request = unsafe { request(&from)? };
        let mapped = region.map(&request, commit(access, ceiling, wish)?, tag)?;
        to.write(range_of(mapped));
    })
}

/// Maps memory at exactly this range, in place of whatever the region has there. Where this fails
/// what was there may be gone, and its addresses free.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_map_over(
    region: *mut hm_region,
    range: hm_range,
    access: hm_access,
    ceiling: hm_ceiling,
    wish: hm_page_wish,
    tag: u16,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        let how = commit(access, ceiling, wish)?;
        // SAFETY: the caller in C promises that no other code uses what is replaced.
        unsafe { region.map_over(pages(range)?, how, tag)? };
    })
}

/// Takes pages away, whatever parts of however many mappings they are. Their addresses are free for
/// the region again, never for others. What is free already is left alone.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_unmap(
    region: *mut hm_region,
    range: hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        // SAFETY: the caller in C promises that no other code uses the memory.
        unsafe { region.unmap(pages(range)?)? };
    })
}

/// Changes the access of pages that have memory. A change that fails in the middle is undone.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_protect(
    region: *mut hm_region,
    range: hm_range,
    access: hm_access,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        let access = crate::types::access(access)?;
        // SAFETY: the caller in C promises that the pages are its own, and have memory.
        unsafe { region.protect(pages(range)?, access)? };
    })
}

/// Gives the memory of pages back to the host and keeps the pages, which show what is stored
/// through `shown`, unless that is null.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_purge(
    region: *mut hm_region,
    range: hm_range,
    shown: *mut hm_purged,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        // SAFETY: the caller in C promises that the contents are not needed.
        let purged = unsafe { region.purge(pages(range)?)? };
        if !shown.is_null() {
            place!(shown).write(purged_of(purged));
        }
    })
}

/// Makes a mapping of one access `len` bytes long, rounded up to pages: where it lies or, with
/// `may_move` not zero, elsewhere. New pages have `access`, which is that of the mapping, and read
/// zero. Stores where it lies then through `range`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_remap(
    region: *mut hm_region,
    from: hm_range,
    len: usize,
    may_move: c_int,
    access: hm_access,
    range: *mut hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, region) = (place!(range), region!(region));
        let (from, how) = (pages(from)?, commit(access, HM_CEILING_DEFAULT, 0)?);
        let mapped = if may_move == 0 {
            // SAFETY: the caller in C promises that the mapping is its own.
            unsafe { region.resize(from, len, how)? }
        } else {
            // SAFETY: as above, and that no other code uses it meanwhile.
            unsafe { region.remap(from, len, how)? }
        };
        to.write(range_of(mapped));
    })
}

/// Stores what is known of the page around an address, any address at all. Returns
/// `HM_UNKNOWN_POINTER` where it is free or not of the region.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_query(
    region: *mut hm_region,
    address: *const c_void,
    range: *mut hm_region_range,
) -> hm_status {
    let mut found = HM_OK;
    let asked = answer!(core::ptr::null_mut(), {
        let (to, region) = (place!(range), region!(region));
        match region.query(address.addr()) {
            Some(range) => drop(to.write(hm_region_range::of(&range))),
            None => found = HM_UNKNOWN_POINTER,
        }
    });
    if asked == HM_OK { found } else { asked }
}

/// Tells `visit` of what was given out in a window, whole and in order; what changes meanwhile is
/// told or not. `last` may be 0 for no bound.
///
/// Thread-safe, and safe in signal handlers, as far as `visit` is: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_walk(
    region: *mut hm_region,
    first: usize,
    last: usize,
    visit: hm_region_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        for range in region.ranges(window(first, last)?) {
            let range = hm_region_range::of(&range);
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            if unsafe { visit(context, &raw const range) } != 0 {
                break;
            }
        }
    })
}

/// Stores the longest free piece of a window, the lowest of several. Returns `HM_UNKNOWN_POINTER`
/// where none is free.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_largest_gap(
    region: *mut hm_region,
    first: usize,
    last: usize,
    gap: *mut hm_gap,
) -> hm_status {
    let mut found = HM_OK;
    let asked = answer!(core::ptr::null_mut(), {
        let (to, region) = (place!(gap), region!(region));
        match region.largest_gap(window(first, last)?) {
            Some(gap) => drop(to.write(hm_gap {
                first: gap.start(),
                last: gap.last(),
            })),
            None => found = HM_UNKNOWN_POINTER,
        }
    });
    if asked == HM_OK { found } else { asked }
}

/// Stores what is held. Looks at every range.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_get_statistics(
    region: *mut hm_region,
    to: *mut hm_region_statistics,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, region) = (growing!(to), region!(region));
        let held = region.statistics();
        to.write(hm_region_statistics {
            size: 0,
            active: region.is_active().into(),
            adopted: held.adopted as u64,
            used: held.used as u64,
            ranges: held.ranges as u64,
            metadata: held.metadata as u64,
            abandoned: held.abandoned as u64,
            host_mappings: region.host_mappings() as u64,
            mapping_pressure: region.mapping_pressure().is_some().into(),
            reserved: 0,
        });
    })
}

/// Frees, in a forked child, what a call of a thread that the child does not have was mapping or
/// unmapping; stores through `bytes`, unless that is null, how much that was. The thread that
/// forked was in no call of the region, or that call has returned.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_free_interrupted(
    region: *mut hm_region,
    bytes: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        // SAFETY: the caller in C promises that no other code uses what was under way.
        let freed = unsafe { region.free_interrupted()? };
        if !bytes.is_null() {
            place!(bytes).write(freed);
        }
    })
}
