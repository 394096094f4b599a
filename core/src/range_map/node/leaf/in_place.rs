//! Changes of leaves while readers are in them: one store is all that they can tell of each.

use super::super::{Entry, Node, low_half};
use super::ONE_DEAD;

impl<const W: usize> Node<W> {
    /// Says whether a leaf as it is can hold a range.
    #[inline]
    pub(in crate::range_map) fn can_hold(&self, entry: Entry) -> bool {
        self.is_wide() || Self::packs(self.get(1), entry)
    }

    /// Changes the length of the nth range to that of `entry`, which differs in nothing else.
    #[inline]
    pub(in crate::range_map) fn set_len(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set(Self::LENGTHS + n, entry.len);
        } else {
            self.set(Self::TAILS + n, Self::tail(entry));
        }
    }

    /// Changes the value of the nth range to that of `entry`, which differs in nothing else.
    #[inline]
    pub(in crate::range_map) fn set_bits(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set(Self::VALUES + n, entry.bits);
        } else {
            self.set(Self::TAILS + n, Self::tail(entry));
        }
    }

    /// Makes the nth range a dead one.
    #[inline]
    pub(in crate::range_map) fn kill(&self, n: usize) {
        let entry = Entry {
            len: 0,
            ..self.entry(n)
        };
        self.set_len(n, entry);
        self.set(0, self.get(0) + ONE_DEAD);
    }

    /// Moves the nth range, which is dead, within the gap that it lies in, to where `entry` begins.
    #[inline]
    pub(in crate::range_map) fn move_dead(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set(Self::STARTS + n, entry.start);
            self.set_bits(n, entry);
        } else {
            let offset = low_half(entry.start - self.get(1));
            self.set_half(Self::OFFSETS + n / 2, n, offset);
        }
    }

    /// Makes the nth range, which is dead and was moved for this, `entry`.
    #[inline]
    pub(in crate::range_map) fn revive(&self, n: usize, entry: Entry) {
        self.set_len(n, entry);
        self.set(0, self.get(0) - ONE_DEAD);
    }

    /// Notes how many ranges of a copied leaf are dead.
    #[inline]
    pub(in crate::range_map) fn set_dead(&self, dead: usize) {
        self.set(0, self.get(0) + ONE_DEAD * dead as u64);
    }
}
