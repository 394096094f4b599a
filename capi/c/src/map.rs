//! What lies where in a range of addresses, and where is room.

use crate::{
    abi::{Grows, growing, place, read},
    jit::or,
    object::{self, Kind, List, Object, opened},
    region::{HM_ORDER_HIGHEST, HM_ORDER_LOWEST, HM_ORDER_RECENT, Region, hm_gap, hm_order},
    signals,
    source::{Source, hm_source, source},
    status::{Fault, HM_OK, HM_UNKNOWN_POINTER, answer, hm_error, hm_status, invalid},
    types::window,
};
use core::ffi::{c_int, c_void};
use hostmem::{
    OsLock,
    fork::ForkChild,
    page::{AddressRange, PageSize},
    provider::Error,
    range_map::{GapRequest, Order, RangeMap, Statistics, Value},
};

/// A map of disjoint ranges of addresses, a guest's for instance, each with a value of 64 bits.
/// Every call on it is thread-safe.
pub struct hm_range_map {
    _opaque: [u8; 0],
}

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

/// A value of 64 bits, of ranges that join where they touch, or do not.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Number<const JOINS: bool>(u64);

impl<const JOINS: bool> Value for Number<JOINS> {
    fn to_bits(self) -> u32 {
        // Not used: maps keep all 64.
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn from_bits(bits: u32) -> Self {
        Self(bits.into())
    }

    fn to_bits64(self) -> u64 {
        self.0
    }

    fn from_bits64(bits: u64) -> Self {
        Self(bits)
    }

    fn joins(self) -> bool {
        JOINS
    }
}

enum Inner {
    Joining(RangeMap<Number<true>, Source, OsLock>),
    Apart(RangeMap<Number<false>, Source, OsLock>),
}

/// Calls a method of the map that it is.
macro_rules! pass {
    ($inner:expr, $map:ident => $call:expr) => {
        match $inner {
            Inner::Joining($map) => $call,
            Inner::Apart($map) => $call,
        }
    };
}

fn told<const JOINS: bool>(found: (AddressRange, Number<JOINS>)) -> hm_mapped_range {
    hm_mapped_range {
        first: found.0.start(),
        last: found.0.last(),
        value: found.1.0,
    }
}

impl Inner {
    fn query(&self, addr: usize) -> Option<hm_mapped_range> {
        pass!(self, map => map.query(addr).map(told))
    }

    fn next_from(&self, addr: usize) -> Option<hm_mapped_range> {
        pass!(self, map => map.next_from(addr).map(told))
    }

    fn prev(&self, addr: usize) -> Option<hm_mapped_range> {
        pass!(self, map => map.prev(addr).map(told))
    }

    fn rewrite(
        &self,
        range: AddressRange,
        mut change: impl FnMut(&mut hm_mapped_range, bool) -> bool,
    ) -> Result<usize, Error> {
        let mut each = |piece: AddressRange, old: Option<u64>| {
            let mut told = hm_mapped_range {
                first: piece.start(),
                last: piece.last(),
                value: old.unwrap_or(0),
            };
            change(&mut told, old.is_some()).then_some(told.value)
        };
        pass!(self, map => map.rewrite(range, |piece, old| {
            each(piece, old.map(|old| old.0)).map(Number)
        }))
    }

    fn statistics(&self) -> Statistics {
        pass!(self, map => map.statistics())
    }
}

/// What is behind a handle.
pub(crate) struct Map {
    inner: Inner,
    region: Option<&'static Object<Region>>,
}

impl Map {
    /// # Safety
    ///
    /// As for [`ForkChild::fork_child`].
    pub(crate) unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        pass!(&self.inner, map => unsafe { map.fork_child() })
    }
}

impl Kind for Map {
    const MAGIC: u32 = 0x686d_6d31;

    fn list() -> &'static List<Self> {
        static ALL: List<Map> = List::new();
        &ALL
    }
}

