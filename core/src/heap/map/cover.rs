//! How entries are changed: leaves that are made or found again, and the granules of slabs that
//! are entered there. The lock of the granules is held.

use super::{
    ADDRESS_SHIFT, Entry, GRANULE_BITS, INSIDE_SHIFT, LEAF, LEAF_BITS, Leaves, Map, SMALL, Slot,
    memory, small,
};
use crate::{
    arena::Arena,
    atomic::{
        self,
        Ordering::{Acquire, Relaxed, Release},
    },
    heap::{
        class::{self, CLASSES, GRANULE},
        error::HeapError,
        slab::{Handle, STATES},
    },
    page::{AddressRange, PageRange, PageSize},
    provider::{Commit, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::ptr::{self, NonNull, null_mut};

impl Map {
    /// Makes the leaves for `len` bytes at `start`, so that [`Map::set`] can be called there, and
    /// keeps record of them in `leaves`.
    ///
    /// # Errors
    ///
    /// Where there is no memory, and where the map does not reach; leaves that were made stay.
    pub(in crate::heap) fn cover<M: PageProvider + Copy, R: RawMutex>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        arena: &Arena<M, R>,
        start: usize,
        len: usize,
    ) -> Result<(), HeapError> {
        let range = AddressRange::from_len(start, len);
        let Some(range) = range.filter(|range| self.addresses().contains_range(*range)) else {
            return Err(HeapError::Memory(ErrorKind::OutsideRange.into()));
        };
        let number = |addr: usize| (addr >> GRANULE_BITS) - self.raw.first;
        let (first, last) = (number(range.start()), number(range.last()));
        self.make_window(provider, leaves, arena, first >> LEAF_BITS);
        for n in first >> LEAF_BITS..=last >> LEAF_BITS {
            let Some(slot) = self.root().slot(n) else {
                return Err(HeapError::Memory(ErrorKind::OutsideRange.into()));
            };
            let window = self.window.entry(self.leaf_start(n));
            if let Some(entry) = window {
                let before = (self.leaf_start(n) - self.window.start.load(Relaxed)) >> GRANULE_BITS;
                let (from, to) = (first.max(n * LEAF), last.min(n * LEAF + LEAF - 1));
                let place = |granule: usize| (before + granule - n * LEAF) * size_of::<Entry>();
                leaves
                    .window
                    .make_writable(provider, place(from)..place(to + 1))
                    .map_err(HeapError::Metadata)?;
                if slot.load(Relaxed).is_null() {
                    self.make_writable(provider, leaves, n)?;
                    // The same entry, by a pointer that may be used for those behind it.
                    let leaf = self
                        .window
                        .entries
                        .load(Relaxed)
                        .with_addr(ptr::from_ref(entry).addr());
                    publish(slot, leaf);
                }
                continue;
            }
            if !slot.load(Relaxed).is_null() {
                continue;
            }
            self.make_writable(provider, leaves, n)?;
            let leaf = self.make_leaf(provider, leaves, arena, n)?;
            publish(slot, leaf.as_ptr());
        }
        Ok(())
    }

    /// Makes the leaf of slot `n`, which is not in the window.
    fn make_leaf<M: PageProvider + Copy, R: RawMutex>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        arena: &Arena<M, R>,
        n: usize,
    ) -> Result<NonNull<Entry>, HeapError> {
        let entries = LEAF.min(self.raw.granules - n * LEAF);
        let bytes = entries * size_of::<Entry>();
        if bytes <= SMALL {
            return small(arena, entries).map_err(HeapError::Metadata);
        }
        leaves.own.make_room(arena)?;
        let leaf = memory(provider, bytes, Commit::READ_WRITE).map_err(HeapError::Metadata)?;
        leaves.own.insert(leaf.addr(), leaf);
        let leaf = leaf.start().cast::<Entry>();
        // SAFETY: committed just now, zeroed, and long enough for `entries`; no other code has its
        // address yet.
        unsafe { atomic::init_zeroed(leaf, entries) };
        Ok(leaf)
    }

    /// Finds again what [`Map::cover`] keeps record of, from the leaves themselves: for a forked
    /// child. `blocks` are the addresses that leaves were made for.
    ///
    /// # Errors
    ///
    /// Where there is no metadata.
    pub(in crate::heap) fn find_leaves<M: PageProvider + Copy, R: RawMutex>(
        &self,
        page: PageSize,
        arena: &Arena<M, R>,
        blocks: impl Iterator<Item = AddressRange>,
    ) -> Result<Leaves, HeapError> {
        let mut leaves = Leaves::new();
        if let Some(window) = self.window() {
            leaves.is_window_made = true;
            let bytes = window.len * size_of::<Entry>();
            let range = PageRange::new(window.entries.cast(), bytes, page);
            if let Some(range) = range.filter(|_| bytes > SMALL) {
                leaves.note(arena, range)?;
                let is_protected = self.window.is_protected.load(Relaxed);
                leaves.window.range = Some(range).filter(|_| is_protected);
            }
        }
        for range in blocks {
            let number = |addr: usize| ((addr >> GRANULE_BITS) - self.raw.first) >> LEAF_BITS;
            for n in number(range.start())..=number(range.last()) {
                let entries = LEAF.min(self.raw.granules - n * LEAF);
                let bytes = entries * size_of::<Entry>();
                let is_own = bytes > SMALL && self.window.entry(self.leaf_start(n)).is_none();
                let leaf = self.root().slot(n).filter(|_| is_own);
                let leaf = leaf.and_then(|slot| NonNull::new(slot.load(Acquire)));
                let leaf = leaf.and_then(|leaf| PageRange::new(leaf.cast(), bytes, page));
                if let Some(leaf) = leaf {
                    leaves.note(arena, leaf)?;
                }
            }
        }
        Ok(leaves)
    }

    /// Returns the address that the first entry of leaf `n` is of.
    pub(super) const fn leaf_start(&self, n: usize) -> usize {
        (self.raw.first + n * LEAF) << GRANULE_BITS
    }

    /// Makes the page of the root writable that has slot `n`, and all between it and those that
    /// are.
    fn make_writable<M: PageProvider>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        n: usize,
    ) -> Result<(), HeapError> {
        leaves.root.range = self.range.filter(|_| self.is_protected);
        let bytes = n * size_of::<Slot>()..(n + 1) * size_of::<Slot>();
        let made = leaves.root.make_writable(provider, bytes);
        made.map_err(HeapError::Metadata)
    }

    /// Says whose the granule at `addr` is, of a block that is found without it as well: if there
    /// is an entry for it, and that can be written, or lies near those that can.
    pub(in crate::heap) fn set_first<M: PageProvider + Copy, R: RawMutex>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        arena: &Arena<M, R>,
        addr: usize,
        slab: Handle,
    ) {
        if self.addresses().contains(addr) {
            let granule = (addr >> GRANULE_BITS) - self.raw.first;
            self.make_window(provider, leaves, arena, granule >> LEAF_BITS);
        }
        if self.window.entry(addr).is_some() {
            let before = (addr - self.window.start.load(Relaxed)) >> GRANULE_BITS;
            let bytes = before * size_of::<Entry>()..(before + 1) * size_of::<Entry>();
            let near = leaves.window.is_near(&bytes);
            if !near || leaves.window.make_writable(provider, bytes).is_err() {
                return;
            }
        }
        self.set(addr, GRANULE, Some(slab));
    }

    /// Takes back what [`Map::set_first`] did, if it did.
    pub(in crate::heap) fn unset_first(&self, addr: usize) {
        if let Some(entry) = self.entry(addr)
            && entry.load(Relaxed) != 0
        {
            entry.store(0, Release);
        }
    }

    /// Says whose the granules in `len` bytes at `start` are. Leaves are there.
    pub(in crate::heap) fn set(&self, start: usize, len: usize, slab: Option<Handle>) {
        for (granule, addr) in (0_u64..).zip((start..start + len).step_by(GRANULE)) {
            let value = slab.map_or(0, |slab| {
                let inside = if slab.class() < CLASSES { granule } else { 0 };
                ((slab.exposed() + STATES) as u64) << ADDRESS_SHIFT
                    | inside << INSIDE_SHIFT
                    | u64::from(class::place(slab.class()))
            });
            if let Some(entry) = self.entry(addr) {
                entry.store(value, Release);
            }
        }
    }

    /// Releases the map's memory.
    ///
    /// # Safety
    ///
    /// `provider` is the one that the map and its leaves came from, `leaves` are all of them, and
    /// the map is not used any more.
    pub(in crate::heap) unsafe fn release<M: PageProvider>(&self, provider: &M, leaves: &Leaves) {
        let leaves = leaves.own.all().iter().map(|(_, leaf)| *leaf);
        for range in leaves.chain(self.range) {
            // SAFETY: reserved by `cover` or by `new`; not used any more, as the caller says. An
            // error has no consequence but that the addresses stay reserved.
            let _ = unsafe { provider.release(range) };
        }
    }
}

/// Enters a leaf, unless a call has entered one that interrupted this one, and forked.
fn publish(slot: &Slot, leaf: *mut Entry) {
    let _ = slot.compare_exchange(null_mut(), leaf, Release, Relaxed);
}
