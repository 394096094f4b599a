//! Changes of leaves while readers are in them: one store is all that they can tell of each.

use super::super::{Entry, Node, low_half};
use super::{ONE_DEAD, View};
use crate::atomic::Ordering;

impl<const W: usize, const WIDE: bool> View<'_, W, WIDE> {
    /// Changes the length of the nth range to that of `entry`, which differs in nothing else.
    #[inline(always)]
    pub(in crate::range_map) fn set_len(self, n: usize, entry: Entry) {
        let n = Self::slot(n);
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

    /// Makes the nth range, which is `entry`, a dead one. `step` moves the version.
    #[inline(always)]
    pub(in crate::range_map) fn kill(self, n: usize, entry: Entry, step: impl Fn()) {
        // Whoever finds it dead knows that there may be dead ones, or starts over.
        self.node.set(0, self.node.get(0) + ONE_DEAD);
        step();
        self.set_len(n, Entry { len: 0, ..entry });
    }

    /// Moves the nth range, which is dead, within the gap that it lies in, to where `entry` begins.
    #[inline(always)]
    pub(in crate::range_map) fn move_dead(self, n: usize, entry: Entry) {
        if WIDE {
            self.node.set(Node::<W>::STARTS + n, entry.start);
            self.set_bits(n, entry);
        } else {
            let n = Self::slot(n);
            let offset = low_half(entry.start - self.base);
            self.node.set_half(Node::<W>::OFFSETS + n / 2, n, offset);
        }
    }

    /// Makes the nth range, which is dead and was moved for this, `entry`.
    #[inline(always)]
    pub(in crate::range_map) fn revive(self, n: usize, entry: Entry) {
        self.set_len(n, entry);
        // Whoever learns from this that none is dead finds this one alive.
        let header = self.node.get(0) - ONE_DEAD;
        self.node.words[0].store(header, Ordering::Release);
    }
}

/// How far from where it is wanted a dead range is looked for while the leaf has room: moving one
/// range costs a twentieth of what copying the leaf does.
const NEAR: usize = 8;

/// Dead ranges that move to where one is wanted.
impl<const W: usize, const WIDE: bool> View<'_, W, WIDE> {
    /// Finds a dead range near the place in front of the nth one. The one at the place and the one
    /// before are not dead.
    #[inline(always)]
    pub(in crate::range_map) fn dead_near(self, n: usize) -> Option<usize> {
        if self.node.dead() == 0 {
            return None;
        }
        let is_full = self.count == self.capacity();
        for far in 1..if is_full { self.count } else { NEAR } {
            if n + far < self.count && self.len(n + far) == 0 {
                return Some(n + far);
            }
            if far < n && self.len(n - 1 - far) == 0 {
                return Some(n - 1 - far);
            }
        }
        None
    }

    /// Moves a dead range to the place in front of the nth one, past others that are not dead and
    /// stay as they are for readers; returns where it is then. `step` moves the version.
    #[inline(always)]
    pub(in crate::range_map) fn move_to(self, mut dead: usize, n: usize, step: impl Fn()) -> usize {
        while dead > n {
            self.swap(dead - 1, dead, &step);
            dead -= 1;
        }
        while dead + 1 < n {
            self.swap(dead + 1, dead, &step);
            dead += 1;
        }
        dead
    }

    /// Moves the range at `from` to the place beside it of a dead one, which moves to its.
    ///
    /// ```text
    ///   starts    20   40   60        40   40   60        40   40   60        40   40   60
    ///   lengths    0    3    3   ──►   0    3    3   ──►   3    3    3   ──►   3    0    3
    /// ```
    ///
    /// A reader in between finds the range once or twice, with the same start, or a dead one with
    /// its start and the range in front of that.
    #[inline(always)]
    fn swap(self, from: usize, dead: usize, step: &impl Fn()) {
        // Whoever sees one of the three stores has seen those before it, or starts over.
        if WIDE {
            let entry = self.entry(from);
            step();
            self.move_dead(dead, entry);
            step();
            self.set_len(dead, entry);
            step();
            self.set_len(from, Entry { len: 0, ..entry });
        } else {
            let node = self.node;
            let (from, dead) = (Self::slot(from), Self::slot(dead));
            let tail = node.get(Node::<W>::TAILS + from);
            step();
            node.set_half(Node::<W>::OFFSETS + dead / 2, dead, node.offset(from));
            step();
            node.set(Node::<W>::TAILS + dead, tail);
            step();
            node.set(Node::<W>::TAILS + from, low_half(tail).into());
        }
    }
}

impl<const W: usize> Node<W> {
    /// Notes how many ranges of a copied leaf are dead.
    #[inline]
    pub(in crate::range_map) fn set_dead(&self, dead: usize) {
        self.set(0, self.get(0) + ONE_DEAD * dead as u64);
    }
}
