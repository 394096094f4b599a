//! One mapping, cut into granules.
//!
//! ```text
//!          padding  granule 0    1          2
//!   rx ──► ┌───────┬──────────┬──────────┬──────────┬─ ─
//!          │       │ span A              │ span B   │
//!   rw ──► └───────┴──────────┴──────────┴──────────┴─ ─      the same pages
//! ```
//!
//! The padding, one granule unless the configuration has none, keeps the first byte of a mapping
//! from being anybody's code: a call through a pointer to the mapping itself, or one that ran off
//! the page before, hits nothing.
//!
//! Above the bitmaps stands a [`Tree`] with one member a word of 64 granules: the class of the
//! longest free run that *starts* in that word. Finding the lowest run that is long enough is a
//! descent through the tree and a look at one word. One long run of a pool, the active one, is left
//! out: requests that find nothing before it take its first granules, and touch no tree.

use super::{
    bits::{Bits, masks, words_for},
    class,
    span::SpanInfo,
    tables,
    tag::Tags,
    tree::Tree,
    views::Views,
};
use crate::{
    arch,
    arena::Arena,
    atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    page::{AddressRange, PageSize},
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use bitvec::{order::Lsb0, slice::BitSlice};
use core::{
    alloc::Layout,
    cell::UnsafeCell,
    ops::Range,
    ptr::{NonNull, null_mut},
    sync::atomic::AtomicU8,
};

/// What may be done with a block. Only forked children have any but open ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    /// Everything.
    Open,
    /// Spans may be written and released, but their granules are not given out again: the parent
    /// shares the pages, and may have given them out itself.
    Shared,
    /// As shared, and not to be written: there is no writable view.
    ReadOnly,
    /// As read-only, and not to be unmapped: the addresses of a view are somebody else's now.
    Orphan,
}

/// Words of 64 granules looked at for a run whose class does not promise that it fits, before a new
/// block is mapped instead: bounds the cost of an allocation among many runs slightly too short.
const TRIES: usize = 32;

/// What a long run has at least beyond a request, in granules, to become the active one.
const LONG: usize = 64;

/// Where a span is wanted, and how long.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// Granules.
    pub(super) need: usize,
    /// A power of two.
    pub(super) align: usize,
    pub(super) within: AddressRange,
}

/// What a look at some words of a block found.
pub(super) enum Placed {
    /// Granules, taken.
    Here(Range<usize>),
    /// None up to this word.
    Behind(usize),
    /// None.
    Nowhere,
}

/// What a block is for, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    /// The shard whose lock guards the block.
    pub(super) shard: usize,
    /// The pool of that shard.
    pub(super) pool: usize,
    /// Bytes of a granule, as a power of two.
    pub(super) shift: u32,
    /// Whether the block serves the span alone that it was made for.
    pub(super) lone: bool,
}

/// A block. It belongs to one shard for ever, and lives as long as the arena.
pub(super) struct Block {
    /// The shard whose lock guards the rest.
    pub(super) shard: usize,
    /// The pool of that shard.
    pub(super) pool: usize,
    /// Bytes of a granule, as a power of two.
    pub(super) shift: u32,
    /// Whether the block serves the span alone that it was made for: its granules are longer than
    /// those of its pool.
    lone: bool,
    /// The bitmaps, and behind them the seen bits.
    words: NonNull<[AtomicU64]>,
    /// The seen bits: granules that code was ever published in.
    seen: NonNull<[AtomicU64]>,
    /// What spans carry.
    pub(super) tags: Tags,
    /// Granule 0 in the executable view.
    rx: AtomicPtr<u8>,
    /// Granule 0 in the writable view.
    rw: AtomicPtr<u8>,
    /// Bytes of the granules; none without views.
    extent: AtomicUsize,
    mode: AtomicU8,
    guarded: UnsafeCell<Guarded>,
}

/// What the lock guards.
pub(super) struct Guarded {
    views: Option<Views>,
    tree: NonNull<[u8]>,
    /// A bit a page of the views: whether it was purged and has no memory.
    pages: NonNull<[u64]>,
    /// Pages without memory.
    pub(super) purged: usize,
    /// Granule 0 in the executable view.
    rx: NonNull<u8>,
    /// Granule 0 in the writable view.
    rw: NonNull<u8>,
    padding: usize,
    /// Granules; none without views.
    count: usize,
    /// The active run, if it is one of this block's; else empty.
    active: Range<usize>,
    /// Live spans.
    pub(super) spans: usize,
    /// Granules of live spans.
    pub(super) used: usize,
    /// Where the block is in its pool.
    pub(super) slot: usize,
    /// Whether it is the empty block that is kept.
    pub(super) kept: bool,
    /// Whether the block was never mapped, so that its bits are all zero.
    pub(super) fresh: bool,
    /// The next unmapped block.
    pub(super) next: Option<NonNull<Block>>,
}

