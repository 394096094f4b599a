//! Inner nodes.
//!
//! ```text
//!   header │ lowest starts │ children, two a word ┃ largest gaps
//!          └──────── what a query reads ──────────┛
//! ```
//!
//! All slots of children, used or not, hold nodes.

use super::{NEVER, Node, high_half, larger, low_half, pair};
use crate::atomic::{AtomicU64, Ordering};

/// A child of an inner node.
#[derive(Clone, Copy, Debug)]
pub(in crate::range_map) struct Child {
    /// The lowest start below it; of the very first child, where the tree's bounds begin.
    pub(in crate::range_map) low: u64,
    pub(in crate::range_map) id: u32,
    /// Pages of the largest gap below it.
    pub(in crate::range_map) gap: u64,
}

impl<const W: usize> Node<W> {
    /// Returns the child that answers for `page`.
    #[inline]
    pub(in crate::range_map) fn child_for(&self, page: u64) -> usize {
        // A reader that comes late may find none.
        self.rank_words(Self::LOWS, Self::INNER, page)
            .saturating_sub(1)
    }

    /// Returns the lowest start of a child; behind the last child, a page that is never reached.
    #[inline]
    pub(in crate::range_map) fn low(&self, n: usize) -> u64 {
        if n < Self::INNER {
            self.get(Self::LOWS + n)
        } else {
            NEVER
        }
    }

    /// Returns a child, and all that was written to it.
    #[inline]
    pub(in crate::range_map) fn child(&self, n: usize) -> u32 {
        let word = self.words[Self::CHILDREN + n / 2].load(Ordering::Acquire);
        if n.is_multiple_of(2) {
            low_half(word)
        } else {
            high_half(word)
        }
    }

    /// Publishes another child in the place of the nth: the one change of a node that readers
    /// reach, a single store.
    #[inline]
    pub(in crate::range_map) fn publish_child(&self, n: usize, id: u32) {
        let slot = &self.words[Self::CHILDREN + n / 2];
        let word = slot.load(Ordering::Relaxed);
        let word = if n.is_multiple_of(2) {
            pair(id, high_half(word))
        } else {
            pair(low_half(word), id)
        };
        slot.store(word, Ordering::Release);
    }

    /// Returns the pages of the largest gap below a child. No reader asks.
    #[inline]
    pub(in crate::range_map) fn gap(&self, n: usize) -> u64 {
        self.get(Self::GAPS + n)
    }

    /// Finds the first child from the nth on with a gap of `len` pages or more.
    #[inline]
    pub(in crate::range_map) fn next_gap(&self, n: usize, len: u64) -> Option<usize> {
        let gaps = self.words[Self::GAPS..Self::GAPS + self.count()].get(n..)?;
        // Four at a time, so that counting and the end of the loop cost less than comparing.
        let (fours, rest) = gaps.as_chunks::<4>();
        let find = |gaps: &[AtomicU64]| {
            let mut gaps = gaps.iter();
            gaps.position(|gap| gap.load(Ordering::Relaxed) >= len)
        };
        for (four, at) in fours.iter().zip((n..).step_by(4)) {
            if let Some(found) = find(four) {
                return Some(at + found);
            }
        }
        find(rest).map(|found| n + 4 * fours.len() + found)
    }

    /// Changes the largest gap below a child. No reader sees it.
    #[inline]
    pub(in crate::range_map) fn set_gap(&self, n: usize, gap: u64) {
        self.set(Self::GAPS + n, gap);
    }

    /// Returns the pages of the largest gap below the node.
    pub(in crate::range_map) fn inner_gap(&self) -> u64 {
        let gaps = &self.words[Self::GAPS..Self::GAPS + self.count()];
        let gaps = gaps.iter().map(|gap| gap.load(Ordering::Relaxed));
        gaps.fold(0, larger)
    }

    pub(in crate::range_map) fn children(&self) -> impl Iterator<Item = Child> + '_ {
        (0..self.count()).map(|n| Child {
            low: self.low(n),
            id: self.child(n),
            gap: self.gap(n),
        })
    }

    /// Writes an inner node of at least one child.
    pub(in crate::range_map) fn write_inner(&self, children: &[Child]) {
        self.set(0, children.len() as u64);
        for n in 0..Self::INNER {
            let low = children.get(n).map_or(NEVER, |child| child.low);
            self.set(Self::LOWS + n, low);
            self.set_gap(n, children.get(n).map_or(0, |child| child.gap));
        }
        // Slots that are not in use hold nodes, too: a reader that comes late may follow any.
        let id = |n: usize| children.get(n).or(children.first()).map_or(0, |c| c.id);
        for word in 0..Self::INNER.div_ceil(2) {
            self.set(Self::CHILDREN + word, pair(id(2 * word), id(2 * word + 1)));
        }
    }
}
