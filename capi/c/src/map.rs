//! Range maps: the handle, and its life. The calls
//! are in the files below, in the order in which the header has them:
//!
//! | file | what it has |
//! |---|---|
//! | `types` | structs and functions |
//! | `inner` | the two kinds of maps that a handle may stand for |
//! | `query` | finding ranges by address |
//! | `change` | changing a map |
//! | `handler` | the same without waiting, for signal handlers |
//! | `walk` | gaps, all ranges, statistics |

/// Stores how many pages had a value, unless the caller has no use for it.
macro_rules! tell {
    ($had:expr, $pages:expr) => {
        if !$had.is_null() {
            place!($had).write($pages);
        }
    };
}

mod inner;
mod types;

// The header has the calls in this order, as cbindgen reads the files.
mod query;

mod change;
mod handler;
mod walk;

pub use change::*;
pub use handler::*;
use inner::{Inner, pass};
pub use query::*;
pub use types::*;
pub use walk::*;

use crate::{
    abi::{place, read},
    host,
    jit::or,
    object::{self, Kind, List, Object},
    region::RegionObject,
    source::source,
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use hostmem::{
    fork::ForkChild,
    page::{AddressRange, PageSize},
    provider::Error,
    range_map::RangeMap,
};

/// A map of disjoint ranges of addresses, a guest's for instance, each with a value of 64 bits.
/// Every call on it is thread-safe.
pub struct hm_range_map {
    _opaque: [u8; 0],
}

/// The object behind a handle.
pub(crate) struct Map {
    inner: Inner,
    region: Option<&'static Object<RegionObject>>,
}

impl Map {
    /// # Safety
    ///
    /// This is the only thread of a forked child.
    pub(crate) unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: this is the only thread of a forked child, by this function's condition.
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
use map;

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
        let hook = match from.block_signals {
            0 => None,
            _ => Some(host::for_maps()?),
        };
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
