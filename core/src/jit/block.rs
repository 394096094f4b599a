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
//! from being code of a span: a call through a pointer to the mapping itself, or one that ran off
//! the page before, hits nothing.
//!
//! Above the bitmaps stands a [`Tree`] with one member a word of 64 granules: the class of the
//! longest free run that *starts* in that word. Finding the lowest run that is long enough is a
//! descent through the tree and a look at one word. One long run of a pool, the active one, is left
//! out: requests that find nothing before it take its first granules, and touch no tree.
//!
//! `held` has what the shard's lock guards, `runs` how runs are taken and freed, `spot` spans that
//! are wanted at certain addresses.

mod held;
mod runs;
mod spot;
#[cfg(test)]
mod tests;

pub(super) use held::{Guarded, Held};
pub(super) use spot::{Placed, Spot};

use super::{
    bits::{Bits, masks, words_for},
    span::SpanInfo,
    tables,
    tag::Tags,
    tree::Tree,
};
use crate::{
    arch,
    arena::Arena,
    atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    page::PageSize,
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::{
    cell::UnsafeCell,
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
    /// As read-only, and not to be unmapped: the addresses of a view belong to another mapping now.
    Orphan,
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

/// A block. It always belongs to the same shard, and lives as long as the arena.
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
            // SAFETY: allocated just now, and used by no other code.
            unsafe { tables::free(arena, tree) };
        })?;
        let mut block = Self::unmapped(home, words, tree, pages, capacity);
        block.tags = tags;
        arena.alloc_value(block).inspect_err(|_| {
            // SAFETY: allocated just now; the block that pointed there is gone.
            unsafe { tables::free(arena, words) };
            // SAFETY: allocated just now; the block that pointed there is gone.
            unsafe { tables::free(arena, tree) };
            // SAFETY: allocated just now; the block that pointed there is gone.
            unsafe { tables::free(arena, pages) };
        })
    }

    /// Makes a block without mapping for at most `capacity` granules, with as much metadata as
    /// [`Block::metadata_for`] and [`Block::page_words_for`] say, all zero, which stays its own.
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
        // SAFETY: initialised when the block was made, changed only through its atomics, and alive
        // as long as the arena, as the block itself is.
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

    /// Finds the live span that starts at an address and has this number, without the lock. It is
    /// the caller's, so that both stay as they are, and so does its last granule's stop.
    #[inline]
    pub(super) fn span_numbered(&self, addr: usize, number: u32) -> Option<SpanInfo> {
        let (rx, rw) = (
            self.rx.load(Ordering::Relaxed),
            self.rw.load(Ordering::Relaxed),
        );
        let offset = addr.wrapping_sub(rx.addr());
        let shift = self.shift & (usize::BITS - 1);
        let granule = offset >> shift;
        // Zero is what one has whose number was taken away, and where no span starts.
        let is_it = granule << shift == offset && number != 0;
        if !is_it || self.tags.number(granule) != number {
            return None;
        }
        let end = self.bits(self.capacity()).end_of(granule);
        Some(SpanInfo {
            rx: NonNull::new(rx.wrapping_add(offset))?,
            rw: NonNull::new(rw.wrapping_add(offset))?,
            len: (end - granule) << shift,
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
        // SAFETY: the block lives in an arena that outlives `'a`, by this function's `# Safety`;
        // shared references to it are allowed, since what the lock guards is in a cell.
        let block = unsafe { at.as_ref() };
        // SAFETY: the caller holds the shard's lock throughout `'a` and lets no other Held live, by
        // this function's `# Safety`: this is the only reference into the cell.
        let guarded = unsafe { &mut *block.guarded.get() };
        Held { at, block, guarded }
    }
}
