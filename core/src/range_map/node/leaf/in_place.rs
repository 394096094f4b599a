//! Changes of leaves while readers are in them: one store is all that they can tell of each.

use super::super::{Entry, Node, low_half};
use super::{ONE_DEAD, View};

impl<const W: usize, const WIDE: bool> View<'_, W, WIDE> {
    /// Changes the length of the nth range to that of `entry`, which differs in nothing else.
    #[inline(always)]
    pub(in crate::range_map) fn set_len(self, n: usize, entry: Entry) {
        if WIDE {
            self.node.set(Node::<W>::LENGTHS + n, entry.len);
        } else {
            self.node.set(Node::<W>::TAILS + n, Node::<W>::tail(entry));
        }
    }

    /// Changes the value of the nth range to that of `entry`, which differs in nothing else.
    #[inline(always)]
    pub(in crate::range_map) fn set_bits(self, n: usize, entry: Entry) {
        if WIDE {
            self.node.set(Node::<W>::VALUES + n, entry.bits);
        } else {
            self.node.set(Node::<W>::TAILS + n, Node::<W>::tail(entry));
        }
    }

    /// Makes the nth range, which is `entry`, a dead one.
    #[inline(always)]
    pub(in crate::range_map) fn kill(self, n: usize, entry: Entry) {
        self.set_len(n, Entry { len: 0, ..entry });
        self.node.set(0, self.node.get(0) + ONE_DEAD);
    }

    /// Moves the nth range, which is dead, within the gap that it lies in, to where `entry` begins.
    #[inline(always)]
    pub(in crate::range_map) fn move_dead(self, n: usize, entry: Entry) {
        if WIDE {
            self.node.set(Node::<W>::STARTS + n, entry.start);
            self.set_bits(n, entry);
        } else {
            let offset = low_half(entry.start - self.base);
            self.node.set_half(Node::<W>::OFFSETS + n / 2, n, offset);
        }
    }

    /// Makes the nth range, which is dead and was moved for this, `entry`.
    #[inline(always)]
    pub(in crate::range_map) fn revive(self, n: usize, entry: Entry) {
        self.set_len(n, entry);
        self.node.set(0, self.node.get(0) - ONE_DEAD);
    }
}

impl<const W: usize> Node<W> {
    /// Notes how many ranges of a copied leaf are dead.
    #[inline]
    pub(in crate::range_map) fn set_dead(&self, dead: usize) {
        self.set(0, self.get(0) + ONE_DEAD * dead as u64);
    }
}
