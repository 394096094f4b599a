//! An ordered map of disjoint address ranges with a small value each.
//!
//! ```text
//!   bounds   ├──────────────────────────────────────────────────────────────┤
//!   ranges     [ 7    )[ 9  )            [ 7 )          [ 4            )
//!   gaps     ──                ──────────     ──────────                ─────
//! ```
//!
//! [`RangeMap`] tracks what lies where, for instance the mappings of a guest, and finds room for
//! more. Changes take a lock; [`RangeMap::query`] and [`RangeMap::next_from`] take none and may
//! interrupt anything, a change on the same thread included. The map describes addresses and
//! touches none.
//!
//! It is a B+ tree of wide nodes, which are copied to be changed: `docs/REGIONS.md` draws it. In
//! the order in which a call passes through them:
//!
//! | module | what it has |
//! |---|---|
//! | `request`, `value` | requests for gaps, statistics; values and their bits |
//! | `query`, `iter` | reading a map, at one address and in order |
//! | `edit` | changing it |
//! | `lock`, `hook` | the lock, and when signals may come in |
//! | `units` | addresses and pages |
//! | `tree` | the tree, and its readers |
//! | `gap` | gaps, and which one is taken |
//! | `change`, `in_place` | a leaf in the place of another, or one word of it |
//! | `rebuild`, `rewrite` | changes of more leaves than one, and of many ranges at once |
//! | `node`, `list` | leaves and inner nodes; short lists of what they have |
//! | `pool` | where nodes come from, and when they serve again |
//! | `fork` | the parts of a map, which a forked child may make anew |

mod change;
mod edit;
mod fork;
mod gap;
mod hook;
mod in_place;
mod iter;
mod list;
mod lock;
mod node;
mod pool;
mod query;
mod rebuild;
mod request;
mod rewrite;
mod tree;
mod units;
mod value;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use change::Pages;
pub(crate) use gap::Wanted;
pub use hook::SignalHook;
pub use iter::{Gaps, Ranges};
pub(crate) use pool::Writer;
pub use request::{GapOrder, GapRequest, Statistics};
pub(crate) use tree::{Path, Tree};
pub use value::Value;

use crate::{
    fork::Renewable,
    page::{AddressRange, PageSize},
    provider::{Error, ErrorKind, PageProvider},
    sync::{RawMutex, Spin},
};
use core::fmt;
use fork::Parts;
use lock::Held;
use units::{to_usize, whole_pages};

/// An ordered map of disjoint address ranges with a value each.
///
/// `M` gives memory for the map's own nodes, `R` says what a waiting thread does.
///
/// # Examples
///
/// ```
/// # fn guest<M: hostmem_core::provider::PageProvider + Copy>(memory: M)
/// #     -> Result<(), hostmem_core::provider::Error> {
/// use hostmem_core::{
///     page::{AddressRange, PageSize},
///     range_map::{GapRequest, RangeMap},
/// };
///
/// let bounds = AddressRange::LOW_4G;
/// let map: RangeMap<u8, _> = RangeMap::on(memory, bounds, PageSize::KIB_4, 16 << 20)?;
/// let gap = map.find_gap(&GapRequest::bytes(8 << 12))?;
/// map.insert_new(gap, 3)?;
/// assert_eq!(map.query(gap.start() + 100), Some((gap, 3)));
/// assert_eq!(map.remove(gap)?, 8);
/// # Ok(())
/// # }
/// ```
pub struct RangeMap<T, M: PageProvider + Copy, R = Spin> {
    parts: Renewable<Parts<T, M, R>>,
    metadata: M,
    max_bytes: usize,
    bounds: AddressRange,
    shift: u32,
    signals: Option<SignalHook>,
}

impl<T: Value, M: PageProvider + Copy + Default, R: RawMutex> RangeMap<T, M, R> {
    /// Makes an empty map with nodes from a provider that needs no arguments, such as an operating
    /// system's.
    ///
    /// # Errors
    ///
    /// The errors of [`RangeMap::on`].
    pub fn new(bounds: AddressRange, page: PageSize, max_bytes: usize) -> Result<Self, Error> {
        Self::on(M::default(), bounds, page, max_bytes)
    }
}

/// Making a map.
impl<T: Value, M: PageProvider + Copy, R: RawMutex> RangeMap<T, M, R> {
    /// Makes an empty map of the addresses in `bounds`, in pages of `page`, which need not be a
    /// host's: with pages of one byte it is a map of any ranges. Its nodes take up to `max_bytes`
    /// from `metadata`, about 16 bytes a range, which are reserved as they are needed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] unless the bounds are whole pages, fewer than half of all
    /// addresses where a page is one byte, and a page ends behind `max_bytes`.
    pub fn on(
        metadata: M,
        bounds: AddressRange,
        page: PageSize,
        max_bytes: usize,
    ) -> Result<Self, Error> {
        let pages = whole_pages(bounds, page).ok_or(ErrorKind::InvalidArgument)?;
        Ok(Self {
            parts: Renewable::new(Parts::new(metadata, pages, max_bytes)?),
            metadata,
            max_bytes,
            bounds,
            shift: page.bytes().trailing_zeros(),
            signals: None,
        })
    }

    /// Sets what keeps signals away from a thread that holds the lock, so that handlers may change
    /// the map, too.
    #[must_use]
    pub fn with_signals(mut self, hook: SignalHook) -> Self {
        self.signals = Some(hook);
        self
    }

    /// Returns the addresses that ranges may have.
    pub const fn bounds(&self) -> AddressRange {
        self.bounds
    }

    /// Returns the size of a page.
    pub fn page_size(&self) -> PageSize {
        PageSize::new(1 << self.shift).expect("it was made of one")
    }
}

impl<T, M: PageProvider + Copy, R> Drop for RangeMap<T, M, R> {
    fn drop(&mut self) {
        self.parts.dispose(&self.metadata);
    }
}

impl<T, M: PageProvider + Copy, R> fmt::Debug for RangeMap<T, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeMap")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