/// Finds the map of a handle from C.
macro_rules! map {
    ($handle:expr) => {
        &opened!(Map, $handle).1.inner
    };
}

fn range(first: usize, last: usize) -> Result<AddressRange, Fault> {
    AddressRange::new(first, last).ok_or(invalid(c"a range that ends before it starts"))
}

/// Makes an empty map.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_create(
    config: *const hm_range_map_config,
    map: *mut *mut hm_range_map,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(map);
        let from: hm_range_map_config = read!(config);
        if from.last == 0 {
            return Err(invalid(c"a map without a last address"));
        }
        let (provider, region) = source!(from.source);
        let bounds = range(from.first, from.last)?;
        let page = PageSize::new(or(from.page_size, 4096));
        let page = page.ok_or(invalid(c"a page size that is no power of two"))?;
        let bytes = or(from.metadata, 64 << 20);
        let hook = (from.block_signals != 0).then(signals::for_maps);
        let made = object::open(|| {
            let inner = if from.keep_apart == 0 {
                let map = RangeMap::on(provider, bounds, page, bytes)?;
                Inner::Joining(match hook {
                    Some(hook) => map.with_signals(hook),
                    None => map,
                })
            } else {
                let map = RangeMap::on(provider, bounds, page, bytes)?;
                Inner::Apart(match hook {
                    Some(hook) => map.with_signals(hook),
                    None => map,
                })
            };
            Ok(Map { inner, region })
        })?;
        if let Some(region) = region {
            region.enter();
        }
        to.write(made.cast().as_ptr());
    })
}

/// Closes a map and gives its memory back.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_close(
    map: *mut hm_range_map,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let end = |map: Map| {
            let region = map.region;
            drop(map);
            if let Some(region) = region {
                region.leave();
            }
        };
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<Map, _>(map, false, end)? };
    })
}

/// Answers a query that finds a range or none.
macro_rules! asked {
    ($handle:expr, $to:expr, $map:ident => $found:expr) => {{
        let mut found = HM_OK;
        let asked = answer!(core::ptr::null_mut(), {
            let (to, $map) = (place!($to), map!($handle));
            match $found {
                Some(range) => drop(to.write(range)),
                None => found = HM_UNKNOWN_POINTER,
            }
        });
        if asked == HM_OK { found } else { asked }
    }};
}

/// Stores the range that has an address. Returns `HM_UNKNOWN_POINTER` where none has.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_query(
    map: *mut hm_range_map,
    address: usize,
    found: *mut hm_mapped_range,
) -> hm_status {
    asked!(map, found, map => map.query(address))
}

/// Stores the first range that does not lie wholly below an address. Returns `HM_UNKNOWN_POINTER`
/// where there is none.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_next(
    map: *mut hm_range_map,
    address: usize,
    found: *mut hm_mapped_range,
) -> hm_status {
    asked!(map, found, map => map.next_from(address))
}

/// Stores the last range that does not lie wholly above an address. Returns `HM_UNKNOWN_POINTER`
/// where there is none.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_prev(
    map: *mut hm_range_map,
    address: usize,
    found: *mut hm_mapped_range,
) -> hm_status {
    asked!(map, found, map => map.prev(address))
}

/// Gives a range a value, whatever was there: what overlaps partly is cut. Stores through `had`,
/// unless that is null, how many of its pages had one. Readers see all of it or nothing.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_insert(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    value: u64,
    had: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, range) = (map!(map), range(first, last)?);
        let pages = pass!(map, map => map.insert(range, Number(value))?);
        if !had.is_null() {
            place!(had).write(pages);
        }
    })
}

/// Gives a range a value if none of its pages has one. Returns `HM_EXISTS` where one has.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_insert_new(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    value: u64,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, range) = (map!(map), range(first, last)?);
        pass!(map, map => map.insert_new(range, Number(value))?);
    })
}

