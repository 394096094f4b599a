//! The bitmaps of a block.
//!
//! ```text
//!   granule   0 1 2 3 4 5 6 7 8 9        two spans: 1..4 and 4..6
//!   used      0 1 1 1 1 1 0 0 0 0        1: belongs to a live span
//!   stop      1 0 0 1 0 1 0 0 0 1        1: last granule of a run, live or free
//!
//!   words     used₀ stop₀ used₁ stop₁ …  │ summary: a bit a stop word that is not 0 │ a bit a … │
//! ```
//!
//! Every run ends with a stop bit, free runs too. So the bits that delimit a live span, the stop of
//! the run before it and its own, stand still while its neighbours come and go, and a reader
//! without the lock finds the exact span from any granule of it. Two free runs may lie side by
//! side: those that were just released are joined later.
//!
//! One writer, under the lock of the block's shard, stores whole words. Its orders:
//! - a span appears: its stop bit, then its used bits;
//! - a span goes or shrinks: its used bits, then stop bits;
//! - a stop bit is set before its summary, and cleared before it.
//!
//! A reader that sees a used bit (Acquire) therefore sees that span's stop bit and its summary too,
//! and no stop bit or summary within the span from before: whatever was there was cleared before
//! the used bits were set.
//!
//! `stops` finds stop bits by the summaries, `spans` the span around a granule, for readers without
//! the lock too; `runs` has what the lock's holder does.

use crate::atomic::{AtomicU64, Ordering};
use core::ops::Range;

#[cfg(all(test, loom))]
mod models;
mod runs;
mod spans;
mod stops;

const WORD: usize = u64::BITS as usize;

/// Levels of summaries that any block can need.
const LEVELS: usize = 11;

/// Returns the words that `count` bits take.
#[inline]
pub(super) const fn words_for(count: usize) -> usize {
    count.div_ceil(WORD)
}

/// Returns the bits of one word from `bit` upwards.
#[inline]
const fn from_bit(bit: usize) -> u64 {
    u64::MAX << (bit % WORD)
}

/// Returns the bits of one word up to `bit`, and that one.
#[inline]
const fn up_to_bit(bit: usize) -> u64 {
    u64::MAX >> (WORD - 1 - bit % WORD)
}

/// Yields the words that a range of bits touches, each with a mask of the bits.
#[inline]
pub(super) fn masks(bits: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let mut at = bits.start;
    core::iter::from_fn(move || {
        if at >= bits.end {
            return None;
        }
        let (word, last) = (at / WORD, (at | (WORD - 1)).min(bits.end - 1));
        let mask = from_bit(at) & up_to_bit(last);
        at = last + 1;
        Some((word, mask))
    })
}

#[inline]
const fn lowest(word: u64) -> usize {
    word.trailing_zeros() as usize
}

#[inline]
const fn highest(word: u64) -> usize {
    WORD - 1 - word.leading_zeros() as usize
}

/// The used and stop bits of one block, with their summaries.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    /// Used and stop words, taking turns; behind them the levels of summaries, lowest first.
    words: &'a [AtomicU64],
    /// Granules of the block.
    pub(super) count: usize,
    /// Stop words that there are: where what is in `words` lies depends on this alone, which never
    /// changes, so that a late reader finds bits that are old, but no others.
    lines: usize,
}

impl<'a> Bits<'a> {
    /// Returns the words that the bitmaps of `count` granules take.
    #[inline]
    pub(super) const fn words_for(count: usize) -> usize {
        let mut level = words_for(count);
        let mut total = 2 * level;
        while level > 1 {
            level = words_for(level);
            total += level;
        }
        total
    }

    /// Takes `words` as the bitmaps of `count` granules: at least [`Bits::words_for`] as many
    /// granules as `lines` words have bits, which are no less than `count`.
    #[inline]
    pub(super) const fn new(words: &'a [AtomicU64], count: usize, lines: usize) -> Self {
        Self {
            words,
            count,
            lines,
        }
    }

