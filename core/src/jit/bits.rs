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

use crate::atomic::{AtomicU64, Ordering};
use core::{hint::select_unpredictable, ops::Range};

#[cfg(all(test, loom))]
mod models;

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
        // A single writer: the plain loads cannot miss another's store.
        let change = |word: usize, mask: u64| {
            let slot = &self.words[2 * word];
            let old = slot.load(Ordering::Relaxed);
            let new = if value { old | mask } else { old & !mask };
            slot.store(new, Ordering::Release);
        };
        let last = bits.end - 1;
        if bits.start / WORD == last / WORD {
            return change(last / WORD, from_bit(bits.start) & up_to_bit(last));
        }
        self.set_used_words(bits, value);
    }

    /// Stores `value` in a range of used bits that takes several words.
    fn set_used_words(self, bits: Range<usize>, value: bool) {
        let change = |word: usize, mask: u64| {
            let slot = &self.words[2 * word];
            let old = slot.load(Ordering::Relaxed);
            let new = if value { old | mask } else { old & !mask };
            slot.store(new, Ordering::Release);
        };
        let last = bits.end - 1;
        change(bits.start / WORD, from_bit(bits.start));
        for word in bits.start / WORD + 1..last / WORD {
            change(word, u64::MAX);
        }
        change(last / WORD, up_to_bit(last));
    }

    /// Sets a stop bit. Only the lock's holder may.
    #[inline]
    fn set_stop(self, granule: usize) {
        let slot = &self.words[2 * (granule / WORD) + 1];
        let old = slot.load(Ordering::Relaxed);
        slot.store(old | 1 << (granule % WORD), Ordering::Release);
        if old == 0 {
            self.summarize(granule / WORD, true);
        }
    }

    /// Clears a stop bit. Only the lock's holder may.
    #[inline]
    fn clear_stop(self, granule: usize) {
        let slot = &self.words[2 * (granule / WORD) + 1];
        let new = slot.load(Ordering::Relaxed) & !(1 << (granule % WORD));
        slot.store(new, Ordering::Release);
        if new == 0 {
            self.summarize(granule / WORD, false);
        }
    }

    /// Notes in the summaries that a stop word is now `some` or none.
    #[inline(never)]
    fn summarize(self, word: usize, some: bool) {
        let (mut at, mut nodes, mut start) = (word, self.lines, 0);
        while nodes > 1 {
            let slot = &self.summary()[start + at / WORD];
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

    /// Returns the first stop at or behind `granule`.
    #[inline]
    fn next_stop(self, granule: usize) -> Option<usize> {
        let word = granule / WORD;
        let here = self.stop(word) & from_bit(granule);
        if here != 0 {
            return Some(word * WORD + lowest(here));
        }
        self.next_stop_behind(word)
    }

    /// Returns the first stop in a word behind this one.
    #[inline]
    fn next_stop_behind(self, word: usize) -> Option<usize> {
        let (mut at, mut nodes, mut level) = (word + 1, self.lines, 0);
        if at >= nodes {
            return None;
        }
        // Most spans end here, and the word is most likely at hand.
        if let Some(bit) = Self::bit(self.stop(at), lowest) {
            return Some(at * WORD + bit);
        }
        let summary = self.summary();
        let mut starts = [0; LEVELS];
        loop {
            if at >= nodes {
                return None;
            }
            let here = summary[starts[level] + at / WORD].load(Ordering::Acquire);
            let here = here & from_bit(at);
            nodes = words_for(nodes);
            if here != 0 {
                at = at / WORD * WORD + lowest(here);
                break;
            }
            at = at / WORD + 1;
            starts[level + 1] = starts[level] + nodes;
            level += 1;
        }
        for start in starts[..level].iter().rev() {
            let below = summary[start + at].load(Ordering::Acquire);
            // Nothing, though the summary says otherwise: the run is just being taken apart.
            at = at * WORD + Self::bit(below, lowest)?;
        }
        Some(at * WORD + Self::bit(self.stop(at), lowest)?)
    }

    /// Returns the last stop before `granule`.
    #[inline]
    fn last_stop(self, granule: usize) -> Option<usize> {
        let last = granule.checked_sub(1)?;
        let word = last / WORD;
        let here = self.stop(word) & up_to_bit(last);
        if here != 0 {
            return Some(word * WORD + highest(here));
        }
        self.last_stop_before(word)
    }

    /// Returns the last stop in a word before this one.
    #[inline]
    fn last_stop_before(self, word: usize) -> Option<usize> {
        let (mut end, mut nodes, mut level) = (word, self.lines, 0);
        if let Some(bit) = Self::bit(self.stop(end.checked_sub(1)?), highest) {
            return Some((end - 1) * WORD + bit);
        }
        let summary = self.summary();
        let mut starts = [0; LEVELS];
        let mut at = loop {
            let at = end.checked_sub(1)?;
            let here = summary[starts[level] + at / WORD].load(Ordering::Acquire);
            let here = here & up_to_bit(at);
            nodes = words_for(nodes);
            if here != 0 {
                break at / WORD * WORD + highest(here);
            }
            end = at / WORD;
            starts[level + 1] = starts[level] + nodes;
            level += 1;
        };
        for start in starts[..level].iter().rev() {
            let below = summary[start + at].load(Ordering::Acquire);
            at = at * WORD + Self::bit(below, highest)?;
        }
        Some(at * WORD + Self::bit(self.stop(at), highest)?)
    }

    #[inline]
    fn bit(word: u64, which: impl Fn(u64) -> usize) -> Option<usize> {
        (word != 0).then(|| which(word))
    }

    /// Returns the live span that `granule` belongs to, if it does. For a reader without the lock, one
    /// that is being taken apart may be anything.
    #[inline]
    pub(super) fn span_around(self, granule: usize) -> Option<Range<usize>> {
        let word = granule / WORD;
        let (pairs, _) = self.words[..2 * self.lines].as_chunks::<2>();
        let [used, stop] = pairs.get(word)?;
        if used.load(Ordering::Acquire) >> (granule % WORD) & 1 == 0 {
            return None;
        }
        let stop = stop.load(Ordering::Acquire);
        // The words beside it are looked at whether they are needed or not: that depends on the
        // address, and would be predicted wrongly. Before the first granule there is a stop.
        let beside = |word: usize| Some(pairs.get(word)?[1].load(Ordering::Acquire));
        let left = beside(word.wrapping_sub(1)).unwrap_or(if word == 0 { 1 << 63 } else { 0 });
        let right = beside(word + 1).unwrap_or(0);
        let (before, behind) = (stop & !from_bit(granule), stop & from_bit(granule));
        let first = word * WORD;
        let (left, base) = select_unpredictable(before != 0, (before, first), {
            (left, first.wrapping_sub(WORD))
        });
        let (right, end) =
            select_unpredictable(behind != 0, (behind, first), (right, first + WORD));
        if left == 0 || right == 0 {
            return self.long_span_around(granule);
        }
        Some(base.wrapping_add(highest(left) + 1)..end + lowest(right) + 1)
    }

    /// Returns what [`Bits::span_around`] does of a used granule whose span goes beyond the words
    /// beside its own.
    #[cold]
    #[inline(never)]
    fn long_span_around(self, granule: usize) -> Option<Range<usize>> {
        let word = granule / WORD;
        let stop = self.stop(word);
        let (before, behind) = (stop & !from_bit(granule), stop & from_bit(granule));
        let start = match Self::bit(before, highest) {
            Some(bit) => word * WORD + bit + 1,
            None => self.last_stop_before(word).map_or(0, |stop| stop + 1),
        };
        let last = match Self::bit(behind, lowest) {
            Some(bit) => word * WORD + bit,
            None => self.next_stop_behind(word)?,
        };
        Some(start..last + 1)
    }

    /// Returns the live span that starts at `granule`: `None` where nothing is live, and otherwise
    /// an error where something is that starts before. The lock is held.
    #[inline]
    pub(super) fn span_from(self, granule: usize) -> Option<Result<Range<usize>, ()>> {
        if !self.is_used(granule) {
            return None;
        }
        if !self.starts(granule) {
            return Some(Err(()));
        }
        // The lock is held: every run has its stop bit.
        Some(Ok(granule..self.next_stop(granule)? + 1))
    }

    /// Says whether a run starts at `granule`. The lock is held.
    #[inline]
    fn starts(self, granule: usize) -> bool {
        granule == 0 || self.stop((granule - 1) / WORD) >> ((granule - 1) % WORD) & 1 == 1
    }

    /// Makes a range of granules a span if it is just one free run. The lock is held.
    #[inline]
    pub(super) fn take_run(self, run: &Range<usize>) -> bool {
        let (word, last) = (run.start / WORD, run.end - 1);
        if last >= self.count || !self.starts(run.start) {
            return false;
        }
        let (used, stop) = self.pair(word);
        if last / WORD == word {
            let mask = from_bit(run.start) & up_to_bit(last);
            let old = used.load(Ordering::Relaxed);
            if old & mask != 0 || stop.load(Ordering::Relaxed) & mask != 1 << (last % WORD) {
                return false;
            }
            used.store(old | mask, Ordering::Release);
            return true;
        }
        let whole = self.is_free_run(run);
        if whole {
            self.set_used(run.clone(), true);
        }
        whole
    }

    /// Says whether a range of granules is just one free run. The lock is held.
    #[inline]
    pub(super) fn is_free_run(self, run: &Range<usize>) -> bool {
        let last = run.end - 1;
        last < self.count
            && self.starts(run.start)
            && masks(run.clone()).all(|(word, mask)| {
                let end = if word == last / WORD {
                    1 << (last % WORD)
                } else {
                    0
                };
                self.used(word) & mask == 0 && self.stop(word) & mask == end
            })
    }

    /// Returns where the run starts that a granule belongs to. The lock is held.
    #[inline]
    pub(super) fn run_start(self, granule: usize) -> usize {
        self.last_stop(granule).map_or(0, |stop| stop + 1)
    }

    /// Yields the free runs that start in a word, in order. The lock is held.
    #[inline]
    pub(super) fn free_runs_from(
        self,
        word: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let first = word * WORD;
        let (mut free, stop) = (!self.used(word), self.stop(word));
        if first + WORD > self.count {
            free &= up_to_bit(self.count - 1);
        }
        if free & 1 == 1 && !self.starts(first) {
            // A run that comes over from the word before does not start here.
            free &= Self::bit(stop, lowest).map_or(0, |end| !up_to_bit(end));
        }
        core::iter::from_fn(move || {
            let start = Self::bit(free, lowest)?;
            let Some(end) = Self::bit(stop & from_bit(start), lowest) else {
                free = 0;
                // The lock is held: every run has its stop bit.
                return Some(first + start..self.next_stop_behind(word)? + 1);
            };
            free &= !up_to_bit(end);
            Some(first + start..first + end + 1)
        })
    }

    /// Makes a part of a free run a span. The lock is held.
    #[inline]
    pub(super) fn allocate(self, run: &Range<usize>, span: Range<usize>) {
        if span.start > run.start {
            self.set_stop(span.start - 1);
        }
        if span.end < run.end {
            self.set_stop(span.end - 1);
        }
        self.set_used(span, true);
    }

    /// Frees the tail of a live span behind its first `keep` granules; all of it for zero. Returns
    /// the free run that this makes, beside which others may lie. The lock is held.
    #[inline]
    pub(super) fn free_tail(self, span: Range<usize>, keep: usize) -> Range<usize> {
        let free = span.start + keep..span.end;
        self.set_used(free.clone(), false);
        if keep > 0 {
            self.set_stop(free.start - 1);
        }
        free
    }

    /// Makes one run of a free run and of the one that ends where it starts, if there is one. The
    /// lock is held.
    #[inline]
    pub(super) fn join_left(self, run: &mut Range<usize>) -> bool {
        if run.start == 0 || self.is_used(run.start - 1) {
            return false;
        }
        let boundary = run.start - 1;
        run.start = self.last_stop(boundary).map_or(0, |stop| stop + 1);
        self.clear_stop(boundary);
        true
    }

    /// Makes one run of the free ones that meet at a granule. The lock is held.
    #[inline]
    pub(super) fn join(self, granule: usize) {
        self.clear_stop(granule - 1);
    }

    /// Makes one run of a free run and of the one that starts where it ends, if there is one. The
    /// lock is held.
    #[inline]
    pub(super) fn join_right(self, run: &mut Range<usize>) -> bool {
        if run.end == self.count || self.is_used(run.end) {
            return false;
        }
        // The lock is held: every run has its stop bit.
        let Some(stop) = self.next_stop(run.end) else {
            return false;
        };
        self.clear_stop(run.end - 1);
        run.end = stop + 1;
        true
    }

    /// Returns where spans start in a word, and its stop bits. The lock is held.
    #[inline]
    pub(super) fn starts_in(self, word: usize) -> (u64, u64) {
        let stops = self.stop(word);
        let before = match word.checked_sub(1) {
            Some(before) => self.stop(before) >> (WORD - 1),
            None => 1,
        };
        (self.used(word) & (stops << 1 | before), stops)
    }

    /// Returns where the span ends that starts at a granule. The lock is held.
    #[inline]
    pub(super) fn end_of(self, start: usize) -> usize {
        // The lock is held: every run has its stop bit.
        self.next_stop(start).map_or(self.count, |stop| stop + 1)
    }

    /// Yields the maximal runs of used granules, in order. The lock is held.
    pub(super) fn used_runs(self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let start = self.next_where(at, true)?;
            let end = self.next_where(start, false).unwrap_or(self.count);
            at = end;
            Some(start..end)
        })
    }

    /// Returns the first granule from `from` on that is used, or is not.
    fn next_where(self, from: usize, used: bool) -> Option<usize> {
        masks(from..self.count).find_map(|(word, mask)| {
            let bits = self.used(word);
            let found = mask & if used { bits } else { !bits };
            Self::bit(found, lowest).map(|bit| word * WORD + bit)
        })
    }
}
