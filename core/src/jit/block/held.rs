//! What the lock of a block's shard guards: the mapping, purged pages, and where granules lie.

use super::{Block, Mode};
use crate::{
    arena::Arena,
    atomic::Ordering,
    jit::{
        bits::{Bits, words_for},
        class, tables,
        tree::Tree,
        views::Views,
    },
    provider::PageProvider,
    sync::RawMutex,
};
use bitvec::{order::Lsb0, slice::BitSlice};
use core::{alloc::Layout, ops::Range, ptr::NonNull};

/// What the lock guards.
pub(in crate::jit) struct Guarded {
    pub(super) views: Option<Views>,
    pub(super) tree: NonNull<[u8]>,
    /// A bit a page of the views: whether it was purged and has no memory.
    pub(super) pages: NonNull<[u64]>,
    /// Pages without memory.
    pub(in crate::jit) purged: usize,
    /// Granule 0 in the executable view.
    pub(super) rx: NonNull<u8>,
    /// Granule 0 in the writable view.
    pub(super) rw: NonNull<u8>,
    pub(super) padding: usize,
    /// Granules; none without views.
    pub(super) count: usize,
    /// The active run, if it is one of this block's; else empty.
    pub(super) active: Range<usize>,
    /// Live spans.
    pub(in crate::jit) spans: usize,
    /// Granules of live spans.
    pub(in crate::jit) used: usize,
    /// Where the block is in its pool.
    pub(in crate::jit) slot: usize,
    /// Whether it is the empty block that is kept.
    pub(in crate::jit) kept: bool,
    /// Whether the block was never mapped, so that its bits are all zero.
    pub(in crate::jit) fresh: bool,
    /// The next unmapped block.
    pub(in crate::jit) next: Option<NonNull<Block>>,
}

/// A block whose shard is locked.
pub(in crate::jit) struct Held<'a> {
    pub(in crate::jit) at: NonNull<Block>,
    pub(in crate::jit) block: &'a Block,
    pub(in crate::jit) guarded: &'a mut Guarded,
}

