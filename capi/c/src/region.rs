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

pub use claim::*;
pub use map::*;
pub use query::*;
pub(crate) use types::purged_of;
pub use types::*;

use crate::{
    abi::{place, read},
    host::{self, HostLock},
    jit::or,
    object::{self, Kind, List, Object},
    source::{Source, source},
    status::{answer, hm_error, hm_status, invalid},
};
use core::{ops::Deref, ptr};
use hostmem::{
    RegionConfig,
    region::{Order, RegionAllocator},
};

/// An allocator of addresses: mmap's calls, inside of what it has claimed. Every call on it is
/// thread-safe.
pub struct hm_region {
    _opaque: [u8; 0],
}

pub(crate) type Region = RegionAllocator<Source, Source, HostLock>;

/// The object behind a handle.
pub(crate) struct RegionObject {
    region: Region,
    /// What it is made on.
    on: Source,
    /// The region that it is made in.
    outer: Option<&'static Object<RegionObject>>,
    /// How many regions there are around it.
    depth: usize,
    /// Whether its memory is the host's, rather than that of a provider of the program's own.
    is_hosts: bool,
}

impl Deref for RegionObject {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.region
    }
}

impl RegionObject {
    /// Says whether it is made on the host itself, whose addresses it may claim.
    fn may_claim(&self) -> bool {
        matches!(self.on, Source::Os(_))
    }

    /// Says whether its memory is the host's, rather than that of a provider of the program's own.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_hosts(&self) -> bool {
        self.is_hosts
    }

    /// Calls `f` with all regions, each after the one that it is made in.
    pub(crate) fn for_each(mut f: impl FnMut(&'static Region)) {
        let mut depth = Some(0);
        while let Some(this) = depth {
            depth = None;
            Self::list().find(|_, found| {
                if found.depth == this {
                    f(&found.region);
                }
                if found.depth > this {
                    depth = Some(this + 1);
                }
                None::<()>
            });
        }
    }
}

impl Kind for RegionObject {
    const MAGIC: u32 = 0x686d_6731;

    fn list() -> &'static List<Self> {
        static ALL: List<RegionObject> = List::new();
        &ALL
    }
}

/// Finds the region of a handle from C.
macro_rules! region {
    ($handle:expr) => {
        opened!(RegionObject, $handle).1
    };
}
use region;

/// Makes a region without addresses: it passes everything on to its source, the host by default,
/// until it adopts some. A null configuration stands for the defaults.
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
        let (on, outer) = source!(from.source);
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
        let around = outer.and_then(|outer| {
            RegionObject::list().find(|object, found| ptr::eq(object, outer).then_some(found))
        });
        let made = object::open(|| {
            Ok(RegionObject {
                region: Region::on(on, on.for_metadata(), config)?,
                on,
                outer,
                depth: around.map_or(0, |around| around.depth + 1),
                is_hosts: around.map_or(!on.is_foreign(), |around| around.is_hosts),
            })
        })?;
        if let Some(outer) = outer {
            outer.enter();
        }
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
        let end = |region: RegionObject| {
            let outer = region.outer;
            drop(region);
            if let Some(outer) = outer {
                outer.leave();
            }
        };
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<RegionObject, _>(region, false, end)? };
        #[cfg(target_os = "linux")]
        crate::mmap::forget_default(region);
    })
}
