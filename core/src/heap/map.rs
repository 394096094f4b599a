//! The page map: which slab has the granule around an address.
//!
//! ```text
//!   address   47 ······· 30 │ 29 ······ 16 │ 15 ····· 0
//!                root       │     leaf     │ in a granule
//!               2 MiB       │  128 KiB     │             of addresses; a page is touched when it is used
//! ```
//!
//! An entry has all that a free needs: the class of the slab, which of its granules this is, and the
//! number of its descriptor, behind which the states are. Those who know only an address so need not look
//! at the descriptor, which at a million blocks would seldom be in a cache.
//!
//! Both levels are read without a lock, for any address, which itself is not touched. Leaves are
//! never taken away before the heap is dropped.

use super::{
    class::{self, CLASSES, GRANULE, Kind},
    error::HeapError,
    index::Index,
    slab::{Handle, LIVE, STATES, Slab},
};
use crate::{
    arena::Arena,
    atomic::{
        self, AtomicPtr, AtomicU8, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    page::PageRange,
    provider::{Commit, ErrorKind, PageProvider, Request},
    sync::RawMutex,
};
use core::ptr::NonNull;

/// Bits of an address that the map tells apart; no host maps above without being asked to. Few in the
/// models, where an entry takes a kilobyte.
pub(super) const ADDRESS_BITS: u32 = if cfg!(all(test, loom)) {
    24
} else if usize::BITS < 48 {
    usize::BITS
} else {
    48
};

/// Where the class and one is in an entry.
const CLASS_SHIFT: u32 = 56;

/// Where the granule's number in its slab is.
const INSIDE_SHIFT: u32 = 48;

const GRANULE_BITS: u32 = GRANULE.ilog2();
const LEAF_BITS: u32 = match ADDRESS_BITS {
    41.. => 14,
    32.. => 8,
    _ => 4,
};
const LEAF_SHIFT: u32 = GRANULE_BITS + LEAF_BITS;
const LEAF: usize = 1 << LEAF_BITS;
const ROOT: usize = 1 << (ADDRESS_BITS - LEAF_SHIFT);

/// An entry, from the top: the class and one, 8 bits; the number of the granule in a slab that is of a
/// class, 8; none, 16; the descriptor's number, 32. Zero is nobody's granule.
type Leaf = [AtomicU64; LEAF];
type Root = [AtomicPtr<Leaf>; ROOT];

/// The memory of all leaves that were made, by its address: few, while the root has room for many.
pub(super) type Leaves = Index<PageRange>;

/// The map. Whoever holds the lock of the granules may change it.
pub(super) struct Map {
    root: NonNull<Root>,
    /// What the numbers of descriptors count from.
    base: NonNull<u8>,
    range: PageRange,
}

// SAFETY: the root and the leaves are arrays of atomics, in memory that belongs to the map.
unsafe impl Send for Map {}
// SAFETY: as for Send.
unsafe impl Sync for Map {}

/// Reserves and commits memory of one `T`, zeroed.
fn memory<M: PageProvider>(provider: &M, bytes: usize) -> Result<PageRange, HeapError> {
    let range = provider
        .reserve(&Request::bytes(bytes))
        .map_err(HeapError::Metadata)?;
    // SAFETY: reserved just now, and nobody else's.
    match unsafe { provider.commit(range, Commit::READ_WRITE) } {
        Ok(_) => Ok(range),
        Err(error) => {
            if error.kind() != ErrorKind::RangeLost {
                // SAFETY: as above, and not used yet. There is nobody to tell of an error: the
                // addresses stay reserved.
                let _ = unsafe { provider.release(range) };
            }
            Err(HeapError::Metadata(error))
        }
    }
}

impl Map {
    /// Makes a map of slabs whose descriptors lie in the arena that starts at `base`.
    pub(super) fn new<M: PageProvider>(provider: &M, base: NonNull<u8>) -> Result<Self, HeapError> {
        let range = memory(provider, size_of::<Root>())?;
        let root = range.start().cast::<Root>();
        // SAFETY: committed just now, zeroed.
        unsafe { atomic::init_zeroed(root.cast::<AtomicPtr<Leaf>>(), ROOT) };
        Ok(Self { root, base, range })
    }

    /// Returns where the root lies.
    pub(super) const fn range(&self) -> PageRange {
        self.range
    }

    #[inline]
    pub(super) fn root(&self) -> RootRef<'_> {
        // SAFETY: committed zeroed by `new`, which is an array of null pointers, and only changed through
        // its atomics; released when the heap is dropped, which a borrow of the map keeps from happening.
        let root = unsafe { self.root.as_ref() };
        RootRef {
            root,
            base: self.base,
        }
    }

    #[inline]
    pub(super) fn slab(&self, addr: usize) -> Option<Handle> {
        self.root().slab(addr)
    }

    /// Makes the leaves for `len` bytes at `start`, so that [`Map::set`] can be called there, and keeps
    /// record of them in `leaves`.
    ///
    /// # Errors
    ///
    /// Where there is no memory; leaves that were made stay.
    pub(super) fn cover<M: PageProvider + Copy, R: RawMutex>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        arena: &Arena<M, R>,
        start: usize,
        len: usize,
    ) -> Result<(), HeapError> {
        for n in start >> LEAF_SHIFT..=(start + (len - 1)) >> LEAF_SHIFT {
            let slot = &self.root().root[n];
            if slot.load(Relaxed).is_null() {
                leaves.make_room(arena)?;
                let leaf = memory(provider, size_of::<Leaf>())?;
                leaves.insert(leaf.addr(), leaf);
                let leaf = leaf.start().cast::<Leaf>();
                // SAFETY: committed just now, zeroed.
                unsafe { atomic::init_zeroed(leaf.cast::<AtomicU64>(), LEAF) };
                slot.store(leaf.as_ptr(), Release);
            }
        }
        Ok(())
    }

    /// Says whose the granules in `len` bytes at `start` are. Leaves are there.
    pub(super) fn set(&self, start: usize, len: usize, slab: Option<Handle>) {
        for (granule, addr) in (0_u64..).zip((start..start + len).step_by(GRANULE)) {
            let value = slab.map_or(0, |slab| {
                let inside = if slab.class() < CLASSES { granule } else { 0 };
                (slab.class() as u64 + 1) << CLASS_SHIFT
                    | inside << INSIDE_SHIFT
                    | u64::from(slab.number(self.base))
            });
            if let Some(entry) = self.root().entry(addr) {
                entry.store(value, Release);
            }
        }
    }

    /// Releases the map's memory.
    ///
    /// # Safety
    ///
    /// `provider` is the one that the map and its leaves came from, `leaves` are all of them, and nobody uses
    /// the map any more.
    pub(super) unsafe fn release<M: PageProvider>(&self, provider: &M, leaves: &Leaves) {
        for (_, leaf) in leaves.all() {
            // SAFETY: reserved by `cover`; not used any more. There is nobody to tell of an error: the
            // addresses stay reserved.
            let _ = unsafe { provider.release(*leaf) };
        }
        // SAFETY: as above, reserved by `new`.
        let _ = unsafe { provider.release(self.range) };
    }
}