impl Held<'_> {
    /// Takes `views` over, all free behind `padding` bytes.
    pub(in crate::jit) fn map(&mut self, views: Views, padding: usize) {
        let (block, guarded) = (self.block, &mut *self.guarded);
        guarded.count = (views.len_bytes() - padding) >> block.shift;
        assert!(
            guarded.count <= block.capacity(),
            "the bitmaps were made for a block of this length"
        );
        guarded.padding = padding;
        // SAFETY: the padding is shorter than a view.
        guarded.rx = unsafe { views.rx().start().add(padding) };
        // SAFETY: the padding is shorter than a view, and both views are equally long.
        guarded.rw = unsafe { views.rw().start().add(padding) };
        block.rx.store(guarded.rx.as_ptr(), Ordering::Relaxed);
        block.rw.store(guarded.rw.as_ptr(), Ordering::Relaxed);
        let extent = guarded.count << block.shift;
        block.extent.store(extent, Ordering::Relaxed);
        guarded.views = Some(views);
        block.set_mode(Mode::Open);
        if core::mem::take(&mut guarded.fresh) {
            // All is zero, and what is not touched takes no memory.
            return self.begin();
        }
        block
            .seen()
            .iter()
            .for_each(|w| w.store(0, Ordering::Relaxed));
        self.forget_purged();
        self.empty(false);
    }

    #[inline]
    pub(super) fn pages(&mut self) -> &mut BitSlice<u64, Lsb0> {
        // SAFETY: the slice lives in the arena, as long as the block does, and belongs to it alone;
        // the exclusive borrow of self makes this the only reference.
        BitSlice::from_slice_mut(unsafe { self.guarded.pages.as_mut() })
    }

    /// Notes whether pages of the views were purged, where spans may be granted there again.
    pub(in crate::jit) fn note_purged(&mut self, pages: Range<usize>, purged: bool) {
        if self.block.lone {
            return;
        }
        let part = &mut self.pages()[pages];
        let before = part.count_ones();
        part.fill(purged);
        let after = if purged { part.len() } else { 0 };
        self.guarded.purged = self.guarded.purged + after - before;
    }

    /// Notes that all pages have memory: they are new.
    pub(in crate::jit) fn forget_purged(&mut self) {
        if self.guarded.purged != 0 {
            self.pages().fill(false);
            self.guarded.purged = 0;
        }
    }

    /// Returns the first run of purged pages among these.
    pub(in crate::jit) fn purged_among(&mut self, pages: Range<usize>) -> Option<Range<usize>> {
        let start = pages.start;
        let part = &self.pages()[pages];
        let first = part.first_one()?;
        let len = part[first..].first_zero().unwrap_or(part.len() - first);
        Some(start + first..start + first + len)
    }

    /// Returns the bytes of the views that granules take.
    pub(in crate::jit) const fn bytes_of(&self, granules: &Range<usize>) -> Range<usize> {
        let (padding, shift) = (self.guarded.padding, self.block.shift);
        padding + (granules.start << shift)..padding + (granules.end << shift)
    }

    /// Makes everything free. What was never touched stays so, unless most of it was in use.
    pub(in crate::jit) fn empty(&mut self, dense: bool) {
        self.bits().clear(dense);
        self.tree().clear();
        self.begin();
    }

    /// Makes all of a block one free run, whose bits are all zero.
    fn begin(&mut self) {
        (self.guarded.spans, self.guarded.used) = (0, 0);
        self.guarded.active = 0..0;
        self.bits().begin();
        let class = class::of_run(self.guarded.count);
        self.tree().set(0, class);
    }

    /// Gives all of the block back to the arena.
    ///
    /// # Safety
    ///
    /// The block came from [`Block::make`] of this arena, and no code has a pointer to it that is
    /// used afterwards.
    pub(in crate::jit) unsafe fn free<P: PageProvider + Copy, R: RawMutex>(
        self,
        arena: &Arena<P, R>,
    ) {
        let (at, words, tree) = (self.at, self.block.words, self.guarded.tree);
        let pages = self.guarded.pages;
        // SAFETY: from this arena by make, and no other code uses it afterwards, by this function's
        // `# Safety`.
        unsafe { tables::free(arena, words) };
        // SAFETY: from this arena by make, and no other code uses it afterwards, by this function's
        // `# Safety`.
        unsafe { tables::free(arena, tree) };
        // SAFETY: from this arena by make, and no other code uses it afterwards, by this function's
        // `# Safety`.
        unsafe { tables::free(arena, pages) };
        // SAFETY: make allocated the block from this arena with the layout of its type, and no
        // pointer to it is used afterwards, by this function's `# Safety`.
        unsafe { arena.free(at.cast(), Layout::new::<Block>()) };
    }

    /// Gives the mapping up.
    pub(in crate::jit) const fn take_views(&mut self) -> Option<Views> {
        self.guarded.views.take()
    }

    /// Forgets the granules, after the mapping is gone for good.
    pub(in crate::jit) fn forget_granules(&mut self) {
        self.guarded.count = 0;
        self.guarded.active = 0..0;
        self.block.extent.store(0, Ordering::Relaxed);
    }

    /// Puts a mapping of the same ranges in place of the one given up, and keeps the spans.
    pub(in crate::jit) fn put_views(&mut self, views: Views) {
        self.guarded.views = Some(views);
    }

    /// Returns the mapping.
    pub(in crate::jit) const fn views(&self) -> Option<&Views> {
        self.guarded.views.as_ref()
    }

    /// Returns the bitmaps.
    #[inline]
    pub(in crate::jit) fn bits(&self) -> Bits<'_> {
        self.block.bits(self.guarded.count)
    }

    #[inline]
    pub(super) fn tree(&mut self) -> Tree<'_> {
        // SAFETY: the slice lives in the arena, as long as the block does, and belongs to it alone;
        // the exclusive borrow of self makes this the only reference.
        let bytes = unsafe { self.guarded.tree.as_mut() };
        Tree::new(bytes, words_for(self.guarded.count))
    }

    /// Returns bytes of each view.
    pub(in crate::jit) fn len_bytes(&self) -> usize {
        self.guarded.views.as_ref().map_or(0, Views::len_bytes)
    }

    /// Returns how many granules `bytes` bytes take, which are not none.
    #[inline]
    pub(in crate::jit) const fn granules_for(&self, bytes: usize) -> usize {
        ((bytes - 1) >> self.block.shift) + 1
    }

    /// Returns the granules of the block.
    #[inline]
    pub(in crate::jit) const fn count(&self) -> usize {
        self.guarded.count
    }

    /// Returns the start of a granule in the executable view.
    #[inline]
    pub(in crate::jit) fn rx(&self, granule: usize) -> NonNull<u8> {
        debug_assert!(granule < self.guarded.count, "granules lie in their block");
        // SAFETY: `count` granules fill the view behind the padding, so this is inside it.
        unsafe { self.guarded.rx.add(granule << self.block.shift) }
    }

    /// Returns the start of a granule in the writable view.
    #[inline]
    pub(in crate::jit) fn rw(&self, granule: usize) -> NonNull<u8> {
        debug_assert!(granule < self.guarded.count, "granules lie in their block");
        // SAFETY: `count` granules fill the view behind the padding, so this is inside it.
        unsafe { self.guarded.rw.add(granule << self.block.shift) }
    }

    /// Returns the address of a granule, or of where the last one ends.
    pub(in crate::jit) fn address_of(&self, granule: usize) -> Option<usize> {
        let offset = granule.min(self.guarded.count) << self.block.shift;
        self.guarded.rx.addr().get().checked_add(offset)
    }

    /// Clears what all live spans carry, before they go.
    pub(in crate::jit) fn clear_tags(&self) {
        if self.block.tags.is_empty() {
            return;
        }
        let bits = self.bits();
        for word in 0..bits.words() {
            let (starts, _) = bits.starts_in(word);
            for bit in BitSlice::<u64, Lsb0>::from_element(&starts).iter_ones() {
                self.block.tags.clear(word * 64 + bit);
            }
        }
    }

    /// Returns the granule at `addr` and whether it starts there; `None` for an address that is
    /// none of the block's.
    #[inline]
    pub(in crate::jit) fn granule_at(&self, addr: usize) -> Option<(usize, bool)> {
        let offset = addr.checked_sub(self.guarded.rx.addr().get())?;
        let granule = offset >> self.block.shift;
        let starts = granule << self.block.shift == offset;
        (granule < self.guarded.count).then_some((granule, starts))
    }

    /// Returns the bytes of each view of a block whose mapping was taken.
    pub(in crate::jit) const fn lost_bytes(&self) -> usize {
        self.guarded.padding + (self.guarded.count << self.block.shift)
    }
}
