//! The page map: which slab has the granule around an address.
//!
//! ```text
//!   address   47 ······· 30 │ 29 ······ 16 │ 15 ····· 0
//!                root       │     leaf     │ in a granule
//!               2 MiB       │  128 KiB     │             of addresses; a page is touched when it is used
//! ```
//!
//! Both levels are read without a lock, for any address, which itself is not touched. Leaves are
//! never taken away before the heap is dropped.

use super::{
    class::GRANULE,
    error::HeapError,
    slab::{Handle, Slab},
};
use crate::{
    page::{PageRange, PageSize},
    provider::{Commit, ErrorKind, PageProvider, Request},
};
use core::{
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicPtr,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Bits of an address that the map tells apart; no host maps above without being asked to.
pub(super) const ADDRESS_BITS: u32 = if usize::BITS < 48 { usize::BITS } else { 48 };

const GRANULE_BITS: u32 = GRANULE.ilog2();
const LEAF_BITS: u32 = if ADDRESS_BITS > 40 { 14 } else { 8 };
const LEAF_SHIFT: u32 = GRANULE_BITS + LEAF_BITS;
const LEAF: usize = 1 << LEAF_BITS;
const ROOT: usize = 1 << (ADDRESS_BITS - LEAF_SHIFT);

type Leaf = [AtomicPtr<Slab>; LEAF];
type Root = [AtomicPtr<Leaf>; ROOT];

/// The map. Whoever holds the lock of the granules may change it.
pub(super) struct Map {
    root: NonNull<Root>,
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
    pub(super) fn new<M: PageProvider>(provider: &M) -> Result<Self, HeapError> {
        let range = memory(provider, size_of::<Root>())?;
        Ok(Self {
            root: range.start().cast(),
            range,
        })
    }

    #[inline]
    pub(super) fn root(&self) -> RootRef<'_> {
        // SAFETY: committed zeroed by `new`, which is an array of null pointers, and only changed through
        // its atomics; released when the heap is dropped, which a borrow of the map keeps from happening.
        RootRef(unsafe { self.root.as_ref() })
    }

    #[inline]
    pub(super) fn slab(&self, addr: usize) -> Option<Handle> {
        self.root().slab(addr)
    }

    /// Makes the leaves for `len` bytes at `start`, so that [`Map::set`] can be called there.
    ///
    /// # Errors
    ///
    /// Where there is no memory; leaves that were made stay.
    pub(super) fn cover<M: PageProvider>(
        &self,
        provider: &M,
        start: usize,
        len: usize,
    ) -> Result<(), HeapError> {
        for n in start >> LEAF_SHIFT..=(start + (len - 1)) >> LEAF_SHIFT {
            let slot = &self.root().0[n];
            if slot.load(Relaxed).is_null() {
                let leaf = memory(provider, size_of::<Leaf>())?;
                slot.store(leaf.start().cast().as_ptr(), Release);
            }
        }
        Ok(())
    }

    /// Says whose the granules in `len` bytes at `start` are. Leaves are there.
    pub(super) fn set(&self, start: usize, len: usize, slab: Option<Handle>) {
        let slab = slab.map_or(null_mut(), Handle::as_ptr);
        for addr in (start..start + len).step_by(GRANULE) {
            if let Some(entry) = self.root().entry(addr) {
                entry.store(slab, Release);
            }
        }
    }

    /// Releases the map's memory.
    ///
    /// # Safety
    ///
    /// `provider` is the one that the map and its leaves came from, and nobody uses the map any more.
    pub(super) unsafe fn release<M: PageProvider>(&self, provider: &M, page: PageSize) {
        for leaf in self.root().0 {
            let range = NonNull::new(leaf.load(Relaxed)).and_then(|leaf| {
                let bytes = page.round_up(size_of::<Leaf>())?;
                PageRange::new(leaf.cast(), bytes, page)
            });
            if let Some(range) = range {
                // SAFETY: reserved by `cover`, rounded up as a request is; not used any more. There is
                // nobody to tell of an error: the addresses stay reserved.
                let _ = unsafe { provider.release(range) };
            }
        }
        // SAFETY: as above, reserved by `new`.
        let _ = unsafe { provider.release(self.range) };
    }
}

/// The root of a map, for readers.
#[derive(Clone, Copy)]
pub(super) struct RootRef<'map>(&'map Root);

impl<'map> RootRef<'map> {
    #[inline]
    fn entry(self, addr: usize) -> Option<&'map AtomicPtr<Slab>> {
        let leaf = NonNull::new(self.0.get(addr >> LEAF_SHIFT)?.load(Acquire))?;
        // SAFETY: as of the root in `Map::root`, of memory from `cover`.
        let leaf = unsafe { leaf.as_ref() };
        Some(&leaf[(addr >> GRANULE_BITS) % LEAF])
    }

    /// Returns whose granule lies around `addr`, any address at all.
    #[inline]
    pub(super) fn slab(self, addr: usize) -> Option<Handle> {
        let slab = self.entry(addr)?.load(Acquire);
        // SAFETY: `set` stores what as_ptr gave, or null; the heap is there, as for entries.
        unsafe { Handle::from_ptr(slab) }
    }

    /// Says whether some slab has the granule around `addr`.
    #[inline]
    pub(super) fn owns(self, addr: usize) -> bool {
        self.entry(addr)
            .is_some_and(|entry| !entry.load(Relaxed).is_null())
    }
}
