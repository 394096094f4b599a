//! The calls of a hardened heap: what is checked and written as a block is handed out, resized or
//! freed.

use super::{
    CANARY_LEAST, HEAD, Hardened, PATTERN, fill, is_all, is_clean, mark_free, take_canary,
};
use crate::{
    heap::{
        Heap,
        class::{self, CLASSES, GRANULE},
        error::{BlockAddr, HeapError},
        large::Big,
        slab::{CLAIMED, CORRUPT, Entry, FREED, Handle, LIVE, Notes, ZERO},
    },
    provider::PageProvider,
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    hint::cold_path,
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, Release},
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    #[inline]
    pub(in crate::heap) const fn is_hardened(&self) -> bool {
        self.hardened.is_some()
    }

    /// Returns what is kept of blocks.
    pub(in crate::heap) const fn notes(&self) -> Notes {
        match &self.hardened {
            None => Notes::None,
            Some(hardened) if hardened.is_full() => Notes::Canaries,
            Some(_) => Notes::Asked,
        }
    }

    #[inline]
    pub(in crate::heap) const fn is_full(&self) -> bool {
        match &self.hardened {
            Some(hardened) => hardened.is_full(),
            None => false,
        }
    }

    /// Allocates a block, and says whether it reads zero.
    #[cold]
    pub(in crate::heap) fn alloc_hardened(
        &self,
        shard: usize,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        let Some(class) = class_for(layout) else {
            return self.alloc_big_sealed(layout);
        };
        let entry = self.take_one(shard, class)?;
        self.hand_out(None, entry, class, layout)
    }

    /// Allocates a block without a class, and says whether it reads zero.
    pub(in crate::heap) fn alloc_big_sealed(&self, layout: Layout) -> Result<Big, HeapError> {
        let (block, zero) = self.alloc_big_or_reclaim(layout)?;
        if let (Some(hardened), Some(slab)) = (&self.hardened, self.slab_at(block.addr().get())) {
            seal(hardened, slab, slab.only(), layout.size());
        }
        Ok((block, zero))
    }

    /// Makes a block live that was taken from its slab, and says whether it reads zero. `slab` is
    /// that, if it is known.
    ///
    /// # Errors
    ///
    /// [`HeapError::WriteAfterFree`] where it was written into meanwhile.
    #[inline]
    pub(in crate::heap) fn hand_out(
        &self,
        slab: Option<Handle>,
        entry: Entry,
        class: usize,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        let addr = entry.block.addr().get();
        let zero = entry.state().load(Relaxed) == ZERO;
        let slab = slab
            .or_else(|| self.slab_at(addr))
            .ok_or(HeapError::NotOwned)?;
        let hardened = self.hardened.as_ref().ok_or(HeapError::Internal)?;
        if !is_intact(hardened, entry.block, class::size(class), zero) {
            self.retire(entry);
            return Err(HeapError::WriteAfterFree(BlockAddr::new(addr)));
        }
        seal(hardened, slab, entry, layout.size());
        entry.state().store(LIVE, Release);
        Ok((entry.block, zero))
    }

    /// Frees a block by a call without a handle, or says why not.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`](crate::heap::LocalHeap::free).
    #[cold]
    pub(in crate::heap) unsafe fn free_hardened_by(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        let find = |addr| self.slab_at(addr);
        let give = |class, entry| self.flush(class, &[entry]);
        // SAFETY: `free_hardened` asks what this function does: the caller gives the block up, if
        // it is live.
        unsafe { self.free_hardened(block, find, layout, give) }
    }

    /// Frees a block, or says why not, and tells `give` of blocks to bring back: this one, or those
    /// that have waited. `find` is the caller's quickest way to the slab around an address, which
    /// need not know those of huge blocks.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`](crate::heap::LocalHeap::free).
    #[inline]
    pub(in crate::heap) unsafe fn free_hardened(
        &self,
        block: NonNull<u8>,
        find: impl Fn(usize) -> Option<Handle>,
        layout: Option<Layout>,
        give: impl FnMut(usize, Entry),
    ) -> Result<(), HeapError> {
        let addr = block.addr().get();
        let found = find(addr).and_then(|slab| Some((slab, slab.live(addr)?)));
        let (slab, entry) = match found {
            Some(found) => found,
            None => self.live_at(addr)?,
        };
        check_layout(addr, slab.usable_of(entry), layout)?;
        if slab.class() >= CLASSES {
            if !self.claim_big(slab, addr) {
                return Err(HeapError::NotLive);
            }
            self.check_seal(slab, entry, slab.usable_of(entry), true)?;
            self.free_claimed(slab);
            return Ok(());
        }
        if self.is_full() {
            // One of two that free it at the same moment.
            entry.take_live(CLAIMED)?;
            if find(addr) != Some(slab) {
                // It was freed since it was looked up, and its descriptor is that of other blocks
                // now.
                entry.state().store(LIVE, Release);
                return Err(HeapError::NotLive);
            }
        }
        // Not before: it may have been another's until it was taken.
        let asked = slab.usable_of(entry);
        self.check_seal(slab, entry, asked, true)?;
        entry.state().store(FREED, Relaxed);
        self.release_hardened(slab, entry, asked, find, give);
        Ok(())
    }

    /// Marks the contents of a block of a class, whose state is that of a free one, and of which so
    /// much was asked for, and has it wait; tells `give` of blocks to bring back: this one, or
    /// those that have waited.
    #[inline]
    pub(in crate::heap) fn release_hardened(
        &self,
        slab: Handle,
        entry: Entry,
        asked: usize,
        find: impl Fn(usize) -> Option<Handle>,
        mut give: impl FnMut(usize, Entry),
    ) {
        if self.is_full() {
            // SAFETY: a block that is free, and that its slab does not hand out before it is
            // brought back.
            unsafe { fill(entry.block, slab.block_bytes()) };
            self.wait(slab, entry, find, give);
        } else {
            // SAFETY: a block that is free, and that its slab does not hand out before it is
            // brought back; all blocks of classes have room for a canary.
            unsafe { mark_free(entry.block, asked) };
            give(slab.class(), entry);
        }
    }

    /// Marks the contents of the free blocks of a slab that do not read zero.
    pub(in crate::heap) fn fill_slab(&self, start: NonNull<u8>, class: usize) {
        if self.is_full() {
            // SAFETY: committed granules that were taken just now.
            unsafe { fill(start, class::granules(class) * GRANULE) };
            return;
        }
        for n in 0..class::blocks(class) {
            // SAFETY: a block of the slab.
            let block = unsafe { start.add(n * class::size(class)) };
            // SAFETY: inside committed granules that were taken just now; every block is as long as
            // the head.
            unsafe { fill(block, HEAD) };
        }
    }

    /// Resizes a live block where it lies, or returns the layout of the block to move to.
    pub(in crate::heap) fn resize_hardened(
        &self,
        slab: Handle,
        entry: Entry,
        old: Layout,
        new: Layout,
    ) -> Result<Option<Layout>, HeapError> {
        let before = self.check_live(slab, entry, old)?;
        let (size, asked) = (slab.block_bytes(), new.size());
        let is_half = asked > size / 2;
        let stays = if slab.class() < CLASSES {
            can_note(slab.class(), asked) && (is_half || class_for(new) == Some(slab.class()))
        } else {
            asked <= size && is_half
        };
        if stays && let Some(hardened) = &self.hardened {
            if hardened.seals.is_some() && slab.class() < CLASSES {
                // SAFETY: a block of a class with a canary behind what was asked for.
                unsafe { take_canary(entry.block, before) };
            }
            seal(hardened, slab, entry, asked);
        }
        Ok((!stays).then_some(new))
    }

    /// Returns what was asked for of a live block, if it was by this layout, and nothing was
    /// written behind.
    pub(in crate::heap) fn check_live(
        &self,
        slab: Handle,
        entry: Entry,
        layout: Layout,
    ) -> Result<usize, HeapError> {
        let asked = slab.usable_of(entry);
        check_layout(entry.block.addr().get(), asked, Some(layout))?;
        self.check_seal(slab, entry, asked, false)?;
        Ok(asked)
    }

    /// Says that a block's user has written more than was asked for; if so, retires it if `dead`.
    #[inline]
    pub(in crate::heap) fn check_seal(
        &self,
        slab: Handle,
        entry: Entry,
        asked: usize,
        dead: bool,
    ) -> Result<(), HeapError> {
        let Some(hardened) = &self.hardened else {
            return Ok(());
        };
        // SAFETY: `seal` wrote it when the block was made live.
        if unsafe { hardened.tail(slab, entry, asked).is_intact() } {
            return Ok(());
        }
        cold_path();
        if dead {
            self.retire(entry);
        }
        Err(HeapError::Overflow(BlockAddr::new(
            entry.block.addr().get(),
        )))
    }

    /// Keeps a corrupt block from being used again, for as long as the heap lives.
    #[cold]
    fn retire(&self, entry: Entry) {
        entry.state().store(CORRUPT, Relaxed);
        if let Some(hardened) = &self.hardened {
            hardened.corrupt.fetch_add(1, Relaxed);
        }
    }
}