/// Takes a range away, whatever parts of ranges lie in it. Stores through `had`, unless that is
/// null, how many pages had a value.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_remove(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    had: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, range) = (map!(map), range(first, last)?);
        let pages = pass!(map, map => map.remove(range)?);
        if !had.is_null() {
            place!(had).write(pages);
        }
    })
}

/// Changes what lies in a window by what `change` says of each range and each gap in it, in order,
/// cut off at its ends. Readers see all of it or nothing. Stores through `had`, unless that is
/// null, how many pages had a value.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_rewrite(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    change: hm_range_map_change_fn,
    context: *mut c_void,
    had: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, range) = (map!(map), range(first, last)?);
        let change = change.ok_or(invalid(c"a null function"))?;
        let pages = map.rewrite(range, |piece, has_value| {
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            unsafe { change(context, piece, has_value.into()) != 0 }
        })?;
        if !had.is_null() {
            place!(had).write(pages);
        }
    })
}

/// Makes sure that the next `changes` changes cannot fail for want of memory.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_prepare(
    map: *mut hm_range_map,
    changes: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let map = map!(map);
        pass!(map, map => map.prepare(changes)?);
    })
}

/// Finds a gap of `len` bytes within a window, whose byte at `offset` is a multiple of `align`;
/// an `align` of 0 is that of pages, and a `last` of 0 is no bound. No other thread is kept from
/// taking it. Returns `HM_OUT_OF_MEMORY` where nothing fits.
///
/// Of the orders there are `HM_ORDER_LOWEST`, `HM_ORDER_HIGHEST`, and `HM_ORDER_RECENT` for the one
/// nearest to `near`.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_find_gap(
    map: *mut hm_range_map,
    len: usize,
    align: usize,
    offset: usize,
    first: usize,
    last: usize,
    order: hm_order,
    near: usize,
    gap: *mut hm_gap,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, map) = (place!(gap), map!(map));
        let order = match order {
            HM_ORDER_LOWEST => Order::Lowest,
            HM_ORDER_HIGHEST => Order::Highest,
            HM_ORDER_RECENT => Order::Nearest(near),
            _ => return Err(invalid(c"no such order")),
        };
        let request = GapRequest::bytes(len)
            .aligned(align.max(1), offset)
            .within(window(first, last)?)
            .order(order);
        let found = pass!(map, map => map.find_gap(&request)?);
        to.write(hm_gap {
            first: found.start(),
            last: found.last(),
        });
    })
}

/// Stores the longest gap of a window, the lowest of several; a `last` of 0 is no bound. Returns
/// `HM_UNKNOWN_POINTER` where there is none.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_largest_gap(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    gap: *mut hm_gap,
) -> hm_status {
    asked!(map, gap, map => {
        let window = window(first, last)?;
        let found = pass!(map, map => map.largest_gap(window));
        found.map(|found| hm_gap {
            first: found.start(),
            last: found.last(),
        })
    })
}

/// Tells `visit` of the ranges that share an address with a window, whole and in order; what
/// changes meanwhile is told or not. A `last` of 0 is no bound.
///
/// Thread-safe, and safe in signal handlers, as far as `visit` is: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_walk(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    visit: hm_range_map_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, window) = (map!(map), window(first, last)?);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let tell = |range: hm_mapped_range| {
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            unsafe { visit(context, &raw const range) != 0 }
        };
        let _ = pass!(map, map => map.ranges(window).map(told).any(tell));
    })
}

/// Stores what is held.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_get_statistics(
    map: *mut hm_range_map,
    to: *mut hm_range_map_statistics,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, map) = (growing!(to), map!(map));
        let held = map.statistics();
        to.write(hm_range_map_statistics {
            size: 0,
            reserved: 0,
            ranges: held.ranges as u64,
            pages: held.pages as u64,
            metadata: held.metadata_bytes as u64,
            abandoned: held.abandoned_bytes as u64,
        });
    })
}
