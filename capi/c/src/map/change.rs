//! Changing a map.

use super::{
    Map, hm_range_map,
    inner::{Inner, Number, pass},
    map, range,
    types::*,
};
use crate::{
    abi::place,
    object::opened,
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use core::ffi::c_void;

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
        tell!(had, pages);
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
        tell!(had, pages);
    })
}

/// Returns what asks `change` what a piece becomes.
pub(super) fn asking(
    change: hm_range_map_change_fn,
    context: *mut c_void,
) -> Result<impl FnMut(&mut hm_mapped_range, bool) -> bool, Fault> {
    let change = change.ok_or(invalid(c"a null function"))?;
    Ok(move |piece: &mut hm_mapped_range, has_value: bool| {
        // SAFETY: the caller in C promises that it may be called so, and does not unwind.
        unsafe { change(context, piece, has_value.into()) != 0 }
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
        let pages = map.rewrite(range, asking(change, context)?)?;
        tell!(had, pages);
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

/// Makes sure that the next change cannot fail for want of memory, if that is a rewrite of this
/// window, however many ranges it holds, or an insertion or a removal.
///
/// Thread-safe; not for signal handlers, unless the map blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_prepare_rewrite(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, range) = (map!(map), range(first, last)?);
        pass!(map, map => map.prepare_rewrite(range)?);
    })
}
