//! The bitmaps of a block.
//!
//! ```text
//!   granule   0 1 2 3 4 5 6 7 8 9        two spans: 1..4 and 4..6
//!   used      0 1 1 1 1 1 0 0 0 0        1: belongs to a live span
//!   stop      1 0 0 1 0 1 0 0 0 1        1: last granule of a run, live or free
//! ```
//!
//! Every run ends with a stop bit, free runs too. So the bits that delimit a live span, the stop of
//! the run before it and its own, stand still while its neighbours come and go, and a reader
//! without the lock finds the exact span from any granule of it.
//!
//! One writer, under the allocator's lock, stores whole words. Its orders:
//! - a span appears: its stop bit, then its used bits;
//! - a span goes or shrinks: its used bits, then stop bits.
//!
//! A reader that sees a used bit (Acquire) therefore sees that span's stop bit too.

use bitvec::{order::Lsb0, slice::BitSlice};
use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

const WORD: usize = u64::BITS as usize;

/// Returns the words that `count` bits take.
pub(super) const fn words_for(count: usize) -> usize {
    count.div_ceil(WORD)
}

/// One bitmap, read by anyone, written by the holder of the lock.
#[derive(Clone, Copy)]
pub(super) struct Bitmap<'a>(&'a [AtomicU64]);

impl<'a> Bitmap<'a> {
    /// Reads one bit; Acquire, so that what was stored before it was set is seen.
    pub(super) fn get(self, index: usize) -> bool {
        let word = self
            .0
            .get(index / WORD)
            .map_or(0, |w| w.load(Ordering::Acquire));
        word >> (index % WORD) & 1 == 1
    }

    /// Stores `value` in a range of bits, word by word; Release. Only the lock's holder may.
    pub(super) fn set(self, bits: Range<usize>, value: bool) {
        let mut at = bits.start;
        while at < bits.end {
            let len = (WORD - at % WORD).min(bits.end - at);
            let mask = (u64::MAX >> (WORD - len)) << (at % WORD);
            let word = &self.0[at / WORD];
            // A single writer: the plain load cannot miss another's store.
            let old = word.load(Ordering::Relaxed);
            word.store(
                if value { old | mask } else { old & !mask },
                Ordering::Release,
            );
            at += len;
        }
    }

    /// Says whether any bit of a range is set.
    pub(super) fn any(self, bits: Range<usize>) -> bool {
        self.walk().get(bits).is_some_and(BitSlice::any)
    }

    /// Returns the first set bit of a range.
    pub(super) fn first_one(self, bits: Range<usize>) -> Option<usize> {
        let start = bits.start;
        self.walk().get(bits)?.first_one().map(|n| start + n)
    }

    /// Returns the first clear bit of a range.
    pub(super) fn first_zero(self, bits: Range<usize>) -> Option<usize> {
        let start = bits.start;
        self.walk().get(bits)?.first_zero().map(|n| start + n)
    }

    /// Returns the last set bit of a range.
    pub(super) fn last_one(self, bits: Range<usize>) -> Option<usize> {
        let start = bits.start;
        self.walk().get(bits)?.last_one().map(|n| start + n)
    }

    /// The same words as a bit slice, for walking: it is only read.
    fn walk(self) -> &'a BitSlice<AtomicU64, Lsb0> {
        BitSlice::from_slice(self.0)
    }
}

/// The bitmaps of one block.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    /// Granules of live spans.
    pub(super) used: Bitmap<'a>,
    /// Last granules of runs.
    pub(super) stop: Bitmap<'a>,
    /// Granules that code was ever published in. Only the lock's holder reads it.
    pub(super) seen: Bitmap<'a>,
    /// Granules of the block.
    pub(super) count: usize,
}

impl<'a> Bits<'a> {
    /// Bitmaps of a block.
    pub(super) const MAPS: usize = 3;

    /// Divides `words`, at least `MAPS * words_for(count)` of them, among the bitmaps.
    pub(super) fn new(words: &'a [AtomicU64], count: usize) -> Self {
        let (used, rest) = words.split_at(words_for(count));
        let (stop, rest) = rest.split_at(words_for(count));
        let seen = &rest[..words_for(count)];
        Self {
            used: Bitmap(used),
            stop: Bitmap(stop),
            seen: Bitmap(seen),
            count,
        }
    }

    /// Makes the whole block one free run that never held code.
    pub(super) fn clear(self) {
        for map in [self.used, self.stop, self.seen] {
            for word in map.0 {
                word.store(0, Ordering::Relaxed);
            }
        }
        self.stop.set(self.count - 1..self.count, true);
    }

    /// Returns the run that `granule` belongs to. `None` only for a reader without the lock, while
    /// the run is being taken apart.
    pub(super) fn run_around(self, granule: usize) -> Option<Range<usize>> {
        let start = self
            .stop
            .last_one(0..granule)
            .map_or(0, |before| before + 1);
        let last = self.stop.first_one(granule..self.count)?;
        Some(start..last + 1)
    }

    /// Returns the live span that `granule` belongs to, if it does.
    pub(super) fn span_around(self, granule: usize) -> Option<Range<usize>> {
        if granule < self.count && self.used.get(granule) {
            self.run_around(granule)
        } else {
            None
        }
    }

    /// Returns the lowest free run of at least `need` granules from `from` upwards, or else the
    /// length of the longest.
    pub(super) fn find_free(self, from: usize, need: usize) -> Result<Range<usize>, usize> {
        let mut longest = 0;
        let mut at = from;
        while let Some(start) = self.used.first_zero(at..self.count) {
            // The lock is held: every run has its stop bit.
            let Some(last) = self.stop.first_one(start..self.count) else {
                break;
            };
            let run = start..last + 1;
            if run.len() >= need {
                return Ok(run);
            }
            longest = longest.max(run.len());
            at = run.end;
        }
        Err(longest)
    }

    /// Makes the first granules of a free run a span.
    pub(super) fn allocate(self, span: Range<usize>) {
        self.stop.set(span.end - 1..span.end, true);
        self.used.set(span, true);
    }

    /// Cuts a live span off behind `keep` granules, none of which are freed; `keep` of zero frees
    /// it all. Returns the free run that the tail is now part of.
    pub(super) fn free_tail(self, span: Range<usize>, keep: usize) -> Range<usize> {
        let mut free = span.start + keep..span.end;
        self.used.set(free.clone(), false);
        if keep > 0 {
            self.stop.set(free.start - 1..free.start, true);
        } else if span.start > 0 && !self.used.get(span.start - 1) {
            free.start = self
                .run_around(span.start - 1)
                .map_or(free.start, |r| r.start);
            self.stop.set(span.start - 1..span.start, false);
        }
        if span.end < self.count && !self.used.get(span.end) {
            free.end = self.run_around(span.end).map_or(free.end, |r| r.end);
            self.stop.set(span.end - 1..span.end, false);
        }
        free
    }
}
