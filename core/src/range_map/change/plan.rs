//! Thinking a change out: which ranges it replaces, and by what.

use super::super::{
    Value,
    list::List,
    node::Entry,
    tree::{Path, Tree},
};
use super::{Pages, Present};
use crate::provider::{Error, ErrorKind};

/// How many ranges in a change are looked at one by one.
const NEAR: usize = 4;

/// A place in a leaf.
#[derive(Clone, Copy)]
pub(in crate::range_map) struct Place {
    pub(in crate::range_map) path: Path,
    pub(in crate::range_map) at: usize,
}

/// A change that was thought out, and not begun.
pub(in crate::range_map) struct Plan {
    /// Behind the last range that stays on the left.
    pub(in crate::range_map) left: Place,
    /// At the first range that stays on the right.
    pub(in crate::range_map) right: Place,
    /// The ranges that come between.
    pub(in crate::range_map) with: List<Entry, 3>,
}

impl<T: Value, const W: usize> Tree<T, W> {
    /// Thinks out a change of leaves without dead ranges; the path is the one to the page before
    /// it.
    #[inline]
    pub(in crate::range_map) fn plan(
        &self,
        (root, mut path): ((u32, usize), Path),
        (start, end): Pages,
        value: Option<T>,
        present: Present,
    ) -> Result<Plan, Error> {
        let bits = value.map_or(0, T::to_bits64);
        let joins = |e: &Entry| value.is_some_and(T::joins) && e.bits == bits;
        let mut fresh = Entry::new(start, end, bits);
        let mut fresh_end = end;
        let (mut head, mut tail) = (None, None);

        // The last range that starts below the change may reach into it, or touch it.
        let mut leaf = self.node(path.node[0]);
        let mut next = self.next_low(&path, 0);
        let mut at = if start > self.low {
            leaf.rank(start - 1)
        } else {
            0
        };
        let below = at.checked_sub(1).map(|n| leaf.entry(n));
        if present == Present::Refuse {
            let reaches = below.is_some_and(|e| e.end() > start);
            let following = if at < leaf.count() {
                leaf.start(at)
            } else {
                next
            };
            if reaches || following < end {
                return Err(ErrorKind::Taken.into());
            }
        }
        let mut last = None;
        if let Some(e) = below.filter(|e| e.end() >= start) {
            if joins(&e) {
                at -= 1;
                fresh.start = e.start;
                last = Some(e);
            } else if e.end() > start {
                at -= 1;
                head = Some(Entry::new(e.start, start, e.bits));
                last = Some(e);
            }
        }
        if at == leaf.count() && next == start && next < self.high {
            // Nothing in this leaf changes; the next one begins with the change.
            path = self.descend(root, start);
            leaf = self.node(path.node[0]);
            next = self.next_low(&path, 0);
            at = 0;
        }
        let left = Place { path, at };

        // The last range that starts in the change, or reaches into it, may reach beyond it.
        let mut right = Place { path, at };
        let count = leaf.count();
        right.at += usize::from(last.is_some());
        while right.at < count && leaf.start(right.at) < end {
            if right.at > at + NEAR {
                right.at = leaf.rank(end - 1);
                last = Some(leaf.entry(right.at - 1));
                break;
            }
            last = Some(leaf.entry(right.at));
            right.at += 1;
        }
        if right.at == count && next < end {
            right.path = self.descend(root, end - 1);
            let leaf = self.node(right.path.node[0]);
            right.at = leaf.rank(end - 1);
            last = Some(leaf.entry(right.at - 1));
        }
        if let Some(e) = last.filter(|e| e.end() > end) {
            if joins(&e) {
                fresh_end = e.end();
            } else {
                tail = Some(Entry::new(end, e.end(), e.bits));
            }
        } else if value.is_some_and(T::joins) && end < self.high {
            self.join_behind(root, &mut right, end, bits, &mut fresh_end);
        }
        let mut with = List::new();
        with.extend(head);
        fresh.len = fresh_end - fresh.start;
        with.extend(value.map(|_| fresh));
        with.extend(tail);
        Ok(Plan { left, right, with })
    }

    /// Takes in a range with the same value that begins where the change ends.
    #[inline]
    fn join_behind(
        &self,
        root: (u32, usize),
        right: &mut Place,
        end: u64,
        bits: u64,
        fresh_end: &mut u64,
    ) {
        let leaf = self.node(right.path.node[0]);
        if right.at < leaf.count() {
            let e = leaf.entry(right.at);
            if e.start == end && e.bits == bits {
                right.at += 1;
                *fresh_end = e.end();
            }
        } else if self.next_low(&right.path, 0) == end {
            let path = self.descend(root, end);
            let e = self.node(path.node[0]).entry(0);
            if e.bits == bits {
                *right = Place { path, at: 1 };
                *fresh_end = e.end();
            }
        }
    }
}
