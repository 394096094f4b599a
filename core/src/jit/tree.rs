//! A tree of maxima: which of many members has a large enough class, in a few steps.
//!
//! ```text
//!   level 2                      9
//!   level 1          7                     9             each byte: the largest of 64 below
//!   level 0    3 7 0 … 1      0 9 2 … 4      1 1 …       a class a member
//! ```
//!
//! Sixty-four bytes are a cache line, looked through eight at a time.

use super::class::{LAST, NONE};

/// Children of a node.
const FAN: usize = 64;

/// Levels that any number of members can need.
const LEVELS: usize = usize::BITS.div_ceil(FAN.ilog2()) as usize;

/// A tree over bytes that its owner lends; the same bytes every time.
pub(super) struct Tree<'a> {
    bytes: &'a mut [u8],
    members: usize,
}

impl<'a> Tree<'a> {
    /// Returns the bytes that a tree over `members` takes.
    pub(super) const fn bytes_for(members: usize) -> usize {
        let (mut nodes, mut total) = (members, 0);
        loop {
            let groups = nodes.div_ceil(FAN);
            total += groups * FAN;
            if groups <= 1 {
                return total;
            }
            nodes = groups;
        }
    }

    /// Returns the tree over `members` in `bytes`, at least [`Tree::bytes_for`] of them, that were
    /// zero at first or are a tree over as many members.
    #[inline]
    pub(super) const fn new(bytes: &'a mut [u8], members: usize) -> Self {
        Self { bytes, members }
    }

    /// Takes all classes away.
    pub(super) fn clear(&mut self) {
        let len = Self::bytes_for(self.members);
        self.bytes[..len].fill(NONE);
    }

    /// Returns the class of a member.
    #[inline]
    pub(super) fn class(&self, member: usize) -> u8 {
        self.bytes[member]
    }

    /// Returns the largest class of all.
    #[inline]
    pub(super) fn largest(&self) -> u8 {
        let top = Self::bytes_for(self.members).saturating_sub(FAN);
        largest(group(self.bytes, top))
    }

    /// Gives a member a class; says whether the largest of all may be another now.
    #[inline]
    pub(super) fn set(&mut self, member: usize, class: u8) -> bool {
        debug_assert!(
            member < self.members && class <= LAST,
            "a member and a class"
        );
        let (mut at, mut start, mut nodes) = (member, 0, self.members);
        let (mut old, mut new) = (self.bytes[at], class);
        self.bytes[at] = new;
        while nodes > FAN {
            let here = group(self.bytes, start + at / FAN * FAN);
            let above = start + nodes.next_multiple_of(FAN) + at / FAN;
            let before = self.bytes[above];
            if new > before {
                self.bytes[above] = new;
            } else if old == before && new < old {
                new = largest(here);
                if new == before {
                    return false;
                }
                self.bytes[above] = new;
            } else {
                return false;
            }
            old = before;
            start += nodes.next_multiple_of(FAN);
            (at, nodes) = (at / FAN, nodes.div_ceil(FAN));
        }
        true
    }

    /// Gives a member a class, unless it has a larger one; says what [`Tree::set`] says.
    #[inline]
    pub(super) fn raise(&mut self, member: usize, class: u8) -> bool {
        class > self.bytes[member] && self.set(member, class)
    }

    /// Returns the first member whose class is at least `class`, which is not [`NONE`].
    #[inline]
    pub(super) fn first(&self, class: u8) -> Option<usize> {
        let (mut starts, mut top, mut nodes) = ([0; LEVELS], 0, self.members);
        while nodes > FAN {
            starts[top + 1] = starts[top] + nodes.next_multiple_of(FAN);
            nodes = nodes.div_ceil(FAN);
            top += 1;
        }
        // A node is the largest of its children, so one of them is large enough.
        starts[..=top].iter().rev().try_fold(0, |at, start| {
            Some(at * FAN + first(group(self.bytes, start + at * FAN), 0, class)?)
        })
    }

    /// Returns the first member at or behind `from` whose class is at least `class`, which is not
    /// [`NONE`].
    #[inline]
    pub(super) fn find(&self, from: usize, class: u8) -> Option<usize> {
        let mut starts = [0; LEVELS];
        let (mut at, mut nodes, mut level) = (from, self.members, 0);
        loop {
            if at >= nodes {
                return None;
            }
            let start = starts[level];
            let skip = at % FAN;
            if let Some(n) = first(group(self.bytes, start + at - skip), skip, class) {
                at += n - skip;
                break;
            }
            if nodes <= FAN {
                return None;
            }
            (at, nodes) = (at / FAN + 1, nodes.div_ceil(FAN));
            level += 1;
            starts[level] = start + (nodes * FAN);
        }
        while level > 0 {
            level -= 1;
            // A node is the largest of its children, so one of them is large enough.
            at = at * FAN + first(group(self.bytes, starts[level] + at * FAN), 0, class)?;
        }
        Some(at)
    }
}

/// Returns the 64 bytes at `start`, which lie in the tree.
#[inline]
fn group(bytes: &[u8], start: usize) -> &[u8; FAN] {
    const EMPTY: &[u8; FAN] = &[NONE; FAN];
    bytes[start..].first_chunk().unwrap_or(EMPTY)
}

#[inline]
fn largest(group: &[u8; FAN]) -> u8 {
    group.iter().fold(NONE, |a, &b| a.max(b))
}

/// Returns the first byte at or behind `from` that is at least `class`.
#[inline]
fn first(group: &[u8; FAN], from: usize, class: u8) -> Option<usize> {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte below 128 reaches bit 7 by this sum if it is at least class, and never carries.
    let distance = u64::from(128 - class) * 0x0101_0101_0101_0101;
    let (words, _) = group.as_chunks::<8>();
    let mut mask = u64::MAX << (from % 8 * 8);
    for (n, word) in words.iter().enumerate().skip(from / 8) {
        let reached = (u64::from_le_bytes(*word) + distance) & HIGH & mask;
        if reached != 0 {
            return Some(n * 8 + (reached.trailing_zeros() / 8) as usize);
        }
        mask = u64::MAX;
    }
    None
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{vec, vec::Vec};

    /// Random changes against a plain array.
    #[test]
    fn finds_what_a_plain_array_finds() {
        for members in [1, 2, 63, 64, 65, 130, 4096, 4097, 10_000] {
            let mut bytes = vec![0; Tree::bytes_for(members)];
            let mut tree = Tree::new(&mut bytes, members);
            let mut plain: Vec<u8> = vec![0; members];
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            let mut below = |n: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                usize::try_from(random >> 33).expect("31 bits") % n
            };
            for _ in 0..3000 {
                let member = below(members);
                let class = u8::try_from(below(128)).expect("below 128")
                    & if below(4) == 0 { 127 } else { 3 };
                tree.set(member, class);
                plain[member] = class;
                let (from, wanted) = (
                    below(members + 1),
                    u8::try_from(1 + below(127)).expect("a byte"),
                );
                let expected = (from..members).find(|&n| plain[n] >= wanted);
                assert_eq!(tree.find(from, wanted), expected, "{members} members");
                assert_eq!(tree.first(wanted), plain.iter().position(|&c| c >= wanted));
                assert_eq!(Some(tree.largest()), plain.iter().copied().max());
            }
        }
    }
}
