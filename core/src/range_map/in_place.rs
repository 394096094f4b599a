//! Changes of one range of a leaf, most of them by one store to a leaf that readers may be in.
//!
//! ```text
//!   starts    10    20    30               10    20    30               10    24    30
//!   lengths    5     4     2   ────────►    5     0     2   ────────►    5     3     2
//!                    remove 20..24          dead, in a gap         insert 24..27
//! ```
//!
//! A range that goes leaves a dead one, of no length, in the gap. One that comes takes the place of
//! a dead one in its gap: that moves first, which no reader can tell, and then gets its length. A
//! reader finds the last start at or below its page, dead or not: in a gap there is nothing either
//! way, and elsewhere it is the range itself, since no dead one ever lies in a range.
//!
//! Where a gap has no dead range, the leaf is copied with one more range, and keeps its dead ones.
//! Anything else is left to [`change`](super::change), for which leaves are first written anew,
//! without their dead ranges.

use super::{
    Value,
    change::{Pages, Present},
    list::List,
    node::{Entry, Node, WORDS, saturated},
    pool::{Source, Writer},
    tree::{Path, Tree},
};
use crate::provider::{Error, ErrorKind};

impl<T: Value, const W: usize> Tree<T, W> {
    /// Gives the pages from `start` up to `end` a value, or none, if one range of a leaf is all
    /// that changes; returns how many of them had one. The path is the one to the page before the
    /// change.
    #[inline]
    pub(super) fn set_in_place(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        path: &Path,
        (start, end): Pages,
        value: Option<T>,
        present: Present,
    ) -> Result<Option<u64>, Error> {
        let leaf = self.node(path.node[0]);
        if start == self.low {
            return Ok(None);
        }
        let at = leaf.rank(start - 1);
        if at == 0 {
            return Ok(None);
        }
        let before = leaf.entry(at - 1);
        let here = (at < leaf.count()).then(|| leaf.entry(at));
        let here = here.filter(|e| e.start == start && e.len != 0);
        let covered = if before.end() > start {
            Some((at - 1, before))
        } else {
            here.map(|e| (at, e))
        };
        if present == Present::Refuse && covered.is_some() {
            return Err(ErrorKind::Taken.into());
        }
        match (covered, value) {
            (Some((_, entry)), _) if entry.end() != end => Ok(None),
            (Some((n, entry)), None) if entry.start < start => {
                let rest = Entry::new(entry.start, start, entry.bits);
                self.shorten(writer, path, n, rest, end);
                Ok(Some(end - start))
            }
            (Some((n, entry)), None) => Ok(self.kill(writer, path, n, entry).then_some(entry.len)),
            (Some((n, entry)), Some(value)) => {
                let becomes = Entry::new(start, end, value.to_bits64());
                let whole = entry.start == start;
                let done = whole && self.replace(path, n, becomes, value.joins());
                Ok(done.then_some(entry.len))
            }
            (None, value) => {
                let behind = leaf.next_start(at);
                let next = behind.unwrap_or_else(|| self.next_low(path, 0));
                match value {
                    _ if next < end && present == Present::Refuse => Err(ErrorKind::Taken.into()),
                    _ if next < end => Ok(None),
                    None => Ok(Some(0)),
                    Some(value) => {
                        let entry = Entry::new(start, end, value.to_bits64());
                        let joins = value.joins();
                        let filled = self.fill(writer, source, path, at, (entry, joins), next)?;
                        Ok(filled.then_some(0))
                    }
                }
            }
        }
    }

    /// Makes the nth range of a leaf end earlier.
    fn shorten(&self, writer: &mut Writer<W>, path: &Path, n: usize, rest: Entry, end: u64) {
        let leaf = self.node(path.node[0]);
        self.move_version();
        leaf.set_len(n, rest);
        writer.pages -= end - rest.end();
        self.gap_grew(path, n, rest.end());
        self.moved_on();
    }

    /// Takes the nth range away, unless the leaf would have to be merged, or begin elsewhere.
    #[inline]
    fn kill(&self, writer: &mut Writer<W>, path: &Path, n: usize, entry: Entry) -> bool {
        let leaf = self.node(path.node[0]);
        let is_few = leaf.live() - 1 < Node::<W>::LEAF / 3 && path.height > 0;
        if n == 0 || is_few {
            return false;
        }
        self.move_version();
        leaf.kill(n);
        writer.pages -= entry.len;
        writer.ranges -= 1;
        self.gap_grew(path, n, leaf.end_before(n));
        self.moved_on();
        true
    }

    /// Notes that the gap which holds the nth place of a leaf grew, and begins at `low` now.
    #[inline]
    fn gap_grew(&self, path: &Path, n: usize, low: u64) {
        if path.height == 0 {
            return;
        }
        let next = self.node(path.node[0]).next_start(n + 1);
        let gap = next.unwrap_or_else(|| self.next_low(path, 0)) - low;
        if gap > self.node(path.node[1]).gap(path.at(1)) {
            self.update_gap(path, 1, gap);
        }
    }