/// Says whether a free block of a size, which is the calling thread's, is as it was when it was
/// freed, or reads zero.
#[inline]
pub(super) fn is_intact(hardened: &Hardened, block: NonNull<u8>, size: usize, zero: bool) -> bool {
    if hardened.is_full() {
        let expected = if zero { 0 } else { PATTERN };
        // SAFETY: all of it was filled when it was freed, or the host gave it zeroed; sizes are
        // whole steps.
        return unsafe { is_all(block, size, expected) };
    }
    // SAFETY: the block is free, and the caller has taken it from its slab, so that it is this
    // thread's.
    unsafe { is_clean(block) }
}

/// Notes what was asked for, and writes the canary behind.
#[inline]
fn seal(hardened: &Hardened, slab: Handle, entry: Entry, asked: usize) {
    slab.set_asked(entry, asked);
    // SAFETY: `Tail::write` asks for a block that is live or this thread's: callers resize a live
    // one, or have taken a free one from its slab.
    unsafe { hardened.tail(slab, entry, asked).write() };
}

/// Compares a layout with what was asked for.
#[inline]
pub(in crate::heap) fn check_layout(
    addr: usize,
    asked: usize,
    layout: Option<Layout>,
) -> Result<(), HeapError> {
    let Some(layout) = layout else {
        return Ok(());
    };
    // The alignment is not kept, but the address tells of some that they were not asked for.
    if asked == layout.size() && addr & (layout.align() - 1) == 0 {
        return Ok(());
    }
    Err(HeapError::WrongLayout(BlockAddr::new(addr)))
}

/// Returns the class for a block and its canary.
#[inline]
pub(in crate::heap) fn class_for(layout: Layout) -> Option<usize> {
    let size = layout.size().checked_add(CANARY_LEAST)?;
    let wanted = Layout::from_size_align(size, layout.align()).ok()?;
    if let Some(class) = class::quick(wanted) {
        return Some(class);
    }
    let class = class::of(wanted)?;
    if can_note(class, layout.size()) {
        return Some(class);
    }
    // A few bytes with a great alignment: a class of which more can be noted.
    class::of(Layout::from_size_align(class::BYTE_MAX + 1, layout.align()).ok()?)
}

/// Says whether a block of a class has room for what is asked for and a canary, and that can be
/// noted.
pub(in crate::heap) const fn can_note(class: usize, asked: usize) -> bool {
    let most = if class::size(class) <= class::BYTE_MAX {
        u8::MAX as usize
    } else {
        u16::MAX as usize
    };
    match class::size(class).checked_sub(asked.saturating_add(CANARY_LEAST)) {
        Some(slack) => slack <= most,
        None => false,
    }
}
