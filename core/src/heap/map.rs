//! The page map: which slab has the granule around an address.
//!
//! ```text
//!   granule of an address, less the first one that the provider can give
//!   31 ········· 14 │ 13 ········ 0
//!        root       │     leaf          128 KiB for each GiB of addresses that ever had a block
//!
//!   addresses that the provider can give    root                        leaves
//!   any, and memory is not short            2 MiB, read-only where      a reservation each
//!                                           no leaf is entered
//!   any, and memory is short                4 KiB, in the arena: the    a reservation each
//!                                           512 GiB around the first
//!   a window, an array                      as long as needed           no longer than needed
//! ```
//!
//! An entry has all that a free needs: the class of the slab, as the place of its magazine in a
//! cache, which of its granules this is, and where its states lie, before which the descriptor is.
//! Those who know only an address so need not look at the descriptor, which at a million blocks
//! would seldom be in a cache.
//!
//! ```text
//!   63 ························· 16 │ 15 ··········· 12 │ 11 ················ 0
//!    address of the states          │ granule in a slab │ place of a magazine   zero: no slab
//! ```
//!
//! Both levels are read without a lock, for any address, which itself is not touched. Leaves are
//! never taken away before the heap is dropped.
//!
//! Leaves around the first block lie side by side, in the *window*: who has an address there finds
//! its entry by a subtraction, as quick calls do. A thread whose blocks lie elsewhere, since others
//! have reserved many addresses in between, takes the leaf there for its window.
//!
//! ```text
//!   root     │ . │ . │ ▪ │ ▪ │ ▪ │ ▪ │ . │ ▪ │   window: 64 leaves or fewer
//!                      │   │   │   │       └──────────► ┌──────┐
//!                      ▼   ▼   ▼   ▼                    │ leaf │
//!   window           │ leaf│ leaf│ leaf│ leaf│          └──────┘
//! ```
//!
//! A huge block has an entry for its first granule, where that can be written without much ado: so
//! it is found as quickly as others by where it starts. What lies behind that only the index of
//! huge blocks tells.
//!
//! Root and window are committed readable as a whole, and made writable where leaves are entered,
//! or entries are set: one range of their pages each, which grows. So a process that locks its
//! memory holds no more of it than it uses, since untouched private pages that can only be read are
//! all the same page of zeros.
//!
//! A reader goes from `window` or `root` to an entry, and to `value`; a slab is entered by `cover`.
//!
//! | room | what it has |
//! |---|---|
//! | `window` | the leaves that a subtraction finds |
//! | `root` | the way to all other leaves |
//! | `value` | what an entry says of the granule, its slab and a block |
//! | `cover` | how leaves are made, and slabs are entered |
//! | `memory` | the memory of root, window and leaves |

mod cover;
mod memory;
mod root;
mod value;
mod window;

#[cfg(all(test, not(loom), target_pointer_width = "64"))]
mod tests;

pub(super) use memory::Leaves;
use memory::{memory, reserve_readable, small};
pub(super) use root::{RawRoot, RootRef};
use value::{ADDRESS_SHIFT, INSIDE_SHIFT, kind, offset, state, states};
pub(super) use value::{fits, has_place, live, live_quick, quick_place, slab};
pub(super) use window::RawWindow;
use window::Window;

