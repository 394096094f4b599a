//! Queries of a region: states of pages, gaps, statistics.

use super::{RegionObject, hm_region, region, types::*};
use crate::{
    abi::{growing, place, tell_each},
    object::opened,
    status::{HM_OK, HM_UNKNOWN_POINTER, answer, hm_error, hm_status, invalid},
    types::window,
};
use core::ffi::c_void;

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
        let ranges = region.ranges(window(first, last)?);
        let told = ranges.map(|range| hm_region_range::of(&range));
        // SAFETY: the caller in C promises that it may be called so, and does not unwind.
        unsafe { tell_each(told, visit, context) };
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
            Some(gap) => drop(to.write(hm_gap::of(gap))),
            None => found = HM_UNKNOWN_POINTER,
        }
    });
    if asked == HM_OK { found } else { asked }
}

/// Tells `visit` of the free pieces of a window, in order; `last` may be 0 for no bound. The lock
/// is taken for each anew, so that `visit` may map there, or find that another thread has.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_gaps(
    region: *mut hm_region,
    first: usize,
    last: usize,
    visit: hm_gap_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let told = region.gaps(window(first, last)?).map(hm_gap::of);
        // SAFETY: the caller in C promises that it may be called so, and does not unwind.
        unsafe { tell_each(told, visit, context) };
    })
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
