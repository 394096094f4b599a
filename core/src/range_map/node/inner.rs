//! Inner nodes.
//!
//! ```text
//!   inner node   header │ base │ offsets │ children, two a word ┃ largest gaps, two a word │ low
//!   wide inner   header │ lowest starts  │ children, two a word ┃ largest gaps
//!                       └── what a query reads ─────────────────┛
//! ```
//!
//! The first child answers for all in front of the second one, so its own lowest start, often the
//! first page of all, is no offset: the base is that of the second child. All slots of children,
//! used or not, hold nodes.

use super::{NEVER, NO_OFFSET, Node, WIDE_BIT, high_half, larger, low_half, pair};
use crate::{
    arch::{PAIRS, RANKED, first_above, largest},
    atomic::Ordering,
};

/// The largest gap that is noted; longer ones are noted as this: 31 bits are compared two at a
/// time.
const MOST_GAP: u64 = NO_OFFSET as u64;

/// Returns what is noted of a gap.
#[inline]
pub(in crate::range_map) const fn saturated(gap: u64) -> u64 {
    if gap < MOST_GAP { gap } else { MOST_GAP }
}

/// A child of an inner node.
#[derive(Clone, Copy, Debug)]
pub(in crate::range_map) struct Child {
    /// The lowest start below it; of the very first child, where the tree's bounds begin.
    pub(in crate::range_map) low: u64,
    pub(in crate::range_map) id: u32,
    /// Pages of the largest gap below it, as they are noted.
    pub(in crate::range_map) gap: u64,
}

/// Reading.
impl<const W: usize> Node<W> {
    /// Returns the child that answers for `page`.
    #[inline]
    pub(in crate::range_map) fn child_for(&self, page: u64) -> usize {
        self.child_for_as(self.is_wide(), page)
    }

    #[inline]
    fn child_for_as(&self, wide: bool, page: u64) -> usize {
        let reached = if wide {
            self.rank_words(Self::WIDE_LOWS, Self::WIDE_INNER, page)
        } else {
            self.rank_narrow(page)
        };
        // Of a wide node a reader that comes late may find none.
        reached.saturating_sub(1)
    }

    /// Returns the child that answers for `page`, and its number, with all that was written to it.
    #[inline(always)]
    pub(in crate::range_map) fn way_to(&self, page: u64) -> (usize, u32) {
        let wide = self.is_wide_for_children();
        let at = self.child_for_as(wide, page);
        (at, self.child_as(wide, at))
    }

    /// Returns the lowest start of a child; behind the last child, a page that is never reached.
    #[inline]
    pub(in crate::range_map) fn low(&self, n: usize) -> u64 {
        if self.is_wide() {
            return if n < Self::WIDE_INNER {
                self.get(Self::WIDE_LOWS + n)
            } else {
                NEVER
            };
        }
        if n == 0 {
            return self.get(Self::LOW);
        }
        if n >= Self::INNER {
            return NEVER;
        }
        match self.offset(n) {
            NO_OFFSET => NEVER,
            offset => self.get(1).wrapping_add(offset.into()),
        }
    }

    /// Returns a child, and all that was written to it.
    #[inline]
    pub(in crate::range_map) fn child(&self, n: usize) -> u32 {
        self.child_as(self.is_wide_for_children(), n)
    }

    /// Says whether the node is wide, to who reads a child next and may come late: the word that is
    /// read is then not one from before the node became what this says. That could be no child's,
    /// and come without the version that moved.
    #[inline]
    fn is_wide_for_children(&self) -> bool {
        self.words[0].load(Ordering::Acquire) & WIDE_BIT != 0
    }

    #[inline]
    fn child_as(&self, wide: bool, n: usize) -> u32 {
        let word = self.words[Self::children_at(wide) + n / 2].load(Ordering::Acquire);
        if n.is_multiple_of(2) {
            low_half(word)
        } else {
            high_half(word)
        }
    }

    #[inline]
    const fn children_at(wide: bool) -> usize {
        if wide {
            Self::WIDE_CHILDREN
        } else {
            Self::CHILDREN
        }
    }

    pub(in crate::range_map) fn children(&self) -> impl Iterator<Item = Child> + '_ {
        (0..self.count()).map(|n| Child {
            low: self.low(n),
            id: self.child(n),
            gap: self.gap(n),
        })
    }
}

/// Writing.
impl<const W: usize> Node<W> {
    /// Publishes another child in the place of the nth: the one change of a node that readers
    /// reach, a single store.
    #[inline]
    pub(in crate::range_map) fn publish_child(&self, n: usize, id: u32) {
        let slot = &self.words[Self::children_at(self.is_wide()) + n / 2];
        let word = slot.load(Ordering::Relaxed);
        let word = if n.is_multiple_of(2) {
            pair(id, high_half(word))
        } else {
            pair(low_half(word), id)
        };
        slot.store(word, Ordering::Release);
    }

    /// Says whether the nth child, which is not the first one, can begin at `low` in a node as it
    /// is.
    #[inline]
    pub(in crate::range_map) fn can_begin(&self, n: usize, low: u64) -> bool {
        n > 0 && (self.is_wide() || low - self.get(1) < NO_OFFSET.into())
    }

