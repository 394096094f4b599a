//! Addresses that belong to the program alone, and what lies in them: the handle, and its life. The
//! calls are in the files below, in the order in which the header has them:
//!
//! | file | what it has |
//! |---|---|
//! | `types` | structs and numbers |
//! | `claim` | where the addresses come from, and where they go |
//! | `map` | mapping and unmapping |
//! | `query` | states of pages, gaps, statistics |

mod claim;
mod map;
mod query;
mod types;

pub(crate) use crate::host::Region;
pub use claim::*;
pub use map::*;
pub use query::*;
pub(crate) use types::purged_of;
pub use types::*;

use crate::{
    abi::{place, read},
    host,
    jit::or,
    object::{self, Kind, List},
    status::{answer, hm_error, hm_status, invalid},
};
use hostmem::{RegionConfig, region::Order};

/// An allocator of addresses: mmap's calls, inside of what it has claimed. Every call on it is
/// thread-safe.
pub struct hm_region {
    _opaque: [u8; 0],
}

impl Kind for Region {
    const MAGIC: u32 = 0x686d_6731;

    fn list() -> &'static List<Self> {
        static ALL: List<Region> = List::new();
        &ALL
    }
}

/// Finds the region of a handle from C.
macro_rules! region {
    ($handle:expr) => {
        opened!(Region, $handle).1
    };
}
use region;

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
            config = config.signals(host::for_regions()?);
        }
        let made = object::open(|| Ok(Region::new(config)?))?;
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
        #[cfg(target_os = "linux")]
        crate::mmap::forget_default(region);
    })
}