    /// Gives the nth range another value, unless it becomes one with a neighbour.
    fn replace(&self, path: &Path, n: usize, becomes: Entry, joins: bool) -> bool {
        let leaf = self.node(path.node[0]);
        if !leaf.can_hold(becomes) {
            return false;
        }
        if joins {
            // Ranges in other leaves may join.
            let in_front = leaf
                .live_before(n)
                .is_none_or(|e| e.end() == becomes.start && e.bits == becomes.bits);
            let behind = match leaf.entries_from(n + 1).next() {
                Some(e) => e.start == becomes.end() && e.bits == becomes.bits,
                None => self.next_low(path, 0) == becomes.end(),
            };
            if in_front || behind {
                return false;
            }
        }
        self.move_version();
        leaf.set_bits(n, becomes);
        self.moved_on();
        true
    }

    /// Puts a range into the gap in front of `next`, where `at` ranges of the leaf start below it:
    /// as a part of the one before, in the place of a dead one, or into a copy of the leaf that
    /// keeps its dead ranges. Says whether it did.
    #[inline]
    fn fill(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        path: &Path,
        at: usize,
        (entry, joins): (Entry, bool),
        next: u64,
    ) -> Result<bool, Error> {
        let leaf = self.node(path.node[0]);
        if joins && next == entry.end() && next < self.high {
            let behind = leaf.entries_from(at).next();
            if behind.is_none_or(|e| e.bits == entry.bits) {
                return Ok(false);
            }
        }
        let before = leaf.entry(at - 1);
        let low = leaf.end_before(at);
        // No dead range may lie in one that is not.
        let count = leaf.count();
        let is_free = |n: usize| n >= count || leaf.start(n) >= entry.end();
        let mut new = leaf;
        if joins && before.len != 0 && low == entry.start && before.bits == entry.bits {
            let grown = Entry::new(before.start, entry.end(), entry.bits);
            if !is_free(at) || !leaf.can_hold(grown) {
                return Ok(false);
            }
            self.move_version();
            leaf.set_len(at - 1, grown);
        } else {
            if !leaf.can_hold(entry) {
                return Ok(false);
            }
            let is_dead = |n: usize| n < count && leaf.entry(n).len == 0;
            if before.len == 0 && is_free(at) {
                self.revive(leaf, at - 1, entry);
            } else if is_dead(at) && is_free(at + 1) {
                self.revive(leaf, at, entry);
            } else {
                let behind = (at..count).find(|&n| is_free(n)).unwrap_or(count);
                if count - (behind - at) == leaf.capacity() {
                    return Ok(false);
                }
                self.ensure(writer, source, 1)?;
                let id = self.take(writer);
                new = self.node(id);
                new.write_spliced(leaf, at, behind, &[entry]);
                new.set_dead(leaf.dead() - (behind - at));
                self.publish_leaf(path, id);
                if writer.wait(path.node[0]) {
                    self.recycle(writer);
                }
            }
            writer.ranges += 1;
        }
        writer.pages += entry.len;
        if path.height > 0 {
            let was = self.node(path.node[1]).gap(path.at(1));
            if saturated(next - low) == was {
                // The first range is the one that it was.
                let low = self.low_in(path, new);
                let gap = new.leaf_gap(low, self.next_low(path, 0), was);
                self.update_gap(path, 1, gap);
            }
        }
        self.moved_on();
        Ok(true)
    }

    /// Makes a dead range another one.
    #[inline]
    fn revive(&self, leaf: &Node<W>, n: usize, entry: Entry) {
        // Whoever sees that it is no longer dead, and began before it was moved, starts over.
        self.move_version();
        leaf.move_dead(n, entry);
        self.move_version();
        leaf.revive(n, entry);
    }

    /// Puts another leaf in the place of that of a path.
    #[inline]
    pub(super) fn publish_leaf(&self, path: &Path, id: u32) {
        if path.height > 0 {
            self.node(path.node[1]).publish_child(path.at(1), id);
        } else {
            self.publish_root(Some((id, 0)));
        }
    }

    /// Writes the leaves that a change may read anew if they have dead ranges; returns the root and
    /// the path to the page before the change, which may have become others.
    pub(super) fn settle_all(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        mut path: Path,
        (start, end): Pages,
    ) -> Result<((u32, usize), Path), Error> {
        let mut known = self.next_low(&path, 0);
        path = self.settle(writer, source, path)?;
        let root = |path: &Path| (path.node[path.height], path.height);
        for page in [start, end - 1, end.min(self.high - 1)] {
            if page >= known {
                let other = self.descend(root(&path), page);
                known = self.next_low(&other, 0);
                self.settle(writer, source, other)?;
            }
        }
        Ok((root(&path), path))
    }

    /// Writes a leaf with dead ranges anew, without them; returns the path to it.
    fn settle(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        mut path: Path,
    ) -> Result<Path, Error> {
        let old_id = path.node[0];
        let old = self.node(old_id);
        if old.dead() == 0 {
            return Ok(path);
        }
        self.ensure(writer, source, 1)?;
        let id = self.take(writer);
        let mut live: List<Entry, WORDS> = List::new();
        live.extend(old.entries());
        self.node(id).write_leaf(live.as_slice());
        self.publish_leaf(&path, id);
        path.node[0] = id;
        if writer.wait(old_id) {
            self.recycle(writer);
        }
        Ok(path)
    }
}