impl Block {
    /// Returns how many words a block of `count` granules takes, and how many bytes its tree.
    pub(super) const fn metadata_for(count: usize) -> (usize, usize) {
        let words = words_for(count);
        (Bits::words_for(count) + words, Tree::bytes_for(words))
    }

    /// Returns how many words it takes to note the purged pages of a block of `count` granules of
    /// `1 << shift` bytes.
    const fn page_words_for(count: usize, shift: u32, page: PageSize) -> usize {
        // A granule of padding, and what is left of one.
        let bytes = (count + 2) << shift;
        words_for(bytes.div_ceil(page.bytes()))
    }

    /// Makes a block without mapping for at most `capacity` granules, in pages of `page`, in an
    /// arena. Where that fails, `tags` are the caller's still.
    pub(super) fn make<P: PageProvider + Copy, R: RawMutex>(
        arena: &Arena<P, R>,
        home: Home,
        capacity: usize,
        page: PageSize,
        tags: Tags,
    ) -> Result<NonNull<Self>, Error> {
        let (words, bytes) = Self::metadata_for(capacity);
        let words = tables::zeroed(arena, words)?;
        let tree = tables::zeroed(arena, bytes).inspect_err(|_| {
            // SAFETY: allocated just now, and used by no other code.
            unsafe { tables::free(arena, words) };
        })?;
        // What a lone block has beside its span is never granted again.
        let pages = if home.lone {
            Ok(NonNull::slice_from_raw_parts(NonNull::dangling(), 0))
        } else {
            tables::zeroed(arena, Self::page_words_for(capacity, home.shift, page))
        };
        let pages = pages.inspect_err(|_| {
            // SAFETY: allocated just now, and used by no other code.
            unsafe { tables::free(arena, words) };
            // SAFETY: as above.
            unsafe { tables::free(arena, tree) };
        })?;
        let mut block = Self::unmapped(home, words, tree, pages, capacity);
        block.tags = tags;
        arena.alloc_value(block).inspect_err(|_| {
            // SAFETY: as above; the block that pointed there is gone.
            unsafe { tables::free(arena, words) };
            // SAFETY: as above.
            unsafe { tables::free(arena, tree) };
            // SAFETY: as above.
            unsafe { tables::free(arena, pages) };
        })
    }

    /// Makes a block without mapping for at most `capacity` granules, with as much metadata as
    /// [`Block::metadata_for`] and [`Block::page_words_for`] say, all zero, for ever.
    pub(super) fn unmapped(
        home: Home,
        words: NonNull<[AtomicU64]>,
        tree: NonNull<[u8]>,
        pages: NonNull<[u64]>,
        capacity: usize,
    ) -> Self {
        let seen = words.len() - words_for(capacity);
        // SAFETY: the seen words are the last of the slice.
        let first = unsafe { words.cast::<AtomicU64>().add(seen) };
        Self {
            shard: home.shard,
            pool: home.pool,
            shift: home.shift,
            lone: home.lone,
            words,
            seen: NonNull::slice_from_raw_parts(first, words_for(capacity)),
            tags: Tags::NONE,
            rx: AtomicPtr::new(null_mut()),
            rw: AtomicPtr::new(null_mut()),
            extent: AtomicUsize::new(0),
            mode: AtomicU8::new(Mode::Open as u8),
            guarded: UnsafeCell::new(Guarded {
                views: None,
                tree,
                pages,
                purged: 0,
                rx: NonNull::dangling(),
                rw: NonNull::dangling(),
                padding: 0,
                count: 0,
                active: 0..0,
                spans: 0,
                used: 0,
                slot: 0,
                kept: false,
                fresh: true,
                next: None,
            }),
        }
    }

    /// Returns what the block is for.
    pub(super) const fn home(&self) -> Home {
        Home {
            shard: self.shard,
            pool: self.pool,
            shift: self.shift,
            lone: self.lone,
        }
    }