use super::{
    class::{self, GRANULE},
    error::HeapError,
    slab::{Handle, STATES},
};
use crate::{
    arena::Arena,
    atomic::{
        self, AtomicPtr, AtomicU8, AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
    page::{AddressRange, PageRange},
    provider::{PageProvider, Request, reserve_ahead},
    sync::RawMutex,
};
use core::ptr::NonNull;

/// Bits of addresses that one map tells apart; no host maps above without being asked to. Few in
/// the models, where an entry takes a kilobyte, and under Miri, which looks through all of the map
/// at every call.
const ADDRESS_BITS: u32 = if cfg!(all(test, loom)) {
    24
} else if cfg!(miri) {
    32
} else if usize::BITS < 48 {
    usize::BITS
} else {
    48
};

const GRANULE_BITS: u32 = GRANULE.ilog2();

const LEAF_BITS: u32 = match ADDRESS_BITS {
    41.. => 14,
    32.. => 8,
    _ => 4,
};

/// Entries of a leaf, but for the last of a window.
const LEAF: usize = 1 << LEAF_BITS;

/// Granules that a map tells apart at most.
const MOST: usize = 1 << (ADDRESS_BITS - GRANULE_BITS);

/// Bytes of a root or a leaf that lies in the arena, at most.
const SMALL: usize = if cfg!(all(test, loom)) {
    usize::MAX
} else {
    4096
};

/// Granules that a map tells apart with a root of [`SMALL`] bytes.
const FEW: usize = if cfg!(all(test, loom)) {
    MOST
} else {
    SMALL / size_of::<usize>() * LEAF
};

pub(super) type Entry = AtomicU64;

type Slot = AtomicPtr<Entry>;

/// The map. The holder of the lock of the granules may change it.
pub(super) struct Map {
    raw: RawRoot,
    /// The root, if it is a reservation.
    range: Option<PageRange>,
    /// Whether pages of it must be made writable.
    is_protected: bool,
    window: Window,
}

/// Where an address lies in the slab of a class.
pub(super) struct Spot {
    pub(super) slab: Handle,
    pub(super) class: usize,
    /// Where the slab begins.
    pub(super) start: usize,
    /// The number of the block, or how many there are for what is left over behind them.
    pub(super) index: usize,
    /// The state of the block, or the one more.
    pub(super) state: NonNull<AtomicU8>,
}

impl Map {
    /// Makes a map of the addresses that `pages` can give.
    ///
    /// # Errors
    ///
    /// Where there is no memory for its root.
    pub(super) fn new<P: PageProvider, M: PageProvider + Copy, R: RawMutex>(
        pages: &P,
        metadata: &M,
        arena: &Arena<M, R>,
    ) -> Result<Self, HeapError> {
        let all = pages.addresses();
        let first = all.start() >> GRANULE_BITS;
        let count = (all.last() >> GRANULE_BITS) - first;
        let mut granules = count.saturating_add(1).min(MOST);
        let mut first = first;
        let bytes = |granules: usize| granules.div_ceil(LEAF) * size_of::<Slot>();
        if reserve_ahead(metadata, SMALL, bytes(granules)) < bytes(granules) {
            (first, granules) = few_around(pages, first, granules)?;
        }
        let slots = granules.div_ceil(LEAF);
        let raw = |root| RawRoot {
            root,
            first,
            granules,
        };
        if bytes(granules) <= SMALL {
            let root = small(arena, slots).map_err(HeapError::Metadata)?;
            return Ok(Self {
                raw: raw(root),
                range: None,
                is_protected: false,
                window: Window::none(),
            });
        }
        let (range, is_protected) =
            reserve_readable(metadata, bytes(granules)).map_err(HeapError::Metadata)?;
        let root = range.start().cast::<Slot>();
        // SAFETY: committed just now, zeroed; models have small roots only.
        unsafe { atomic::init_zeroed(root, slots) };
        Ok(Self {
            raw: raw(root),
            range: Some(range),
            is_protected,
            window: Window::none(),
        })
    }

    /// Returns where the root lies, if it is a reservation.
    pub(super) const fn range(&self) -> Option<PageRange> {
        self.range
    }

    #[inline]
    pub(super) fn root(&self) -> RootRef<'_> {
        // SAFETY: the root is released when the heap is dropped, which a borrow of the map keeps
        // from happening.
        unsafe { self.raw.get() }
    }

    #[inline]
    fn entry(&self, addr: usize) -> Option<&Entry> {
        match self.window.entry(addr) {
            Some(entry) => Some(entry),
            None => self.root().entry(addr),
        }
    }

    /// Returns whose granule lies around `addr`, any address at all.
    #[inline]
    pub(super) fn slab(&self, addr: usize) -> Option<Handle> {
        let value = self.entry(addr)?.load(Acquire);
        // SAFETY: a value of this map, whose descriptor stays as long as the heap, which has the
        // map.
        unsafe { slab(value) }
    }

    /// Returns the slab of a class that has the granule around `addr`, any address at all, where it
    /// begins, and the number of its block there.
    #[inline]
    pub(super) fn block(&self, addr: usize) -> Option<Spot> {
        let value = self.entry(addr)?.load(Acquire);
        let kind = kind(value);
        let class = class::of_kind(kind)?;
        let offset = offset(value, addr);
        let (index, _) = class::index(offset, class::reciprocal(class));
        // SAFETY: `set` stored the value, of a class, so that it has the address of a descriptor's
        // states; descriptors stay as long as the heap, which has the map.
        let slab = unsafe { Handle::from_exposed_unchecked(states(value) - STATES) };
        // SAFETY: there is a state for each number of a block in the granules of a slab, and one
        // more.
        let state = unsafe { state(value, index) };
        Some(Spot {
            slab,
            class,
            start: addr.wrapping_sub(offset),
            index,
            state,
        })
    }

    /// Says whether some slab has the granule around `addr`.
    #[inline]
    pub(super) fn owns(&self, addr: usize) -> bool {
        self.entry(addr)
            .is_some_and(|entry| entry.load(Relaxed) != 0)
    }

    /// Returns the addresses that the map tells apart.
    pub(super) fn addresses(&self) -> AddressRange {
        let start = self.raw.first << GRANULE_BITS;
        let len = self.raw.granules << GRANULE_BITS;
        // The last may be the last that there is.
        let last = start.wrapping_add(len).wrapping_sub(1);
        AddressRange::new(start, last).unwrap_or(AddressRange::ALL)
    }
}

/// Returns the first granule of a map of fewer, around where `pages` gives addresses now, and how
/// many they are.
fn few_around<P: PageProvider>(
    pages: &P,
    first: usize,
    granules: usize,
) -> Result<(usize, usize), HeapError> {
    let few = granules.min(FEW);
    let request = Request::bytes(GRANULE).align(GRANULE);
    let range = pages.reserve(&request).map_err(HeapError::Memory)?;
    // SAFETY: reserved just now, and no other code has its address yet. An error has no consequence
    // but that the addresses stay reserved.
    let _ = unsafe { pages.release(range) };
    // In the middle of a leaf, so that a short region needs but one.
    let around = (range.addr() >> GRANULE_BITS).saturating_sub(few / 2 + LEAF / 2);
    Ok((around.clamp(first, first + (granules - few)), few))
}
