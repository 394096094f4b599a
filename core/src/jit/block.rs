//! One dual mapping, cut into granules.
//!
//! ```text
//!          padding  granule 0    1          2
//!   rx ──► ┌───────┬──────────┬──────────┬──────────┬─ ─
//!          │       │ span A              │ span B   │
//!   rw ──► └───────┴──────────┴──────────┴──────────┴─ ─      the same pages
//! ```
//!
//! The padding, one granule, keeps the first byte of a mapping from being anybody's code: a call
//! through a pointer to the mapping itself, or one that ran off the page before, hits nothing.

use super::bits::{Bits, words_for};
use crate::{page::PageRange, provider::DualMapping};
use core::{ops::Range, ptr::NonNull, sync::atomic::AtomicU64};

/// What may be done with a block. Only forked children have any but open ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A block. Changed only under the allocator's lock; readers without it see the index entry and the
/// bitmaps.
pub(super) struct Block {
    mapping: Option<DualMapping>,
    granularity: usize,
    words: NonNull<[AtomicU64]>,
    count: usize,
    /// Live spans.
    pub(super) spans: usize,
    /// Granules of live spans.
    pub(super) used: usize,
    /// No free run is longer.
    longest: usize,
    /// No free run starts below.
    first_free: usize,
    /// What may be done with it.
    pub(super) mode: Mode,
    /// The next unmapped block of the same capacity.
    pub(super) next: Option<NonNull<Block>>,
}

impl Block {
    /// Makes a block without mapping; `words` are its bitmaps for ever.
    pub(super) const fn unmapped(granularity: usize, words: NonNull<[AtomicU64]>) -> Self {
        Self {
            mapping: None,
            granularity,
            words,
            count: 0,
            spans: 0,
            used: 0,
            longest: 0,
            first_free: 0,
            mode: Mode::Open,
            next: None,
        }
    }

    /// Takes `mapping` over, all free.
    pub(super) fn map(&mut self, mapping: DualMapping) {
        self.count = mapping.len_bytes() / self.granularity - 1;
        debug_assert!(
            Bits::MAPS * words_for(self.count) <= self.words.len(),
            "the bitmaps were made for a block of this length"
        );
        self.mapping = Some(mapping);
        (self.spans, self.used) = (0, 0);
        (self.longest, self.first_free) = (self.count, 0);
        self.mode = Mode::Open;
        self.bits().clear();
    }

    /// Gives the mapping up.
    pub(super) fn take_mapping(&mut self) -> Option<DualMapping> {
        self.mapping.take()
    }

    /// Puts a mapping of the same ranges in place of the one given up, and keeps the spans.
    pub(super) fn put_mapping(&mut self, mapping: DualMapping) {
        self.mapping = Some(mapping);
    }

    /// Returns the mapping.
    pub(super) const fn mapping(&self) -> Option<&DualMapping> {
        self.mapping.as_ref()
    }

    /// Returns the words that the bitmaps have.
    pub(super) const fn words(&self) -> NonNull<AtomicU64> {
        self.words.cast()
    }

    /// Returns how many words the bitmaps have.
    pub(super) const fn capacity(&self) -> usize {
        self.words.len()
    }

    /// Returns the bitmaps.
    pub(super) fn bits(&self) -> Bits<'_> {
        // SAFETY: initialised when the block was made, changed only through its atomics, and alive
        // as long as the arena, as the block itself is.
        Bits::new(unsafe { self.words.as_ref() }, self.count)
    }

    /// Returns bytes of each view.
    pub(super) fn len_bytes(&self) -> usize {
        self.mapping.as_ref().map_or(0, DualMapping::len_bytes)
    }

    /// Says whether spans can be written.
    pub(super) const fn writable(&self) -> bool {
        matches!(self.mode, Mode::Open | Mode::Shared)
    }

    /// Returns the start of a granule in the executable view.
    pub(super) fn rx(&self, granule: usize) -> NonNull<u8> {
        self.inside(self.mapping.as_ref().map(DualMapping::rx), granule)
    }

    /// Returns the start of a granule in the writable view.
    pub(super) fn rw(&self, granule: usize) -> NonNull<u8> {
        self.inside(self.mapping.as_ref().map(DualMapping::rw), granule)
    }

    fn inside(&self, view: Option<PageRange>, granule: usize) -> NonNull<u8> {
        debug_assert!(granule < self.count, "granules lie inside their block");
        let Some(view) = view else {
            return NonNull::dangling();
        };
        // SAFETY: the padding and `count` granules fill the view exactly, so this is inside it.
        unsafe { view.start().add((granule + 1) * self.granularity) }
    }

    /// Returns the granule at `addr`, which lies in the block, if one starts there.
    pub(super) fn granule_at(&self, addr: usize) -> (usize, bool) {
        let offset = addr - self.rx(0).addr().get();
        (
            offset / self.granularity,
            offset.is_multiple_of(self.granularity),
        )
    }

    /// Takes the lowest free run of at least `need` granules; `None` without one.
    pub(super) fn allocate(&mut self, need: usize) -> Option<Range<usize>> {
        if self.mode != Mode::Open || need > self.longest || need > self.count - self.used {
            return None;
        }
        match self.bits().find_free(self.first_free, need) {
            Ok(run) => {
                let span = run.start..run.start + need;
                self.bits().allocate(span.clone());
                if run.start == self.first_free {
                    self.first_free = span.end;
                }
                self.used += need;
                self.spans += 1;
                Some(span)
            }
            Err(longest) => {
                self.longest = longest;
                None
            }
        }
    }

    /// Frees a live span behind its first `keep` granules; all of it for zero.
    pub(super) fn free_tail(&mut self, span: Range<usize>, keep: usize) {
        self.used -= span.len() - keep;
        self.spans -= usize::from(keep == 0);
        let run = self.bits().free_tail(span, keep);
        self.longest = self.longest.max(run.len());
        self.first_free = self.first_free.min(run.start);
    }

    /// Yields the maximal runs of used granules, in order.
    pub(super) fn used_runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let bits = self.bits();
        let mut at = 0;
        core::iter::from_fn(move || {
            let start = bits.used.first_one(at..bits.count)?;
            let end = bits
                .used
                .first_zero(start..bits.count)
                .unwrap_or(bits.count);
            at = end;
            Some(start..end)
        })
    }
}