    /// Returns what may be done with the block.
    #[inline]
    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Relaxed) {
            0 => Mode::Open,
            1 => Mode::Shared,
            2 => Mode::ReadOnly,
            _ => Mode::Orphan,
        }
    }

    /// Sets what may be done with the block.
    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Says whether spans can be written.
    #[inline]
    pub(super) fn writable(&self) -> bool {
        matches!(self.mode(), Mode::Open | Mode::Shared)
    }

    /// Says whether an address is one of the block's. It is for every live span of this process; a
    /// fork may have taken the block of a span away.
    #[inline]
    pub(super) fn covers(&self, addr: usize) -> bool {
        let rx = self.rx.load(Ordering::Relaxed);
        addr.wrapping_sub(rx.addr()) < self.extent.load(Ordering::Relaxed)
    }

    /// Begins to fetch what the span at an address carries, or one that starts shortly before.
    #[inline]
    pub(super) fn prefetch_tags(&self, addr: usize) {
        self.tags.prefetch(self.granule_of(addr));
    }

    /// Begins to fetch what a release at an address needs.
    #[inline]
    pub(super) fn prefetch(&self, addr: usize) {
        let word = self.granule_of(addr) / 64;
        // SAFETY: as in bits.
        let words = unsafe { self.words.as_ref() };
        if let Some(used) = words.get(2 * word) {
            arch::prefetch(used);
        }
    }

    /// Returns the granule of an address in the executable view.
    #[inline]
    pub(super) fn granule_of(&self, addr: usize) -> usize {
        let offset = addr.wrapping_sub(self.rx.load(Ordering::Relaxed).addr());
        offset >> (self.shift & (usize::BITS - 1))
    }

    /// Returns the pointer to an address of the executable view.
    #[inline]
    pub(super) fn executable(&self, addr: usize) -> *const u8 {
        let rx = self.rx.load(Ordering::Relaxed);
        rx.wrapping_add(addr.wrapping_sub(rx.addr()))
    }

    /// Returns the addresses of the first granule and behind the last one, in the executable view.
    pub(super) fn range(&self) -> (usize, usize) {
        let start = self.rx.load(Ordering::Relaxed).addr();
        (start, start + self.extent.load(Ordering::Relaxed))
    }

    /// Finds the live span around an address, without the lock. What is found while the block is
    /// being mapped or unmapped means nothing.
    #[inline]
    pub(super) fn span_around(&self, addr: usize) -> Option<SpanInfo> {
        let (rx, rw) = (
            self.rx.load(Ordering::Relaxed),
            self.rw.load(Ordering::Relaxed),
        );
        let offset = addr.wrapping_sub(rx.addr());
        if offset >= self.extent.load(Ordering::Relaxed) {
            return None;
        }
        let shift = self.shift & (usize::BITS - 1);
        let span = self.bits(self.capacity()).span_around(offset >> shift)?;
        let start = span.start << shift;
        // Only computed here, hence wrapping: whoever follows the pointers knows the span is live.
        Some(SpanInfo {
            rx: NonNull::new(rx.wrapping_add(start))?,
            rw: NonNull::new(rw.wrapping_add(start))?,
            len: span.len() << shift,
        })
    }

    /// Returns the bitmaps, of which the first `count` granules are in use.
    #[inline]
    fn bits(&self, count: usize) -> Bits<'_> {
        // SAFETY: initialised when the block was made, changed only through its atomics, and alive
        // as long as the arena, as the block itself is.
        Bits::new(unsafe { self.words.as_ref() }, count, self.seen.len())
    }

    /// Returns how many granules the block has metadata for.
    #[inline]
    pub(super) const fn capacity(&self) -> usize {
        self.seen.len() * u64::BITS as usize
    }

    #[inline]
    fn seen(&self) -> &[AtomicU64] {
        // SAFETY: initialised when the block was made, changed only through its atomics, and alive
        // as long as the arena, as the block itself is.
        unsafe { self.seen.as_ref() }
    }

    /// Notes that code is published in `len` bytes at `addr` of the executable view, of which the
    /// caller owns every granule; says whether there was any before.
    #[inline]
    pub(super) fn note_published(&self, addr: usize, len: usize) -> bool {
        let offset = addr - self.rx.load(Ordering::Relaxed).addr();
        let shift = self.shift & (usize::BITS - 1);
        let (first, last) = (offset >> shift, (offset + len - 1) >> shift);
        if first / 64 == last / 64
            && let Some(slot) = self.seen().get(first / 64)
        {
            let mask = (u64::MAX << (first % 64)) & (u64::MAX >> (63 - last % 64));
            let old = slot.load(Ordering::Relaxed);
            if old & mask != mask {
                // Others publish in other granules of the same word meanwhile.
                slot.fetch_or(mask, Ordering::Relaxed);
            }
            return old & mask != 0;
        }
        let granules = first..last + 1;
        let mut reused = false;
        for (word, mask) in masks(granules) {
            let slot = &self.seen()[word];
            let old = slot.load(Ordering::Relaxed);
            if old & mask != mask {
                // Others publish in other granules of the same word meanwhile.
                slot.fetch_or(mask, Ordering::Relaxed);
            }
            reused |= old & mask != 0;
        }
        reused
    }

    /// Reaches what the lock guards.
    ///
    /// # Safety
    ///
    /// The block lives in an arena that outlives `'a`, the caller holds the lock of the block's
    /// shard throughout `'a`, and lets no other [`Held`] of the same block live meanwhile.
    #[inline]
    pub(super) unsafe fn held<'a>(at: NonNull<Self>) -> Held<'a> {
        // SAFETY: the block lives, by the caller's promise; shared references to it are allowed,
        // since what the lock guards is in a cell.
        let block = unsafe { at.as_ref() };
        // SAFETY: the lock makes this the only reference into the cell, by the caller's promise.
        let guarded = unsafe { &mut *block.guarded.get() };
        Held { at, block, guarded }
    }
}

/// A block whose shard is locked.
pub(super) struct Held<'a> {
    pub(super) at: NonNull<Block>,
    pub(super) block: &'a Block,
    pub(super) guarded: &'a mut Guarded,
}