/// The root of a map, for readers.
#[derive(Clone, Copy)]
pub(super) struct RootRef<'map> {
    root: &'map Root,
    base: NonNull<u8>,
}

/// The root of a map, for readers who know by other means that it is there.
#[derive(Clone, Copy)]
pub(super) struct RawRoot {
    root: NonNull<Root>,
    base: NonNull<u8>,
}

// SAFETY: as for the map: what is there is an array of atomics.
unsafe impl Send for RawRoot {}
// SAFETY: as for Send.
unsafe impl Sync for RawRoot {}

impl RawRoot {
    /// Returns the root.
    ///
    /// # Safety
    ///
    /// The map is there as long as the result.
    #[inline]
    pub(super) unsafe fn get<'map>(self) -> RootRef<'map> {
        RootRef {
            // SAFETY: as of a reference by which this was made, which the caller says would still be good.
            root: unsafe { self.root.as_ref() },
            base: self.base,
        }
    }
}

impl<'map> RootRef<'map> {
    /// Forgets how long the map is there.
    pub(super) fn raw(self) -> RawRoot {
        RawRoot {
            root: NonNull::from(self.root),
            base: self.base,
        }
    }

    #[inline]
    fn entry(self, addr: usize) -> Option<&'map AtomicU64> {
        let leaf = NonNull::new(self.root.get(addr >> LEAF_SHIFT)?.load(Acquire))?;
        // SAFETY: as of the root in `Map::root`, of memory from `cover`.
        let leaf = unsafe { leaf.as_ref() };
        Some(&leaf[(addr >> GRANULE_BITS) % LEAF])
    }

    /// Returns whose granule lies around `addr`, any address at all.
    #[inline]
    pub(super) fn slab(self, addr: usize) -> Option<Handle> {
        let value = self.entry(addr)?.load(Acquire);
        // SAFETY: `set` stores numbers of descriptors with this base, or zero; the heap is there, as
        // for entries.
        unsafe { Handle::numbered(self.base, number(value)) }
    }

    /// Returns the class and the state of the live block that starts at `addr`, any address at all, if
    /// it has a class. Unless `CHECKED`, one is known to start there.
    #[inline]
    pub(super) fn live<const CHECKED: bool>(
        self,
        addr: usize,
    ) -> Option<(usize, NonNull<AtomicU8>)> {
        let value = self.entry(addr)?.load(Acquire);
        let inside = (value >> (INSIDE_SHIFT - GRANULE_BITS)) & (0xff << GRANULE_BITS);
        let offset = usize::try_from(inside).ok()? | (addr % GRANULE);
        let (index, class) = class::divide(offset, kind(value));
        let class = class?;
        let states = number(value) as usize * align_of::<Slab>() + STATES;
        // SAFETY: `set` stored all of the value at once: a class, a granule of a slab of that class, and
        // the number of its descriptor, which keeps its class as long as the heap.
        let first = unsafe { self.base.add(states) }.cast::<AtomicU8>();
        // SAFETY: as above: the index is that of a block, or one more, and there are as many states behind
        // the descriptor.
        let state = unsafe { first.add(index) };
        // SAFETY: as above; states are initialised, and changed by atomics only.
        let is_live = unsafe { state.as_ref() }.load(Relaxed) == LIVE;
        (!CHECKED || is_live).then_some((class, state))
    }

    /// Says whether some slab has the granule around `addr`.
    #[inline]
    pub(super) fn owns(self, addr: usize) -> bool {
        self.entry(addr)
            .is_some_and(|entry| entry.load(Relaxed) != 0)
    }
}

/// Returns the kind of slab in an entry.
#[inline]
const fn kind(value: u64) -> Kind {
    (value >> CLASS_SHIFT) as Kind
}

/// Returns the number of the descriptor in an entry.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is the number"
)]
const fn number(value: u64) -> u32 {
    value as u32
}
