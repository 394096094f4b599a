//! Calls that never wait, for signal handlers: they may have interrupted the holder of any lock.
//!
//! They allocate only from what is free and has memory, where the lock that guards it is open.
//! Their frees are *deferred*: a block goes into a list that leads through the blocks themselves,
//! and that the next call frees which takes a lock anyhow. A link is followed only to a block whose
//! state says that its free is deferred, so that a stray write into one loses the blocks behind it,
//! and no more.

use super::{
    Heap,
    class::{self, CLASSES},
    error::HeapError,
    hardened,
    large::Big,
    shared::{cleared, move_by},
    slab::{CLAIMED, DEFERRED, Entry, FREED, LIVE, ZERO},
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{
    alloc::Layout,
    ptr::{NonNull, null_mut},
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

/// How many classes above the right one may serve where that has no free block.
const LARGER: usize = 8;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Allocates a block without waiting, and without asking the provider: from a
    /// signal handler, whatever it interrupted.
    ///
    /// # Errors
    ///
    /// [`HeapError::Busy`] where nothing is free that the thread that was interrupted, or another
    /// one, does not guard; otherwise those of [`LocalHeap::alloc`](super::LocalHeap::alloc).
    pub fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        self.try_alloc_told(layout).map(|(block, _)| block)
    }

    /// As [`Heap::try_alloc`], and the block reads zero.
    ///
    /// # Errors
    ///
    /// Those of [`Heap::try_alloc`].
    pub fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let told = self.try_alloc_told(layout)?;
        Ok(cleared(told, layout))
    }

    fn try_alloc_told(&self, layout: Layout) -> Result<Big, HeapError> {
        let least = if self.is_hardened() {
            hardened::class_for(layout)
        } else {
            class::of(layout)
        };
        let Some(least) = least else {
            let mut space = self.try_lock_space().ok_or(HeapError::Busy)?;
            return self.alloc_committed(&mut space, layout);
        };
        let fits = |class: &usize| {
            class::size(*class).is_multiple_of(layout.align())
                && (!self.is_hardened() || hardened::can_note(*class, layout.size()))
        };
        for class in (least..CLASSES.min(least + LARGER)).filter(fits) {
            for shard in 0..self.config.shard_count() {
                if let Some(entry) = self.try_take(shard, class) {
                    self.requested.fetch_add(layout.size() as u64, Relaxed);
                    if self.is_hardened() {
                        return self.hand_out(None, entry, class, layout);
                    }
                    let zero = entry.state().load(Relaxed) == ZERO;
                    entry.state().store(LIVE, Release);
                    return Ok((entry.block, zero));
                }
            }
        }
        Err(HeapError::Busy)
    }

    /// Takes a block that is free in a bin, if its lock is open.
    fn try_take(&self, shard: usize, class: usize) -> Option<Entry> {
        let mut bin = self.try_lock_bin(shard, class)?;
        bin.take_lowest(self.page, self.hardened.as_ref(), self.ticks.load(Relaxed))
    }

    /// Frees a block without waiting: from a signal handler, whatever it interrupted.
    /// Its memory serves again after the next call that takes a lock.
    ///
    /// # Errors
    ///
    /// Those of [`LocalHeap::free`](super::LocalHeap::free).
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`](super::LocalHeap::free).
    pub unsafe fn try_free(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        // SAFETY: `try_free_as` asks what this function does: the caller gives the block up, if it
        // is live.
        unsafe { self.try_free_as(block, None) }
    }

    /// As [`Heap::try_free`], of a block whose layout may be known.
    ///
    /// # Safety
    ///
    /// Those of [`Heap::try_free`].
    pub(super) unsafe fn try_free_as(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        let addr = block.addr().get();
        let (slab, entry) = self.live_at(addr)?;
        if self.is_hardened() {
            hardened::check_layout(addr, slab.usable_of(entry), layout)?;
        }
        // Of calls that free it at the same moment, one goes on.
        entry.take_live(CLAIMED)?;
        if self.is_hardened() {
            self.check_seal(slab, entry, slab.usable_of(entry), true)?;
        }
        entry.state().store(DEFERRED, Relaxed);
        let link: NonNull<*mut u8> = entry.block.cast();
        let mut first = self.deferred.load(Relaxed);
        loop {
            // SAFETY: a block of sixteen bytes or more, aligned to as many, that is not used any
            // more.
            unsafe { link.write(first) };
            let new = entry.block.as_ptr();
            match self
                .deferred
                .compare_exchange_weak(first, new, Release, Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(now) => first = now,
            }
        }
    }

    /// Makes a block `new_size` bytes long without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`Heap::try_alloc`] and [`Heap::try_free`]; the block stays as it is then.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::realloc`](super::LocalHeap::realloc).
    pub unsafe fn try_realloc(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        let addr = block.addr().get();
        let new = Layout::from_size_align(new_size, layout.align());
        let new = new.map_err(|_| HeapError::InvalidSize)?;
        let usable = self.usable_size(block);
        let usable = usable.ok_or_else(|| self.refusal(addr))?;
        if self.is_hardened() {
            let (slab, entry) = self.live_at(addr)?;
            self.check_live(slab, entry, layout)?;
        }
        if class::stays(usable, new_size) && !self.is_hardened() {
            return Ok(block);
        }
        let alloc = |new| self.try_alloc(new);
        // SAFETY: the caller gives the block up.
        let free = || unsafe { self.try_free(block) };
        // SAFETY: `move_by` asks for a live block that is as long as `layout` says, which the
        // caller promises and `usable_size` has seen, and an `alloc` that allocates, as `try_alloc`
        // does.
        unsafe { move_by(block, layout, new, alloc, free) }
    }

    /// Frees the blocks whose frees were deferred, if there are any. No lock is held.
    #[inline]
    pub(super) fn take_deferred(&self) {
        if !self.deferred.load(Relaxed).is_null() {
            self.free_deferred();
        }
    }

    #[cold]
    fn free_deferred(&self) {
        let mut next = self.deferred.swap(null_mut(), Acquire).addr();
        while next != 0 {
            let addr = next;
            let found = self.slab_at(addr);
            let Some((slab, entry)) = found.and_then(|s| Some((s, s.deferred(addr)?))) else {
                // A block was written into after it was freed.
                return;
            };
            let link: NonNull<*mut u8> = entry.block.cast();
            // SAFETY: a block of sixteen bytes or more that is free, and this call's alone:
            // its state says that its free is deferred, and the list was taken as a whole.
            next = unsafe { link.read() }.addr();
            if slab.class() < CLASSES {
                entry.state().store(FREED, Relaxed);
                if self.is_hardened() {
                    let free = |class, entry| self.flush(class, &[entry]);
                    let find = |addr| self.map.slab(addr);
                    self.release_hardened(slab, entry, slab.usable_of(entry), find, free);
                } else {
                    self.flush(slab.class(), &[entry]);
                }
            } else {
                self.free_claimed(slab);
            }
        }
    }
}