    /// Makes the nth child begin at `low`, where it can, between those around it: by one store,
    /// while readers may be in the node.
    #[inline]
    pub(in crate::range_map) fn begin(&self, n: usize, low: u64) {
        if self.is_wide() {
            self.set(Self::WIDE_LOWS + n, low);
        } else {
            self.set_half(Self::OFFSETS + n / 2, n, low_half(low - self.get(1)));
        }
    }

    /// Returns how many of some children, which are in order, a node can have at most.
    #[inline]
    pub(in crate::range_map) fn room_for(children: &[Child]) -> usize {
        match children {
            [_, second, .., last] if last.low - second.low >= NO_OFFSET.into() => Self::WIDE_INNER,
            _ => Self::INNER,
        }
    }

    /// Writes an inner node of at least one child, of no more than [`Node::room_for`] says.
    pub(in crate::range_map) fn write_inner(&self, children: &[Child]) {
        let most = Self::room_for(children);
        debug_assert!(children.len() <= most, "children that a node can have");
        let count = children.len() as u64;
        // Slots that are not in use hold nodes, too: a reader that comes late may follow any.
        let id = |n: usize| children.get(n).or(children.first()).map_or(0, |c| c.id);
        let gap = |n: usize| saturated(children.get(n).map_or(0, |child| child.gap));
        if most == Self::WIDE_INNER {
            self.set(0, count | WIDE_BIT);
            for n in 0..most {
                let low = children.get(n).map_or(NEVER, |child| child.low);
                self.set(Self::WIDE_LOWS + n, low);
                self.set(Self::WIDE_GAPS + n, gap(n));
            }
            for word in 0..most.div_ceil(2) {
                let ids = pair(id(2 * word), id(2 * word + 1));
                self.set(Self::WIDE_CHILDREN + word, ids);
            }
            return;
        }
        // No page reaches the second child where there is none.
        let base = children.get(1).map_or(NEVER, |second| second.low);
        let offset = |n: usize| match children.get(n) {
            Some(child) if n > 0 => low_half(child.low - base),
            Some(_) => 0,
            None => NO_OFFSET,
        };
        self.set(0, count);
        self.set(1, base);
        self.set(Self::LOW, children.first().map_or(0, |child| child.low));
        for word in 0..Self::PAIRS {
            let (even, odd) = (2 * word, 2 * word + 1);
            self.set(Self::OFFSETS + word, pair(offset(even), offset(odd)));
            self.set(Self::CHILDREN + word, pair(id(even), id(odd)));
            self.set(Self::GAPS + word, gap(even) | gap(odd) << 32);
        }
    }
}

/// Largest gaps, which no reader asks for.
impl<const W: usize> Node<W> {
    /// Returns the pages of the largest gap below a child, as they are noted.
    #[inline]
    pub(in crate::range_map) fn gap(&self, n: usize) -> u64 {
        if self.is_wide() {
            return self.get(Self::WIDE_GAPS + n);
        }
        let word = self.get(Self::GAPS + n / 2);
        let half = if n.is_multiple_of(2) {
            low_half(word)
        } else {
            high_half(word)
        };
        half.into()
    }

    /// Says whether a gap of `len` pages or more may lie below a child: one does where all gaps are
    /// noted as they are.
    #[inline]
    pub(in crate::range_map) fn may_have(&self, n: usize, len: u64) -> bool {
        self.gap(n) >= saturated(len)
    }

    /// Changes the largest gap below a child, as it is noted.
    #[inline]
    pub(in crate::range_map) fn set_gap(&self, n: usize, gap: u64) {
        if self.is_wide() {
            self.set(Self::WIDE_GAPS + n, gap);
        } else {
            self.set_half(Self::GAPS + n / 2, n, low_half(gap));
        }
    }

    /// Finds the first child from the nth on that may have a gap of `len` pages or more, which is
    /// not 0.
    #[inline]
    pub(in crate::range_map) fn next_gap(&self, n: usize, len: u64) -> Option<usize> {
        let len = saturated(len);
        if self.is_wide() {
            return (n..self.count()).find(|&n| self.gap(n) >= len);
        }
        let words = &self.words[Self::GAPS..Self::LOW];
        let mut at = n / 2;
        // Children before the nth do not count.
        if !n.is_multiple_of(2) {
            if self.gap(n) >= len {
                return Some(n);
            }
            at += 1;
        }
        // Gaps and slots not in use are below the length. The last ones are seen twice, if need be.
        while at < Self::PAIRS {
            let from = at.min(Self::PAIRS.saturating_sub(PAIRS));
            let Some(sixteen) = words[from..]
                .first_chunk()
                .filter(|_| from >= n.div_ceil(2))
            else {
                break;
            };
            let found = first_above(sixteen, low_half(len) - 1);
            if found < RANKED {
                return Some(2 * from + found);
            }
            at += PAIRS;
        }
        (2 * at..Self::INNER).find(|&n| self.gap(n) >= len)
    }

    /// Returns the pages of the largest gap below the node, as they are noted.
    pub(in crate::range_map) fn inner_gap(&self) -> u64 {
        if self.is_wide() {
            return (0..self.count()).fold(0, |most, n| larger(most, self.gap(n)));
        }
        largest(&self.words[Self::GAPS..Self::LOW]).into()
    }
}