impl Held<'_> {
    /// Takes `views` over, all free behind `padding` bytes.
    pub(super) fn map(&mut self, views: Views, padding: usize) {
        let (block, guarded) = (self.block, &mut *self.guarded);
        guarded.count = (views.len_bytes() - padding) >> block.shift;
        assert!(
            guarded.count <= block.capacity(),
            "the bitmaps were made for a block of this length"
        );
        guarded.padding = padding;
        // SAFETY: the padding is shorter than a view.
        guarded.rx = unsafe { views.rx().start().add(padding) };
        // SAFETY: as above.
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
    fn pages(&mut self) -> &mut BitSlice<u64, Lsb0> {
        // SAFETY: the slice lives in the arena, as long as the block does, and belongs to it alone;
        // the exclusive borrow of self makes this the only reference.
        BitSlice::from_slice_mut(unsafe { self.guarded.pages.as_mut() })
    }

    /// Notes whether pages of the views were purged, where spans may be granted there again.
    pub(super) fn note_purged(&mut self, pages: Range<usize>, purged: bool) {
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
    pub(super) fn forget_purged(&mut self) {
        if self.guarded.purged != 0 {
            self.pages().fill(false);
            self.guarded.purged = 0;
        }
    }

    /// Returns the first run of purged pages among these.
    pub(super) fn purged_among(&mut self, pages: Range<usize>) -> Option<Range<usize>> {
        let start = pages.start;
        let part = &self.pages()[pages];
        let first = part.first_one()?;
        let len = part[first..].first_zero().unwrap_or(part.len() - first);
        Some(start + first..start + first + len)
    }

    /// Returns the bytes of the views that granules take.
    pub(super) const fn bytes_of(&self, granules: &Range<usize>) -> Range<usize> {
        let (padding, shift) = (self.guarded.padding, self.block.shift);
        padding + (granules.start << shift)..padding + (granules.end << shift)
    }

    /// Makes everything free. What was never touched stays so, unless most of it was in use.
    pub(super) fn empty(&mut self, dense: bool) {
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
    /// The block came from [`Block::make`] of this arena, and nobody has a pointer to it that is
    /// used afterwards.
    pub(super) unsafe fn free<P: PageProvider + Copy, R: RawMutex>(self, arena: &Arena<P, R>) {
        let (at, words, tree) = (self.at, self.block.words, self.guarded.tree);
        let pages = self.guarded.pages;
        // SAFETY: from this arena, and used by no other code any more, by the caller's promise.
        unsafe { tables::free(arena, words) };
        // SAFETY: as above.
        unsafe { tables::free(arena, tree) };
        // SAFETY: as above.
        unsafe { tables::free(arena, pages) };
        // SAFETY: as above, with the layout of the value that is there.
        unsafe { arena.free(at.cast(), Layout::new::<Block>()) };
    }

    /// Gives the mapping up.
    pub(super) const fn take_views(&mut self) -> Option<Views> {
        self.guarded.views.take()
    }

    /// Forgets the granules, after the mapping is gone for good.
    pub(super) fn forget_granules(&mut self) {
        self.guarded.count = 0;
        self.guarded.active = 0..0;
        self.block.extent.store(0, Ordering::Relaxed);
    }

    /// Puts a mapping of the same ranges in place of the one given up, and keeps the spans.
    pub(super) fn put_views(&mut self, views: Views) {
        self.guarded.views = Some(views);
    }

    /// Returns the mapping.
    pub(super) const fn views(&self) -> Option<&Views> {
        self.guarded.views.as_ref()
    }

    /// Returns the bitmaps.
    #[inline]
    pub(super) fn bits(&self) -> Bits<'_> {
        self.block.bits(self.guarded.count)
    }

    #[inline]
    fn tree(&mut self) -> Tree<'_> {
        // SAFETY: the slice lives in the arena, as long as the block does, and belongs to it alone;
        // the exclusive borrow of self makes this the only reference.
        let bytes = unsafe { self.guarded.tree.as_mut() };
        Tree::new(bytes, words_for(self.guarded.count))
    }

    /// Returns the class of the longest free run; [`class::NONE`] where none is given out.
    #[inline]
    pub(super) fn largest(&mut self) -> u8 {
        match self.block.mode() {
            Mode::Open if !self.block.lone => self.tree().largest(),
            _ => class::NONE,
        }
    }

    /// Returns bytes of each view.
    pub(super) fn len_bytes(&self) -> usize {
        self.guarded.views.as_ref().map_or(0, Views::len_bytes)
    }

    /// Returns how many granules `bytes` bytes take, which are not none.
    #[inline]
    pub(super) const fn granules_for(&self, bytes: usize) -> usize {
        ((bytes - 1) >> self.block.shift) + 1
    }

    /// Returns the granules of the block.
    #[inline]
    pub(super) const fn count(&self) -> usize {
        self.guarded.count
    }

    /// Returns the start of a granule in the executable view.
    #[inline]
    pub(super) fn rx(&self, granule: usize) -> NonNull<u8> {
        debug_assert!(granule < self.guarded.count, "granules lie in their block");
        // SAFETY: `count` granules fill the view behind the padding, so this is inside it.
        unsafe { self.guarded.rx.add(granule << self.block.shift) }
    }

    /// Returns the start of a granule in the writable view.
    #[inline]
    pub(super) fn rw(&self, granule: usize) -> NonNull<u8> {
        debug_assert!(granule < self.guarded.count, "granules lie in their block");
        // SAFETY: as above.
        unsafe { self.guarded.rw.add(granule << self.block.shift) }
    }

    /// Returns the address of a granule, or of where the last one ends.
    pub(super) fn address_of(&self, granule: usize) -> Option<usize> {
        let offset = granule.min(self.guarded.count) << self.block.shift;
        self.guarded.rx.addr().get().checked_add(offset)
    }

    /// Clears what all live spans carry, before they go.
    pub(super) fn clear_tags(&self) {
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
    pub(super) fn granule_at(&self, addr: usize) -> Option<(usize, bool)> {
        let offset = addr.checked_sub(self.guarded.rx.addr().get())?;
        let granule = offset >> self.block.shift;
        let starts = granule << self.block.shift == offset;
        (granule < self.guarded.count).then_some((granule, starts))
    }

    /// Returns the lowest word with a run of a sufficient class, the active run apart.
    #[inline]
    pub(super) fn first_word(&mut self, class: u8) -> Option<usize> {
        self.tree().first(class)
    }

    /// Takes the first run of at least `need` granules that starts in a word. One that is much
    /// longer becomes the active run, of which nothing is taken yet: `None` then, and without one.
    #[inline]
    pub(super) fn allocate_in(&mut self, word: usize, need: usize) -> Option<Range<usize>> {
        let run = self.run_in(word, need)?;
        if run.len() - need >= LONG {
            // Settling joins runs, perhaps this one with others: look again.
            self.settle_active();
            self.guarded.active = self.run_in(word, need)?;
            self.count_again(word);
            return None;
        }
        let span = run.start..run.start + need;
        self.take(word, &run, span.clone());
        Some(span)
    }

    /// Returns the first run of at least `need` granules that starts in a word, the active one
    /// apart.
    #[inline]
    fn run_in(&self, word: usize, need: usize) -> Option<Range<usize>> {
        let mut runs = self.bits().free_runs_from(word);
        runs.find(|run| run.len() >= need && *run != self.guarded.active)
    }

    /// Says whether the active run is one of this block's.
    #[inline]
    pub(super) const fn has_active(&self) -> bool {
        self.guarded.active.start < self.guarded.active.end
    }

    /// Returns where the active run starts.
    #[inline]
    pub(super) const fn active_start(&self) -> usize {
        self.guarded.active.start
    }

    /// Returns the word that the active run starts in.
    #[inline]
    pub(super) const fn active_word(&self) -> usize {
        self.guarded.active.start / 64
    }

    /// Takes the first `need` granules of the active run, if it has them.
    #[inline]
    pub(super) fn allocate_active(&mut self, need: usize) -> Option<Range<usize>> {
        let run = self.guarded.active.clone();
        if run.len() < need || self.block.mode() != Mode::Open {
            return None;
        }
        let span = run.start..run.start + need;
        self.bits().allocate(&run, span.clone());
        self.guarded.active.start = span.end;
        self.guarded.used += need;
        self.guarded.spans += 1;
        Some(span)
    }

    /// Makes the active run one like others.
    pub(super) fn settle_active(&mut self) {
        let run = core::mem::replace(&mut self.guarded.active, 0..0);
        if !run.is_empty() {
            self.announce(run);
        }
    }

    /// Leaves the active run if it is the one that starts at a granule: it is being taken.
    #[inline]
    fn leave_active(&mut self, start: usize) {
        if self.guarded.active.start == start {
            self.guarded.active = 0..0;
        }
    }

    /// Takes a free run of at least `need` granules whose class has shorter runs too: looks at
    /// some.
    pub(super) fn allocate_by_trial(&mut self, need: usize) -> Option<Range<usize>> {
        self.allocate_where(need, TRIES, |run| Some(run.start))
    }

    /// Takes the lowest `need` granules that start where `start_in` says that a span may start in a
    /// free run, looking at `tries` words.
    pub(super) fn allocate_where(
        &mut self,
        need: usize,
        tries: usize,
        start_in: impl Fn(&Range<usize>) -> Option<usize>,
    ) -> Option<Range<usize>> {
        if self.block.mode() != Mode::Open {
            return None;
        }
        let class = class::of_run(need);
        let mut from = 0;
        for _ in 0..tries {
            let word = self.tree().find(from, class)?;
            let found = self.bits().free_runs_from(word).find_map(|run| {
                let start = start_in(&run).filter(|s| s.saturating_add(need) <= run.end)?;
                Some((run, start..start + need))
            });
            if let Some((run, span)) = found {
                self.take(word, &run, span.clone());
                return Some(span);
            }
            from = word + 1;
        }
        None
    }

    /// Says whether a run of granules lies in a spot, if it lies in the block.
    #[inline]
    pub(super) fn is_in_spot(&self, run: &Range<usize>, spot: &Spot) -> bool {
        if run.end > self.guarded.count {
            return false;
        }
        let start = self.guarded.rx.addr().get() + (run.start << self.block.shift);
        let last = start + ((run.end - run.start) << self.block.shift) - 1;
        spot.within.start() <= start
            && last <= spot.within.last()
            && start.is_multiple_of(spot.align)
    }

    /// Takes the lowest granules that lie in a spot.
    pub(super) fn allocate_at_spot(&mut self, spot: &Spot) -> Option<Range<usize>> {
        match self.allocate_from(0, usize::MAX, spot) {
            Placed::Here(span) => Some(span),
            Placed::Behind(_) | Placed::Nowhere => None,
        }
    }

    /// Takes the lowest granules that lie in a spot, of runs that start in `word` or behind,
    /// looking at `tries` words.
    pub(super) fn allocate_from(&mut self, word: usize, tries: usize, spot: &Spot) -> Placed {
        let window = self.granules_in(spot.within);
        let closed = self.block.mode() != Mode::Open || self.guarded.views.is_none();
        if closed || window.end.saturating_sub(window.start) < spot.need {
            return Placed::Nowhere;
        }
        let class = class::of_run(spot.need);
        // Where the run starts that the window starts in.
        let mut from = word.max(self.bits().run_start(window.start) / 64);
        for _ in 0..tries {
            let found = self.tree().find(from, class);
            let Some(word) = found.filter(|word| word * 64 < window.end) else {
                return Placed::Nowhere;
            };
            let found = self.bits().free_runs_from(word).find_map(|run| {
                let start = self.start_in_spot(&run, &window, spot.align)?;
                let end = start.checked_add(spot.need)?;
                (end <= run.end.min(window.end)).then_some((run, start..end))
            });
            if let Some((run, span)) = found {
                self.take(word, &run, span.clone());
                return Placed::Here(span);
            }
            from = word + 1;
        }
        Placed::Behind(from)
    }

    /// Returns the first granule of a run that lies in a window and is aligned.
    fn start_in_spot(
        &self,
        run: &Range<usize>,
        window: &Range<usize>,
        align: usize,
    ) -> Option<usize> {
        let (base, shift) = (self.guarded.rx.addr().get(), self.block.shift);
        let first = base + (run.start.max(window.start) << shift);
        // The base is a multiple of the granule, as map_block takes care of, so the difference is
        // one too, or is rounded up to the next granule for an alignment below that.
        Some((first.checked_next_multiple_of(align)? - base).div_ceil(1 << shift))
    }

    /// Takes just these granules, if all of them are free and no run of theirs is left apart.
    pub(super) fn allocate_granules(&mut self, span: Range<usize>) -> Option<Range<usize>> {
        if self.block.mode() != Mode::Open || span.end > self.guarded.count {
            return None;
        }
        let start = self.bits().run_start(span.start);
        let run = start..self.bits().end_of(span.start);
        if run.end < span.end || self.bits().is_used(span.start) {
            return None;
        }
        self.take(start / 64, &run, span.clone());
        Some(span)
    }

    /// Makes a part of the free run that starts in `word` a span.
    #[inline]
    fn take(&mut self, word: usize, run: &Range<usize>, span: Range<usize>) {
        self.bits().allocate(run, span.clone());
        self.guarded.used += span.len();
        self.guarded.spans += 1;
        let rest = span.end..run.end;
        self.leave_active(run.start);
        self.shortened(word, run.len());
        if !rest.is_empty() {
            self.tree()
                .raise(rest.start / 64, class::of_run(rest.len()));
        }
        if span.start > run.start {
            let head = span.start - run.start;
            self.tree().raise(word, class::of_run(head));
        }
    }

    /// Brings the tree up to date after a run of `len` granules that started in `word` went or
    /// became shorter.
    #[inline]
    fn shortened(&mut self, word: usize, len: usize) {
        if self.tree().class(word) != class::of_run(len) {
            return; // Another is longer.
        }
        self.count_again(word);
    }

    #[inline]
    fn count_again(&mut self, word: usize) {
        let runs = self.bits().free_runs_from(word);
        let runs = runs.filter(|run| *run != self.guarded.active);
        let longest = runs.map(|run| run.len()).max();
        self.tree()
            .set(word, longest.map_or(class::NONE, class::of_run));
    }

    /// Takes a whole free run of at most a few words, if the range is one.
    #[inline]
    pub(super) fn take_run(&mut self, run: Range<usize>) -> bool {
        let count = self.guarded.count;
        if self.block.mode() != Mode::Open || count == 0 || !self.bits().take_run(&run) {
            return false;
        }
        self.guarded.used += run.len();
        self.guarded.spans += 1;
        self.leave_active(run.start);
        self.shortened(run.start / 64, run.len());
        true
    }

    /// Frees a live span and leaves it beside other free runs, where [`Held::allocate_in`] does not
    /// find it; [`Held::join`] comes later.
    #[inline]
    pub(super) fn free_apart(&mut self, span: Range<usize>) {
        self.guarded.used -= span.len();
        self.guarded.spans -= 1;
        self.bits().free_tail(span, 0);
    }

    /// Joins a range, if it is a free run that was left apart, with those beside it.
    pub(super) fn join(&mut self, run: Range<usize>) {
        if self.guarded.count != 0 && self.bits().is_free_run(&run) {
            self.announce(run);
        }
    }

    /// Frees a live span behind its first `keep` granules; all of it for zero. Says whether the
    /// longest run may be another now.
    #[inline]
    pub(super) fn free_tail(&mut self, span: Range<usize>, keep: usize) -> bool {
        self.guarded.used -= span.len() - keep;
        self.guarded.spans -= usize::from(keep == 0);
        let run = self.bits().free_tail(span, keep);
        if keep > 0 && self.has_active() && run.end == self.guarded.active.start {
            // As most that shrink: the tail goes back to where it came from, and before it is what
            // is kept.
            self.bits().join(run.end);
            self.guarded.active.start = run.start;
            return false;
        }
        self.announce(run)
    }

    /// Joins a free run with those beside it, and notes in the tree what that makes; says whether
    /// the tree changed.
    #[inline]
    fn announce(&mut self, run: Range<usize>) -> bool {
        let mut run = run;
        let mut started = run.start;
        let mut changed = false;
        while self.bits().join_left(&mut run) {
            changed |= self.joined(started, &run);
            started = run.start;
        }
        if self.has_active() && run.end == self.guarded.active.start {
            // Nothing free lies behind the active run.
            self.bits().join(run.end);
            run.end = self.guarded.active.end;
        } else {
            loop {
                let end = run.end;
                if !self.bits().join_right(&mut run) {
                    break;
                }
                changed |= self.joined(end, &run);
            }
        }
        let word = run.start / 64;
        if self.has_active() && run.contains(&self.guarded.active.start) {
            // The active run became longer.
            self.guarded.active = run;
            if self.tree().class(word) != class::NONE {
                self.count_again(word);
                changed = true;
            }
            return changed;
        }
        self.tree().raise(word, class::of_run(run.len())) || changed
    }

    /// Brings the tree up to date after a run that started at a granule became a part of `run`;
    /// says whether it had to be.
    #[inline]
    fn joined(&mut self, started: usize, run: &Range<usize>) -> bool {
        let word = started / 64;
        let known = word != run.start / 64 && self.tree().class(word) != class::NONE;
        if known {
            self.count_again(word);
        }
        known
    }

    /// Returns what part of the executable view lies in `window`, as granules.
    pub(super) fn granules_in(&self, window: AddressRange) -> Range<usize> {
        let base = self.guarded.rx.addr().get();
        let size = 1 << self.block.shift;
        let low = window.start().saturating_sub(base).div_ceil(size);
        let past = window.last().saturating_add(1).saturating_sub(base) >> self.block.shift;
        low..past.min(self.guarded.count)
    }

    /// Returns the bytes of each view of a block whose mapping was taken.
    pub(super) const fn lost_bytes(&self) -> usize {
        self.guarded.padding + (self.guarded.count << self.block.shift)
    }

    /// Yields the maximal runs of used granules, in order.
    pub(super) fn used_runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.bits().used_runs()
    }
}

