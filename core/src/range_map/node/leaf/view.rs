//! A leaf of one kind, as the writer sees it.

use super::super::{Entry, Node, high_half, low_half};

/// A leaf that is wide, or one that is not, whose base and count are known: what a change asks for
/// is then a load or two. Nobody else changes the leaf meanwhile.
#[derive(Clone, Copy)]
pub(in crate::range_map) struct View<'a, const W: usize, const WIDE: bool> {
    pub(in crate::range_map) node: &'a Node<W>,
    pub(super) base: u64,
    pub(super) count: usize,
}

impl<'a, const W: usize, const WIDE: bool> View<'a, W, WIDE> {
    #[inline(always)]
    pub(in crate::range_map) fn of(node: &'a Node<W>) -> Self {
        debug_assert_eq!(node.is_wide(), WIDE, "the kind that it is");
        Self {
            node,
            base: if WIDE { 0 } else { node.get(1) },
            count: node.count(),
        }
    }

    /// Returns how many ranges there are, dead ones too.
    #[inline(always)]
    pub(in crate::range_map) const fn count(self) -> usize {
        self.count
    }

    /// Returns how many ranges, dead ones too, start at or below `page`.
    #[inline(always)]
    pub(in crate::range_map) fn rank(self, page: u64) -> usize {
        self.node.rank_as(WIDE, page)
    }

    /// Returns a number of a range as it is, in a way that compilers know it to be one of a slot.
    #[inline(always)]
    pub(super) const fn slot(n: usize) -> usize {
        n & (Node::<W>::LEAF.next_power_of_two() - 1)
    }

    /// Returns where a range starts.
    #[inline(always)]
    pub(in crate::range_map) fn start(self, n: usize) -> u64 {
        let n = Self::slot(n);
        if WIDE {
            self.node.get(Node::<W>::STARTS + n)
        } else {
            self.base.wrapping_add(self.node.offset(n).into())
        }
    }

    /// Returns the pages of a range, 0 for a dead one.
    #[inline(always)]
    pub(in crate::range_map) fn len(self, n: usize) -> u64 {
        let n = Self::slot(n);
        if WIDE {
            self.node.get(Node::<W>::LENGTHS + n)
        } else {
            high_half(self.node.get(Node::<W>::TAILS + n)).into()
        }
    }

    /// Returns a range.
    #[inline(always)]
    pub(in crate::range_map) fn entry(self, n: usize) -> Entry {
        let n = Self::slot(n);
        if WIDE {
            return self.node.entry_as(true, n);
        }
        let tail = self.node.get(Node::<W>::TAILS + n);
        Entry {
            start: self.start(n),
            len: high_half(tail).into(),
            bits: low_half(tail).into(),
        }
    }

    /// Returns the page behind the last one of a range.
    #[inline(always)]
    pub(in crate::range_map) fn end(self, n: usize) -> u64 {
        self.start(n).wrapping_add(self.len(n))
    }

    /// Returns the first range from the nth on that is not dead.
    #[inline(always)]
    pub(in crate::range_map) fn live_from(self, mut n: usize) -> Option<usize> {
        while n < self.count {
            if self.len(n) != 0 {
                return Some(n);
            }
            n += 1;
        }
        None
    }

    /// Returns the last range before the nth that is not dead: the first one never is, and `n` is
    /// not 0.
    #[inline(always)]
    pub(in crate::range_map) fn live_before(self, mut n: usize) -> usize {
        n -= 1;
        while n > 0 && self.len(n) == 0 {
            n -= 1;
        }
        n
    }

    /// Says whether the leaf as it is can hold a range.
    #[inline(always)]
    pub(in crate::range_map) fn can_hold(self, entry: Entry) -> bool {
        WIDE || Node::<W>::packs(self.base, entry)
    }

    /// Returns how many ranges fit into such a leaf.
    #[inline(always)]
    pub(in crate::range_map) const fn capacity(self) -> usize {
        if WIDE {
            Node::<W>::WIDE
        } else {
            Node::<W>::LEAF
        }
    }
}
