//! Reading without a lock.

use super::super::{
    Value,
    change::Pages,
    node::{Entry, Node},
};
use super::{EMPTY, Tree, unpack};
use crate::{
    arch::prefetch,
    atomic::{Ordering, fence},
};
use core::mem::MaybeUninit;

/// The nodes were used again while a reader was in them.
struct Moved;

impl<T: Value, const W: usize> Tree<T, W> {
    /// Says whether `version` is current still, after all loads before.
    #[inline]
    fn is_current(&self, version: u64) -> bool {
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    /// Returns the leaf that answers for `page`, and, if asked, where the next one begins.
    #[inline]
    fn leaf_for<const NEXT: bool>(
        &self,
        page: u64,
        version: u64,
    ) -> Result<Option<(&Node<W>, u64)>, Moved> {
        let root = self.root.load(Ordering::Acquire);
        if root == EMPTY {
            return Ok(None);
        }
        let (mut id, height) = unpack(root);
        let mut next = self.high;
        for _ in 0..height {
            let node = self.node(id);
            // An acquiring load, so that a number from another life of the node comes with the
            // version that began it.
            let (at, child) = node.way_to(page);
            if NEXT {
                next = next.min(node.low(at + 1));
            }
            id = child;
            if self.version.load(Ordering::Relaxed) != version {
                return Err(Moved);
            }
        }
        let leaf = self.node(id);
        // The second read depends on the first one; together they cost one miss.
        prefetch(leaf);
        Ok(Some((leaf, next)))
    }

    /// Finds the range that holds `page`, without a lock.
    #[inline]
    pub(crate) fn query(&self, page: u64) -> Option<Entry> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let Ok(leaf) = self.leaf_for::<false>(page, version) else {
                continue;
            };
            let found = leaf.and_then(|(leaf, _)| leaf.holding(page));
            if self.is_current(version) {
                return found;
            }
        }
    }

    /// Finds the first range that ends behind `page`, without a lock.
    pub(crate) fn next_from(&self, page: u64) -> Option<Entry> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let changes = self.changes.load(Ordering::Acquire);
            let Ok(leaf) = self.leaf_for::<true>(page, version) else {
                continue;
            };
            let (leaf, next) = leaf?;
            let (below, behind) = leaf.around(page);
            let found = below
                .filter(|e| page.wrapping_sub(e.start) < e.len)
                .or_else(behind);
            if !self.is_current(version) {
                continue;
            }
            if found.is_some() {
                return found;
            }
            // The next leaf has it, if there is one; it starts where this leaf ends.
            let found = if next < self.high {
                let Ok(leaf) = self.leaf_for::<false>(next, version) else {
                    continue;
                };
                let first = leaf.and_then(|(leaf, _)| leaf.around(next).0);
                let Some(first) = first.filter(|e| e.start == next) else {
                    continue;
                };
                Some(first)
            } else {
                None
            };
            // Two leaves of one moment: at most one change, which is whole by itself, lies between.
            if self.is_current(version) && self.changes.load(Ordering::Relaxed) == changes {
                return found;
            }
        }
    }
}

/// Reading several ranges at a time, and backwards.
impl<T: Value, const W: usize> Tree<T, W> {
    /// Finds the last range that starts at or before `page`, without a lock.
    pub(crate) fn prev_from(&self, page: u64) -> Option<Entry> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let Ok(leaf) = self.leaf_for::<false>(page, version) else {
                continue;
            };
            // The first range of a leaf is not dead, and only the first leaf begins behind the
            // page.
            let found = leaf.and_then(|(leaf, _)| leaf.last_from(page));
            if self.is_current(version) {
                return found;
            }
        }
    }

    /// Reads ranges that end behind the first page and start at or before the last one, in order,
    /// as many as fit, or as lie in one inner node; returns how many. All are of one moment. No
    /// lock is taken.
    pub(in crate::range_map) fn read_from(
        &self,
        (page, last): Pages,
        buffer: &mut [MaybeUninit<Entry>],
    ) -> usize {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let changes = self.changes.load(Ordering::Acquire);
            let Ok(way) = self.leaf_and_parent(page, version) else {
                continue;
            };
            let Some((leaf, parent)) = way else {
                return 0;
            };
            let (mut count, is_all) = leaf.read_from((page, last), buffer);
            if !self.is_current(version) {
                continue;
            }
            if let Some((parent, at)) = parent.filter(|_| is_all)
                && let Some(more) = self.read_siblings(
                    (parent, at),
                    (last, version),
                    buffer.get_mut(count..).unwrap_or_default(),
                )
                && self.is_current(version)
                && self.changes.load(Ordering::Relaxed) == changes
            {
                count += more;
            }
            if count > 0 {
                return count;
            }
            // Behind dead ones, or in a leaf of another inner node, if anywhere.
            let next = self.next_from(page).filter(|entry| entry.start <= last);
            return match (next, buffer.first_mut()) {
                (Some(entry), Some(slot)) => {
                    slot.write(entry);
                    1
                }
                _ => 0,
            };
        }
    }

    /// Returns the leaf that answers for `page`, and the node above with the number of the leaf.
    #[inline]
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn leaf_and_parent(
        &self,
        page: u64,
        version: u64,
    ) -> Result<Option<(&Node<W>, Option<(&Node<W>, usize)>)>, Moved> {
        let root = self.root.load(Ordering::Acquire);
        if root == EMPTY {
            return Ok(None);
        }
        let (mut id, height) = unpack(root);
        let mut parent = None;
        for _ in 0..height {
            let node = self.node(id);
            let (at, child) = node.way_to(page);
            id = child;
            // As in leaf_for.
            if self.version.load(Ordering::Relaxed) != version {
                return Err(Moved);
            }
            parent = Some((node, at));
        }
        Ok(Some((self.node(id), parent)))
    }

    /// Reads the leaves behind one, of the same inner node; `None` where that has become another
    /// node.
    fn read_siblings(
        &self,
        (parent, at): (&Node<W>, usize),
        (last, version): (u64, u64),
        buffer: &mut [MaybeUninit<Entry>],
    ) -> Option<usize> {
        let mut read = 0;
        for at in at + 1..parent.count().min(Node::<W>::INNER) {
            let rest = buffer.get_mut(read..).unwrap_or_default();
            let low = parent.low(at);
            if rest.is_empty() || low > last {
                break;
            }
            let id = parent.child(at);
            // As in leaf_for.
            if self.version.load(Ordering::Relaxed) != version {
                return None;
            }
            // What lies in front has gone: the leaf is about to be another one.
            let (count, is_all) = self.node(id).read_from((low, last), rest);
            read += count;
            if !is_all {
                break;
            }
        }
        Some(read)
    }
}
