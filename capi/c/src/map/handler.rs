//! Changes of a map for signal handlers, which never wait.

use super::{
    Map,
    change::asking,
    hm_range_map,
    inner::{Inner, Number, pass},
    map, range,
    types::*,
};
use crate::{
    abi::place,
    object::opened,
    status::{Fault, HM_BUSY, answer, hm_error, hm_status},
};
use core::ffi::c_void;

const BUSY: Fault = Fault::Plain(HM_BUSY, c"the map is being changed");

/// Gives a range a value as `hm_range_map_insert` does, without waiting. Returns `HM_BUSY` where
/// the thread that was interrupted, or another one, is changing the map. Nothing changed then.
///
/// Thread-safe, and safe in signal handlers, whatever they interrupt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_try_insert(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    value: u64,
    had: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, range) = (map!(map), range(first, last)?);
        let done = pass!(map, map => map.try_insert(range, Number(value)));
        let pages = done.ok_or(BUSY)??;
        tell!(had, pages);
    })
}

/// Gives a range a value as `hm_range_map_insert_new` does, without waiting. Returns `HM_BUSY` as
/// `hm_range_map_try_insert` does.
///
/// Thread-safe, and safe in signal handlers, whatever they interrupt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_try_insert_new(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    value: u64,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, range) = (map!(map), range(first, last)?);
        let done = pass!(map, map => map.try_insert_new(range, Number(value)));
        done.ok_or(BUSY)??;
    })
}

/// Takes a range away as `hm_range_map_remove` does, without waiting. Returns `HM_BUSY` as
/// `hm_range_map_try_insert` does.
///
/// Thread-safe, and safe in signal handlers, whatever they interrupt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_try_remove(
    map: *mut hm_range_map,
    first: usize,
    last: usize,
    had: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (map, range) = (map!(map), range(first, last)?);
        let done = pass!(map, map => map.try_remove(range));
        let pages = done.ok_or(BUSY)??;
        tell!(had, pages);
    })
}

/// Changes what lies in a window as `hm_range_map_rewrite` does, without waiting. Returns `HM_BUSY`
/// as `hm_range_map_try_insert` does; `change` was not called then.
///
/// Thread-safe, and safe in signal handlers, whatever they interrupt, if `change` is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_range_map_try_rewrite(
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
        let done = map.try_rewrite(range, asking(change, context)?);
        let pages = done.ok_or(BUSY)??;
        tell!(had, pages);
    })
}