impl<'a> Held<'a> {
    /// Yields the free runs, in order. The bits are the block's, so that what the lock guards
    /// besides may be changed meanwhile.
    pub(super) fn free_runs(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let bits = self.block.bits(self.guarded.count);
        (0..bits.words()).flat_map(move |word| bits.free_runs_from(word))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::page::PageRange;
    use std::{boxed::Box, vec, vec::Vec};

    /// Granules of the block under test: several words, the last one in part.
    const COUNT: usize = 1000;

    fn leak<T>(values: Vec<T>) -> NonNull<[T]> {
        NonNull::from(Box::leak(values.into_boxed_slice()))
    }

    fn block() -> NonNull<Block> {
        let (words, bytes) = Block::metadata_for(COUNT);
        let words = leak((0..words).map(|_| AtomicU64::new(0)).collect());
        let tree = leak(vec![0; bytes]);
        let pages = leak(vec![0; Block::page_words_for(COUNT, 6, PageSize::KIB_4)]);
        let block = Block::unmapped(
            Home {
                shard: 0,
                pool: 0,
                shift: 6,
                lone: false,
            },
            words,
            tree,
            pages,
            COUNT,
        );
        NonNull::from(Box::leak(Box::new(block)))
    }

    /// Asserts that the tree knows the longest run of every word, but for those left apart.
    fn expect_tree(held: &mut Held<'_>, apart: &[Range<usize>]) {
        let active = held.guarded.active.clone();
        for word in 0..words_for(COUNT) {
            let runs: Vec<_> = held.bits().free_runs_from(word).collect();
            let known = |run: &&Range<usize>| **run != active && !apart.contains(run);
            let least = runs.iter().filter(known).map(|r| r.len()).max();
            let most = runs.iter().filter(|r| **r != active).map(|r| r.len()).max();
            let [least, most] = [least, most].map(|len| len.map_or(class::NONE, class::of_run));
            let found = held.tree().class(word);
            assert!(
                (least..=most).contains(&found),
                "word {word}: class {found} of {runs:?}, active {active:?}, apart {apart:?}"
            );
        }
    }

    #[test]
    fn purged_pages_are_counted_and_found() {
        // SAFETY: the block is leaked, and this thread alone has it.
        let mut held = unsafe { Block::held(block()) };
        let all = 0..COUNT * 64 / 4096;
        assert_eq!(held.purged_among(all.clone()), None);
        held.note_purged(2..5, true);
        held.note_purged(4..9, true);
        assert_eq!(held.guarded.purged, 7, "no page counts twice");
        assert_eq!(held.purged_among(all.clone()), Some(2..9));
        assert_eq!(held.purged_among(0..2), None);
        assert_eq!(held.purged_among(8..all.end), Some(8..9));
        held.note_purged(3..4, false);
        held.note_purged(0..1, false);
        assert_eq!(held.guarded.purged, 6);
        assert_eq!(held.purged_among(all.clone()), Some(2..3));
        assert_eq!(held.purged_among(3..all.end), Some(4..9));
        held.note_purged(all.clone(), true);
        assert_eq!(held.guarded.purged, all.len());
        held.forget_purged();
        assert_eq!((held.guarded.purged, held.purged_among(all)), (0, None));
    }

    #[test]
    fn the_tree_knows_what_the_bits_say() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 33).expect("31 bits") % n
        };
        // SAFETY: the block is leaked, and this thread alone has it.
        let mut held = unsafe { Block::held(block()) };
        #[derive(Clone)]
        #[repr(align(4096))]
        struct Page(#[expect(dead_code, reason = "only its address matters")] [u8; 4096]);
        let page = PageSize::KIB_4;
        let start = leak(vec![Page([0; 4096]); COUNT * 64 / 4096]).cast::<u8>();
        let range = PageRange::new(start, (COUNT * 64 / 4096) * 4096, page);
        let views = Views::Single(range.expect("whole pages"), page);
        held.map(views, 0);
        let (mut live, mut apart): (Vec<Range<usize>>, Vec<Range<usize>>) = Default::default();
        for _ in 0..20_000 {
            let most = [3, 20, 150][below(3)];
            let need = 1 + below(most);
            match below(10) {
                0..5 => {
                    let class = class::that_fits(need).expect("short");
                    let found = held.first_word(class);
                    let span = match found {
                        _ if below(3) == 0 => held.allocate_active(need),
                        Some(word) => held
                            .allocate_in(word, need)
                            .or_else(|| held.allocate_active(need)),
                        None => held.allocate_by_trial(need),
                    };
                    live.extend(span);
                }
                5..7 if !live.is_empty() => {
                    let span = live.swap_remove(below(live.len()));
                    held.free_apart(span.clone());
                    apart.push(span);
                }
                7 if !apart.is_empty() => {
                    let run = apart.swap_remove(below(apart.len()));
                    if below(2) == 0 {
                        held.join(run);
                    } else if held.take_run(run.clone()) {
                        live.push(run);
                    }
                }
                8 if !live.is_empty() => {
                    let n = below(live.len());
                    let span = live[n].clone();
                    let keep = below(span.len());
                    held.free_tail(span.clone(), keep);
                    live[n].end = span.start + keep;
                    if keep == 0 {
                        live.swap_remove(n);
                    }
                }
                9 if below(20) == 0 => held.settle_active(),
                _ => {}
            }
            apart.retain(|run| held.bits().is_free_run(run));
            expect_tree(&mut held, &apart);
            assert_eq!(held.guarded.spans, live.len());
            let used = live.iter().map(Range::len).sum::<usize>();
            assert_eq!(held.guarded.used, used);
        }
        for span in live.drain(..) {
            assert_eq!(held.bits().span_around(span.start), Some(span.clone()));
            held.free_tail(span, 0);
        }
        apart.drain(..).for_each(|run| held.join(run));
        held.settle_active();
        let mut runs = held.free_runs();
        assert_eq!(runs.next(), Some(0..held.count()), "one run again");
        assert_eq!(runs.next(), None, "and no other");
        drop(runs);
        expect_tree(&mut held, &[]);
    }
}
