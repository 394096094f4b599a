//! The calls of a heap for threads without a handle, and what all calls share.

use super::{
    Heap,
    class::{self, CLASSES, GRANULE},
    error::HeapError,
    large::Big,
    slab::{Entry, FREED, Handle, LIVE, ZERO},
};
use crate::{
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, Release},
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Allocates a block; its contents are undefined. This and the other calls of the heap take a
    /// lock each; those of a [`LocalHeap`](super::LocalHeap) seldom do.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::alloc`](super::LocalHeap::alloc).
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        self.alloc_told(layout).map(|(block, _)| block)
    }

    /// Allocates a block that reads zero.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::alloc`](super::LocalHeap::alloc).
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let told = self.alloc_told(layout)?;
        Ok(cleared(told, layout))
    }

    /// Allocates a block, and says whether it reads zero.
    fn alloc_told(&self, layout: Layout) -> Result<Big, HeapError> {
        self.maintain();
        self.requested.fetch_add(layout.size() as u64, Relaxed);
        if self.is_hardened() {
            return self.alloc_hardened(0, layout);
        }
        let Some(class) = class::of(layout) else {
            return self.alloc_big_or_reclaim(layout);
        };
        let entry = self.take_one(0, class)?;
        let zero = entry.state().load(Relaxed) == ZERO;
        entry.state().store(LIVE, Release);
        Ok((entry.block, zero))
    }

    /// Takes a block of a class from a bin.
    pub(super) fn take_one(&self, shard: usize, class: usize) -> Result<Entry, HeapError> {
        let mut found = None;
        let mut take = |entry| found = Some(entry);
        if let Err(error) = self.refill(shard, class, 1, &mut take) {
            if !self.reclaim(error) {
                return Err(error);
            }
            self.refill(shard, class, 1, &mut take)?;
        }
        found.ok_or(HeapError::Internal)
    }

    pub(super) fn alloc_big_or_reclaim(&self, layout: Layout) -> Result<Big, HeapError> {
        self.alloc_big(layout).or_else(|error| {
            if self.reclaim(error) {
                self.alloc_big(layout)
            } else {
                Err(error)
            }
        })
    }

    /// Frees a block.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::free`](super::LocalHeap::free).
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`](super::LocalHeap::free).
    pub unsafe fn free(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        // SAFETY: `free_as` asks what this function does: the caller gives the block up, if it is
        // live.
        unsafe { self.free_as(block, None) }
    }

    /// Frees a block whose layout may be known, which is looked at if the heap is hardened.
    ///
    /// # Safety
    ///
    /// Those of [`Heap::free`].
    pub(super) unsafe fn free_as(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        self.maintain();
        if self.is_hardened() {
            // SAFETY: `free_hardened_by` asks what this function does: the caller gives the block
            // up, if it is live.
            return unsafe { self.free_hardened_by(block, layout) };
        }
        let addr = block.addr().get();
        if let Some(slab) = self.slab_at(addr)
            && let Some(entry) = slab.live(addr)
            && slab.class() < CLASSES
        {
            entry.take_live(FREED)?;
            self.flush(slab.class(), &[entry]);
            return Ok(());
        }
        // SAFETY: `free_big_or_refuse` asks what this function does: the caller gives the block up,
        // if it is live.
        unsafe { self.free_big_or_refuse(addr) }
    }

    /// Frees a block whose layout is known.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::free`](super::LocalHeap::free).
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free_sized`](super::LocalHeap::free_sized).
    pub unsafe fn free_sized(&self, block: NonNull<u8>, layout: Layout) -> Result<(), HeapError> {
        // SAFETY: `free_as` asks what this function does: the caller gives the block up, if it is
        // live, and the layout is its own.
        unsafe { self.free_as(block, Some(layout)) }
    }

    /// Makes a block `new_size` bytes long, where it lies or elsewhere; its contents stay, as far
    /// as they fit.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::realloc`](super::LocalHeap::realloc).
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::realloc`](super::LocalHeap::realloc).
    pub unsafe fn realloc(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        let alloc = |new| self.alloc(new);
        // SAFETY: the caller gives the block up.
        let free = || unsafe { self.free(block) };
        // SAFETY: `realloc_by` asks what this function does: if the block is live, it has this
        // layout and is not used during the call; `alloc` returns a block that only this call
        // knows.
        unsafe { self.realloc_by(block, layout, new_size, alloc, free) }
    }

    /// Makes a block `new_size` bytes long, where it lies or by another one from `alloc`; then
    /// `free` frees it.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::realloc`](super::LocalHeap::realloc); `alloc` returns a live block of
    /// the layout that it is given, and is the only one to know it.
    pub(super) unsafe fn realloc_by(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
        alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, HeapError>,
        free: impl FnOnce() -> Result<(), HeapError>,
    ) -> Result<NonNull<u8>, HeapError> {
        let kept = self.resize_in_place(block, layout, new_size)?;
        let Some(new) = kept else {
            return Ok(block);
        };
        if !self.is_hardened() && new.size() > layout.size() && class::of(new).is_none() {
            // SAFETY: `grow_by` asks for a live block of this layout that is not used during the
            // call: `resize_in_place` has seen the one, and the caller says the other.
            return unsafe { self.grow_by(block, layout, new, free) };
        }
        let target = if self.is_hardened() {
            new
        } else {
            class::with_slack(layout.size(), new)
        };
        // SAFETY: `move_by` asks for a live block that is as long as `layout` says and is not used
        // during the call: `resize_in_place` has seen that it is live. A block of `target` is as
        // long as one of `new`, or longer.
        unsafe { move_by(block, layout, new, |_| alloc(target), free) }
    }

    /// Returns how many bytes of the live block that starts at `block` may be used; `None` where
    /// none does.
    #[inline]
    #[must_use]
    pub fn usable_size(&self, block: NonNull<u8>) -> Option<usize> {
        let addr = block.addr().get();
        let info = self.live_around(addr)?;
        (info.addr == addr).then_some(info.len)
    }

    /// Frees a block without a class, or says why there is none.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`](super::LocalHeap::free).
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn free_big_or_refuse(&self, addr: usize) -> Result<(), HeapError> {
        match self.slab_at(addr) {
            Some(slab) if slab.live(addr).is_some() && slab.class() >= CLASSES => {
                self.free_big(slab, addr)
            }
            _ => Err(self.refusal(addr)),
        }
    }

    /// Finds the live block that starts at `addr`, or says why there is none.
    pub(super) fn live_at(&self, addr: usize) -> Result<(Handle, Entry), HeapError> {
        let slab = self.slab_at(addr);
        let found = slab.and_then(|slab| Some((slab, slab.live(addr)?)));
        found.ok_or_else(|| self.refusal(addr))
    }

    /// Says why no live block starts at `addr`.
    pub(super) fn refusal(&self, addr: usize) -> HeapError {
        match self.slab_at(addr) {
            None => HeapError::NotOwned,
            Some(slab) if slab.around(addr).is_some() => HeapError::Interior,
            Some(_) => HeapError::NotLive,
        }
    }

    /// Resizes a block where it lies if that is possible and does not waste; else returns the
    /// layout of the block to move to.
    pub(super) fn resize_in_place(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<Option<Layout>, HeapError> {
        let addr = block.addr().get();
        let new = Layout::from_size_align(new_size, layout.align());
        let new = new.map_err(|_| HeapError::InvalidSize)?;
        let (slab, entry) = self.live_at(addr)?;
        if self.is_hardened() {
            return self.resize_hardened(slab, entry, layout, new);
        }
        let stays = if slab.class() < CLASSES {
            class::stays(slab.block_bytes(), new_size) || class::of(new) == Some(slab.class())
        } else {
            self.resize_big(slab, new_size)
        };
        Ok((!stays).then_some(new))
    }

    /// Gets memory back that is not in use, after `error`; says whether it is worth another try.
    #[cold]
    pub(super) fn reclaim(&self, error: HeapError) -> bool {
        let is_short = |error: Error| error.kind() == ErrorKind::Exhausted;
        match error {
            HeapError::Memory(error) if is_short(error) => {
                self.trim();
                let mut space = self.lock_space();
                self.drop_headroom(&mut space);
                self.decommit_longest(&mut space);
                true
            }
            // Metadata may come from the same few addresses as blocks, unless it is at its own
            // bound.
            HeapError::Metadata(error)
                if is_short(error)
                    && self.arena().reserved_bytes() + GRANULE <= self.arena().max_bytes() =>
            {
                let before = self.lock_space().gauges.reserved;
                self.trim();
                let mut space = self.lock_space();
                space.gauges.reserved < before
                    || self.drop_headroom(&mut space)
                    || self.release_some(&mut space)
            }
            _ => false,
        }
    }
}

/// Moves a block to one from `alloc` that is as `new` says; then `free` frees it.
///
/// # Safety
///
/// Those of [`Heap::realloc_by`].
pub(super) unsafe fn move_by(
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
    alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, HeapError>,
    free: impl FnOnce() -> Result<(), HeapError>,
) -> Result<NonNull<u8>, HeapError> {
    let target = alloc(new)?;
    let len = old.size().min(new.size());
    // SAFETY: len bytes of both, as their layouts say. They are two live blocks, so they share no
    // byte.
    unsafe { target.copy_from_nonoverlapping(block, len) };
    free()?;
    Ok(target)
}

/// Clears a block that does not read zero.
#[inline]
pub(super) fn cleared((block, zero): Big, layout: Layout) -> NonNull<u8> {
    if !zero {
        // SAFETY: a block of at least this size, which is the caller's alone.
        unsafe { block.write_bytes(0, layout.size()) };
    }
    block
}
