//! Nodes: words that mean a leaf or an inner node.
//!
//! ```text
//!   leaf         header │ base │ offsets of the starts, two a word │ length and value, a word each
//!   wide leaf    header │      │ starts │ lengths │ values
//!   inner node   header │ lowest starts │ children, two a word ┃ largest gaps
//!                       └── what a query reads ────────────────┛
//! ```
//!
//! Every word is an atomic, so that a reader who comes late may read a node that has become another
//! one: what it got is then discarded. Slots behind the last one in use hold starts that no page
//! reaches; in inner nodes all slots of children, used or not, hold nodes.

mod inner;
mod leaf;

use super::Value;
use crate::atomic::{AtomicU64, Ordering};
pub(super) use inner::Child;

/// The words of a node: 768 bytes. Sixty-two ranges are found by three cache lines or four, and
/// copied in less time than a miss takes; wider nodes gain little on the first and lose on the
/// second.
pub(super) const WORDS: usize = 96;

/// A start that no page reaches: pages have two bytes, or lie below it.
const NEVER: u64 = 1 << 63;

/// How many starts are compared one and all, rather than by halves.
const GROUP: usize = 8;

/// One range of pages and the bits of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) bits: u64,
}

impl Entry {
    pub(super) const fn new(start: u64, end: u64, bits: u64) -> Self {
        Self {
            start,
            len: end - start,
            bits,
        }
    }

    /// Returns what the bits stand for.
    #[inline]
    pub(crate) fn value<T: Value>(self) -> T {
        T::from_bits64(self.bits)
    }

    /// Returns the page behind the last one.
    #[inline]
    pub(crate) const fn end(self) -> u64 {
        self.start.wrapping_add(self.len)
    }
}

/// One node.
#[repr(C, align(64))]
pub(crate) struct Node<const W: usize> {
    words: [AtomicU64; W],
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is asked for"
)]
const fn low_half(word: u64) -> u32 {
    word as u32
}

#[inline]
const fn high_half(word: u64) -> u32 {
    low_half(word >> 32)
}

#[inline]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Returns 1 if `a` is less than `b`, both at most [`NEVER`]; by the sign, since compilers make long
/// detours of sums of comparisons.
#[inline]
const fn is_below(a: u64, b: u64) -> usize {
    (a.wrapping_sub(b) >> 63) as usize
}

/// Returns the larger of two numbers, both at most [`NEVER`], without a branch, as [`is_below`] does.
#[inline]
const fn larger(a: u64, b: u64) -> u64 {
    // All ones if a is less than b.
    let below = (is_below(a, b) as u64).wrapping_neg();
    a ^ (a ^ b) & below
}

impl<const W: usize> Node<W> {
    /// Ranges in a leaf; even.
    pub(super) const LEAF: usize = (W - 2) / 3 * 2;
    /// Ranges in a wide leaf.
    pub(super) const WIDE: usize = (W - 2) / 3;
    /// Ranges that lie within so many pages never make a leaf wide.
    pub(super) const NARROW_PAGES: u64 = (u32::MAX >> 1) as u64;
    /// Children of an inner node.
    pub(super) const INNER: usize = (W - 1) * 2 / 5;

    const OFFSETS: usize = 2;
    const TAILS: usize = Self::OFFSETS + Self::LEAF / 2;

    const STARTS: usize = 2;
    const LENGTHS: usize = Self::STARTS + Self::WIDE;
    const VALUES: usize = Self::LENGTHS + Self::WIDE;

    const LOWS: usize = 1;
    const CHILDREN: usize = Self::LOWS + Self::INNER;
    const GAPS: usize = Self::CHILDREN + Self::INNER.div_ceil(2);

    /// Makes a node as it is in fresh memory.
    #[cfg(test)]
    pub(super) fn new() -> Self {
        Self {
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline]
    fn get(&self, at: usize) -> u64 {
        self.words[at].load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, at: usize, word: u64) {
        self.words[at].store(word, Ordering::Relaxed);
    }

    /// Returns how many of `slots` sorted words from `at` are at most `key`, which is below
    /// [`NEVER`], as the words are.
    #[inline]
    fn rank_words(&self, at: usize, slots: usize, key: u64) -> usize {
        let words = &self.words[at..at + slots];
        let reached = |word: &AtomicU64| is_below(word.load(Ordering::Relaxed), key + 1);
        if slots < 2 * GROUP {
            return words.iter().map(reached).sum();
        }
        // No branch depends on a page here, so none is predicted wrongly, and the lines of all
        // groups are fetched at once.
        let (groups, _) = words.as_chunks::<GROUP>();
        let whole: usize = groups.iter().map(|group| reached(&group[GROUP - 1])).sum();
        // The last word of the next group is known to be more, so one fewer is left to compare.
        let rest = GROUP - 1;
        let before = (whole * GROUP).min(slots - rest);
        let words = &words[before..before + rest];
        before + words.iter().map(reached).sum::<usize>()
    }
}

/// Nodes that hold anything for a while.
impl<const W: usize> Node<W> {
    /// Items of three words.
    pub(super) const ITEMS: usize = (W - 1) / 3;

    pub(super) fn item(&self, n: usize) -> [u64; 3] {
        core::array::from_fn(|word| self.get(3 * n + word))
    }

    pub(super) fn set_item(&self, n: usize, item: [u64; 3]) {
        for (word, value) in item.into_iter().enumerate() {
            self.set(3 * n + word, value);
        }
    }

    /// Returns the node with the next items.
    pub(super) fn link(&self) -> u32 {
        low_half(self.get(W - 1))
    }

    pub(super) fn set_link(&self, id: u32) {
        self.set(W - 1, id.into());
    }
}

/// Nodes that nobody uses.
impl<const W: usize> Node<W> {
    /// Returns the next one.
    pub(super) fn next_free(&self) -> u32 {
        low_half(self.get(0))
    }

    pub(super) fn set_next_free(&self, id: u32) {
        self.set(0, id.into());
    }
}
