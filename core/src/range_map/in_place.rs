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
//! reader finds the last start at or below its page and goes back to one that is not dead, which
//! holds the page or does not: no dead one ever lies in a range, but for one that has the start of
//! the range in front of it while the two change places.
//!
//! Where a gap has no dead range, one that is near moves there, past others. Where none is near,
//! the leaf is copied with the new range, and keeps its dead ones as long as there is room.
//! Anything else is left to [`change`](super::change).
//!
//! `fill` has what comes, `behead` how the first range of a leaf goes, and `settle` writes leaves
//! anew, without their dead ranges.

mod behead;
mod fill;
mod settle;

use super::{
    Value,
    change::{Pages, Present},
    node::{Entry, Node, View},
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
        pages: Pages,
        value: Option<T>,
        present: Present,
    ) -> Result<Option<u64>, Error> {
        if pages.0 == self.low {
            return Ok(None);
        }
        let leaf = self.node(path.node[0]);
        let what = (pages, value, present);
        if leaf.is_wide() {
            self.set_in(writer, source, path, View::<W, true>::of(leaf), what)
        } else {
            self.set_in(writer, source, path, View::<W, false>::of(leaf), what)
        }
    }

    #[inline]
    fn set_in<const WIDE: bool>(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        path: &Path,
        leaf: View<'_, W, WIDE>,
        ((start, end), value, present): (Pages, Option<T>, Present),
    ) -> Result<Option<u64>, Error> {
        let at = match path.rank() {
            Some(rank) => rank,
            None => leaf.rank(start - 1),
        };
        debug_assert_eq!(at, leaf.rank(start - 1), "the rank that was carried here");
        let Some(below) = at.checked_sub(1) else {
            return Ok(None);
        };
        let before = leaf.entry(below);
        let here = (at < leaf.count()).then(|| leaf.entry(at));
        let here = here.filter(|e| e.len != 0);
        let covered = if before.end() > start {
            Some((below, before))
        } else {
            here.filter(|e| e.start == start).map(|e| (at, e))
        };
        if present == Present::Refuse && covered.is_some() {
            return Err(ErrorKind::Taken.into());
        }
        match (covered, value) {
            (Some((_, entry)), _) if entry.end() != end => Ok(None),
            (Some((n, entry)), None) if entry.start < start => {
                let rest = Entry::new(entry.start, start, entry.bits);
                self.shorten(writer, path, leaf, n, rest, end);
                Ok(Some(end - start))
            }
            (Some((n, entry)), None) => {
                let killed = self.kill(writer, path, leaf, (n, entry), before);
                Ok(killed.then_some(entry.len))
            }
            (Some((n, entry)), Some(value)) => {
                let becomes = Entry::new(start, end, value.to_bits64());
                let whole = entry.start == start;
                let done = whole && self.replace(path, leaf, n, becomes, value.joins());
                Ok(done.then_some(entry.len))
            }
            (None, value) => {
                let behind = match here {
                    Some(here) => Some((at, here.start)),
                    None => leaf.live_from(at).map(|n| (n, leaf.start(n))),
                };
                let next = behind.map_or_else(|| self.next_low(path, 0), |(_, start)| start);
                match value {
                    _ if next < end && present == Present::Refuse => Err(ErrorKind::Taken.into()),
                    None if next == start && behind.is_none() => {
                        self.behead(writer, source, path, leaf, (start, end))
                    }
                    _ if next < end => Ok(None),
                    None => Ok(Some(0)),
                    Some(value) => {
                        let entry = Entry::new(start, end, value.to_bits64());
                        let (owner, before) = Self::live_at(leaf, below, before);
                        let gap = fill::Gap {
                            at,
                            owner,
                            before,
                            behind: behind.map(|(n, _)| n),
                            next,
                        };
                        let new = (entry, value.joins());
                        let filled = self.fill(writer, source, path, leaf, gap, new)?;
                        Ok(filled.then_some(0))
                    }
                }
            }
        }
    }

    /// Returns a range, or if that is dead the last one before it that is not.
    #[inline(always)]
    fn live_at<const WIDE: bool>(
        leaf: View<'_, W, WIDE>,
        n: usize,
        entry: Entry,
    ) -> (usize, Entry) {
        if entry.len != 0 {
            return (n, entry);
        }
        let n = leaf.live_before(n);
        (n, leaf.entry(n))
    }

    /// Makes the nth range of a leaf end earlier.
    fn shorten<const WIDE: bool>(
        &self,
        writer: &mut Writer<W>,
        path: &Path,
        leaf: View<'_, W, WIDE>,
        n: usize,
        rest: Entry,
        end: u64,
    ) {
        self.move_version();
        leaf.set_len(n, rest);
        writer.pages -= end - rest.end();
        self.gap_grew(path, leaf, (n, rest.end()), n + 1, None);
        self.moved_on();
    }

    /// Takes the nth range away, unless the leaf would have to be merged. It is not the first one,
    /// since the page before it is the leaf's; `before` is the range before it, dead or not.
    #[inline(always)]
    fn kill<const WIDE: bool>(
        &self,
        writer: &mut Writer<W>,
        path: &Path,
        leaf: View<'_, W, WIDE>,
        (n, entry): (usize, Entry),
        before: Entry,
    ) -> bool {
        if self.is_few(path, leaf.node.live() - 1) {
            return false;
        }
        leaf.kill(n, entry, || self.move_version());
        writer.pages -= entry.len;
        writer.ranges -= 1;
        let (owner, before) = Self::live_at(leaf, n - 1, before);
        let gone = Some((n, entry.end()));
        self.gap_grew(path, leaf, (owner, before.end()), n + 1, gone);
        self.moved_on();
        true
    }

    /// Says whether a leaf with so many ranges is to be merged with another one.
    #[inline]
    const fn is_few(&self, path: &Path, live: usize) -> bool {
        live < Node::<W>::LEAF / 3 && path.height > 0
    }

    /// Notes that the gap behind a range, which ends at `low` now, grew: there is none that is not
    /// dead from there to the one at `behind`. If a range went for it, `gone` says which one, and
    /// where it ended.
    #[inline(always)]
    fn gap_grew<const WIDE: bool>(
        &self,
        path: &Path,
        leaf: View<'_, W, WIDE>,
        (n, low): (usize, u64),
        behind: usize,
        gone: Option<(usize, u64)>,
    ) {
        if path.height == 0 && WIDE {
            return;
        }
        let high = || self.next_low(path, 0);
        let next = leaf
            .live_from(behind)
            .map_or_else(high, |next| leaf.start(next));
        let gone = gone.map(|(gone, end)| (gone, next - end));
        leaf.gap_grew(n, next - low, gone, high);
        self.raise_gap(path, next - low);
    }

    /// Notes that there is a gap of so many pages in the leaf of a path.
    #[inline(always)]
    fn raise_gap(&self, path: &Path, gap: u64) {
        if path.height > 0 && gap > self.node(path.node[1]).gap(path.at(1)) {
            self.update_gap(path, 1, gap);
        }
    }

    /// Gives the nth range another value, unless it becomes one with a neighbour.
    fn replace<const WIDE: bool>(
        &self,
        path: &Path,
        leaf: View<'_, W, WIDE>,
        n: usize,
        becomes: Entry,
        joins: bool,
    ) -> bool {
        if !leaf.can_hold(becomes) {
            return false;
        }
        if joins {
            // Ranges in other leaves may join.
            let in_front = n == 0 || {
                let before = leaf.entry(leaf.live_before(n));
                before.end() == becomes.start && before.bits == becomes.bits
            };
            let behind = match leaf.live_from(n + 1).map(|n| leaf.entry(n)) {
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

    /// Puts another leaf in the place of that of a path.
    #[inline]
    pub(super) fn publish_leaf(&self, path: &Path, id: u32) {
        if path.height > 0 {
            self.node(path.node[1]).publish_child(path.at(1), id);
        } else {
            self.publish_root(Some((id, 0)));
        }
    }
}
