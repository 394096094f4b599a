//! Finding ranges by address.

use super::{Map, hm_range_map, map, types::*};
use crate::{
    abi::place,
    object::opened,
    status::{HM_OK, HM_UNKNOWN_POINTER, answer, hm_status},
};

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
pub(super) use asked;

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