    /// Makes all words zero, as new ones are; looks at each before, unless most are not.
    pub(super) fn clear(self, dense: bool) {
        for word in &self.words[..Self::words_for(self.lines * WORD)] {
            // What was never touched takes no memory, and stays so.
            if dense || word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Makes the whole block one free run, where all words are zero.
    pub(super) fn begin(self) {
        self.set_stop(self.count - 1);
    }

    /// Returns how many words of each bitmap are in use.
    #[inline]
    pub(super) const fn words(self) -> usize {
        words_for(self.count)
    }

    /// Returns the summaries.
    #[inline]
    fn summary(self) -> &'a [AtomicU64] {
        &self.words[2 * self.lines..]
    }

    /// Returns the used and the stop word of 64 granules.
    #[inline]
    fn pair(self, word: usize) -> (&'a AtomicU64, &'a AtomicU64) {
        let pair = &self.words[2 * word..2 * word + 2];
        (&pair[0], &pair[1])
    }

    /// Reads a word of used bits; Acquire, so that what was stored before they were set is seen.
    #[inline]
    fn used(self, word: usize) -> u64 {
        self.words[2 * word].load(Ordering::Acquire)
    }

    #[inline]
    fn stop(self, word: usize) -> u64 {
        self.words[2 * word + 1].load(Ordering::Acquire)
    }

    /// Says whether a granule belongs to a live span.
    #[inline]
    pub(super) fn is_used(self, granule: usize) -> bool {
        self.used(granule / WORD) >> (granule % WORD) & 1 == 1
    }

    /// Stores `value` in a range of used bits. Only the lock's holder may.
    #[inline]
    fn set_used(self, bits: Range<usize>, value: bool) {
        let (first, last) = (bits.start, bits.end - 1);
        if first / WORD == last / WORD {
            let mask = from_bit(first) & up_to_bit(last);
            return Self::set_used_word(self.words, last / WORD, mask, value);
        }
        Self::set_used_words(self.words, first, last, value);
    }

    /// Stores `value` in the used bits of a mask.
    #[inline]
    fn set_used_word(words: &[AtomicU64], word: usize, mask: u64, value: bool) {
        let slot = &words[2 * word];
        // A single writer: the plain load cannot miss another's store.
        let old = slot.load(Ordering::Relaxed);
        let new = if value { old | mask } else { old & !mask };
        slot.store(new, Ordering::Release);
    }

    /// Stores `value` in a range of used bits that takes several words. It has no `self`, like
    /// others that are not compiled into their callers, which would keep one in memory for it.
    #[inline(never)]
    fn set_used_words(words: &[AtomicU64], first: usize, last: usize, value: bool) {
        let mut word = first / WORD;
        Self::set_used_word(words, word, from_bit(first), value);
        word += 1;
        while word < last / WORD {
            Self::set_used_word(words, word, u64::MAX, value);
            word += 1;
        }
        Self::set_used_word(words, word, up_to_bit(last), value);
    }

    /// Sets a stop bit. Only the lock's holder may.
    #[inline]
    fn set_stop(self, granule: usize) {
        let slot = &self.words[2 * (granule / WORD) + 1];
        let old = slot.load(Ordering::Relaxed);
        slot.store(old | 1 << (granule % WORD), Ordering::Release);
        if old == 0 {
            Self::summarize(self.words, self.lines, granule / WORD, true);
        }
    }

    /// Clears a stop bit. Only the lock's holder may.
    #[inline]
    fn clear_stop(self, granule: usize) {
        let slot = &self.words[2 * (granule / WORD) + 1];
        let new = slot.load(Ordering::Relaxed) & !(1 << (granule % WORD));
        slot.store(new, Ordering::Release);
        if new == 0 {
            Self::summarize(self.words, self.lines, granule / WORD, false);
        }
    }

    /// Notes in the summaries that a stop word is now `some` or none.
    #[inline(never)]
    fn summarize(words: &[AtomicU64], lines: usize, word: usize, some: bool) {
        let (mut at, mut nodes, mut start) = (word, lines, 2 * lines);
        while nodes > 1 {
            let slot = &words[start + at / WORD];
            let (old, bit) = (slot.load(Ordering::Relaxed), 1 << (at % WORD));
            let new = if some { old | bit } else { old & !bit };
            slot.store(new, Ordering::Release);
            // The level above knows already.
            if if some { old != 0 } else { new != 0 } {
                return;
            }
            nodes = words_for(nodes);
            start += nodes;
            at /= WORD;
        }
    }

    #[inline]
    fn bit(word: u64, which: impl Fn(u64) -> usize) -> Option<usize> {
        (word != 0).then(|| which(word))
    }

    /// Says whether a run starts at `granule`. The lock is held.
    #[inline]
    fn starts(self, granule: usize) -> bool {
        granule == 0 || self.stop((granule - 1) / WORD) >> ((granule - 1) % WORD) & 1 == 1
    }
}
