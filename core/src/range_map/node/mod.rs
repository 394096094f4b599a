//! Nodes: words that mean a leaf or an inner node.
//!
//! ```text
//!   leaf         header │ base │ offsets of the starts │ length and value, a word each ┃ gaps
//!   wide leaf    header │      │ starts │ lengths │ values
//!   inner node   header │ base │ offsets of lowest starts, two a word │ children, two a word ┃ …
//!   wide inner   header │ lowest starts │ children, two a word ┃ …
//!                       └── what a query reads ────────────────┛
//! ```
//!
//! Offsets lie two a word. They have 31 bits and are compared sixteen at a time. Header, base and
//! offsets are four cache lines.
//!
//! Every word is an atomic, so that a reader who comes late may read a node that has become another
//! one: what it got is then discarded. Slots behind the last one in use hold starts that no page
//! reaches; in inner nodes all slots of children, used or not, hold nodes.

mod inner;
mod leaf;

use super::Value;
use crate::{
    arch::{self, first_above},
    atomic::{AtomicU64, Ordering},
};
pub(super) use inner::{Child, saturated};
pub(super) use leaf::View;

/// The words of a node: 768 bytes. Sixty ranges are found by five cache lines, and copied in less
/// time than a miss takes; wider nodes gain little on the first and lose on the second.
pub(super) const WORDS: usize = 96;

/// A start that no page reaches: pages have two bytes, or lie below it.
const NEVER: u64 = 1 << 63;

/// The offset of nothing in a node that is not wide. Offsets have 31 bits, so that pairs of them
/// are compared as words.
const NO_OFFSET: u32 = u32::MAX >> 1;
/// The bit of the header that makes a node wide.
const WIDE_BIT: u64 = 1 << 32;

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

/// Returns 1 if `a` is less than `b`, both at most [`NEVER`]; by the sign, since compilers make
/// long detours of sums of comparisons.
#[inline]
const fn is_below(a: u64, b: u64) -> usize {
    (a.wrapping_sub(b) >> 63) as usize
}

/// Returns the larger of two numbers, both at most [`NEVER`], without a branch, as [`is_below`]
/// does.
#[inline]
const fn larger(a: u64, b: u64) -> u64 {
    // All ones if a is less than b.
    let below = (is_below(a, b) as u64).wrapping_neg();
    a ^ (a ^ b) & below
}

impl<const W: usize> Node<W> {
    /// Words of offsets in a node that is not wide. Many are an even number, so that two words are
    /// read at a time, and end with a cache line.
    const PAIRS: usize = {
        let mut pairs = (W - 3) / 3;
        while 2 + 3 * pairs + Self::gap_words(pairs) > W {
            pairs -= 1;
        }
        if pairs > 2 * arch::PAIRS {
            pairs / 2 * 2
        } else {
            pairs
        }
    };
    /// Ranges in a leaf; even.
    pub(super) const LEAF: usize = 2 * Self::PAIRS;
    /// Ranges in a wide leaf.
    pub(super) const WIDE: usize = (W - 2) / 3;
    /// The length in pages within which ranges never make a node wide.
    pub(super) const NARROW_PAGES: u64 = (u32::MAX >> 1) as u64;
    /// Children of an inner node; even.
    pub(super) const INNER: usize = 2 * Self::PAIRS;
    /// Children of a wide inner node.
    pub(super) const WIDE_INNER: usize = (W - 1) * 2 / 5;

    /// Returns how many words the largest gaps of the ranges of a leaf take.
    const fn gap_words(pairs: usize) -> usize {
        (2 * pairs).div_ceil(2 * GROUP)
    }

    const OFFSETS: usize = 2;
    const TAILS: usize = Self::OFFSETS + Self::PAIRS;

    const STARTS: usize = 2;
    const LENGTHS: usize = Self::STARTS + Self::WIDE;
    const VALUES: usize = Self::LENGTHS + Self::WIDE;

    const CHILDREN: usize = Self::OFFSETS + Self::PAIRS;
    const GAPS: usize = Self::CHILDREN + Self::PAIRS;
    const LOW: usize = Self::GAPS + Self::PAIRS;

    const WIDE_LOWS: usize = 1;
    const WIDE_CHILDREN: usize = Self::WIDE_LOWS + Self::WIDE_INNER;
    const WIDE_GAPS: usize = Self::WIDE_CHILDREN + Self::WIDE_INNER.div_ceil(2);

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

    /// Changes the lower half of a word for even numbers, the upper one for odd ones.
    #[inline]
    fn set_half(&self, at: usize, n: usize, half: u32) {
        let shift = n % 2 * 32;
        let other = self.get(at) & !(u64::from(u32::MAX) << shift);
        self.set(at, other | u64::from(half) << shift);
    }

    #[inline]
    fn offset(&self, n: usize) -> u32 {
        low_half(self.get(Self::OFFSETS + n / 2) >> (n % 2 * 32))
    }

    /// Returns how many offsets of a node that is not wide lead to `page` or less; 0 below the
    /// base.
    #[inline]
    fn rank_narrow(&self, page: u64) -> usize {
        let Some(offset) = page.checked_sub(self.get(1)) else {
            return 0;
        };
        let most = NO_OFFSET - 1;
        self.rank_offsets(u32::try_from(offset).unwrap_or(most).min(most))
    }

    /// Returns how many offsets are at most `key`, which is below [`NO_OFFSET`].
    #[inline]
    fn rank_offsets(&self, key: u32) -> usize {
        let words = &self.words[Self::OFFSETS..Self::OFFSETS + Self::PAIRS];
        if Self::PAIRS < 2 * arch::PAIRS || !Self::PAIRS.is_multiple_of(2) {
            let reached = |word: &AtomicU64| {
                let word = word.load(Ordering::Relaxed);
                usize::from(low_half(word) <= key) + usize::from(high_half(word) <= key)
            };
            return words.iter().map(reached).sum();
        }
        // The first of each sixteen, and then the sixteen; no branch depends on a page, so none is
        // predicted wrongly, and the lines of all are fetched at once.
        let (mut steps, mut at) = (0, arch::PAIRS);
        while at < Self::PAIRS {
            steps += usize::from(low_half(words[at].load(Ordering::Relaxed)) <= key);
            at += arch::PAIRS;
        }
        let before = (steps * arch::PAIRS).min(Self::PAIRS - arch::PAIRS);
        let sixteen = words[before..].first_chunk().expect("sixteen are left");
        2 * before + first_above(sixteen, key)
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

/// Nodes that are not in use.
impl<const W: usize> Node<W> {
    /// Returns the next one.
    pub(super) fn next_free(&self) -> u32 {
        low_half(self.get(0))
    }

    pub(super) fn set_next_free(&self, id: u32) {
        self.set(0, id.into());
    }
}
