//! Gaps, all ranges, statistics.

use super::{
    Map, hm_range_map,
    inner::{Inner, pass, told},
    map,
    query::asked,
    types::*,
};
use crate::{
    abi::{growing, place, tell_each},
    object::opened,
    region::{HM_ORDER_HIGHEST, HM_ORDER_LOWEST, HM_ORDER_RECENT, hm_gap, hm_order},
    status::{HM_OK, HM_UNKNOWN_POINTER, answer, hm_error, hm_status, invalid},
    types::window,
};
use core::ffi::c_void;
use hostmem::range_map::{GapOrder, GapRequest};

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
            HM_ORDER_LOWEST => GapOrder::Lowest,
            HM_ORDER_HIGHEST => GapOrder::Highest,
            HM_ORDER_RECENT => GapOrder::Nearest(near),
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
        pass!(map, map => {
            let ranges = map.ranges(window).map(told);
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            unsafe { tell_each(ranges, visit, context) };
        });
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
