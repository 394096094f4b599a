//! Changes: pages of any part of the tree get another value, or none.
//!
//! A change replaces whole ranges by at most three: what is left of the first one, the new one, and
//! what is left of the last one. In most cases that is another leaf in the place of one:
//!
//! ```text
//!        inner ──┐                    inner ──┐
//!    ┌───┬───┬───┤   copy, change     ┌───┬───┤ one store
//!   leaf leaf leaf    ────────►     leaf leaf leaf'       leaf: for other uses, later
//! ```
//!
//! Often not even that, see [`in_place`](super::in_place). Otherwise the leaves at both ends of the
//! change become others, drawing in a neighbour when they are too many ranges or too few, all nodes
//! between are dropped, and so on for the nodes above, until one node takes the place of one.
//! Nothing that a reader reaches changes before the last store, which changes all of it at once.

mod plan;
mod replace;

pub(super) use plan::Plan;

use super::{
    Value,
    node::{Entry, Node, saturated},
    pool::{Source, Writer},
    rebuild::{INNERS, LEAVES},
    tree::{LEVELS, Path, Tree},
};
use crate::provider::{Error, ErrorKind};

/// Leaves that are written anew before a change, for their dead ranges.
const SETTLED: usize = 4;
/// The pages from one up to another.
pub(crate) type Pages = (u64, u64);

/// How to treat ranges that are there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    Replace,
    Refuse,
}

/// Returns how many levels a number of changes adds at most.
#[inline]
fn levels_of<const W: usize>(changes: usize) -> usize {
    // Nodes beside the root, each of which has its share of children at least when it is split.
    let most = Node::<W>::WIDE_INNER;
    let share = most.div_ceil(4).max(2);
    let mut nodes = changes.saturating_mul(LEAVES);
    let mut levels = 1;
    while nodes > most {
        nodes = nodes.div_ceil(share);
        levels += 1;
    }
    levels
}

/// The changes that the holder of the writer may ask for. An error changes nothing.
impl<T: Value, const W: usize> Tree<T, W> {
    /// Gives pages a value, whatever was there.
    #[inline]
    pub(crate) fn insert(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        pages: Pages,
        value: T,
    ) -> Result<u64, Error> {
        self.set(writer, source, pages, Some(value), Present::Replace, None)
    }

    /// Gives pages a value, or none, whatever was there; the way to the page before them is known,
    /// if it is.
    #[inline]
    pub(crate) fn set_at(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        pages: Pages,
        value: Option<T>,
        path: Option<&Path>,
    ) -> Result<u64, Error> {
        self.set(writer, source, pages, value, Present::Replace, path)
    }

    /// Gives pages a value; [`ErrorKind::Taken`] if any of them has one.
    #[inline]
    pub(crate) fn insert_new(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        pages: Pages,
        value: T,
    ) -> Result<(), Error> {
        self.set(writer, source, pages, Some(value), Present::Refuse, None)?;
        Ok(())
    }

    /// Makes sure that the next `changes` changes, each of which gives pages a value or none,
    /// cannot fail for want of memory.
    #[inline]
    pub(crate) fn prepare(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        changes: usize,
    ) -> Result<(), Error> {
        let Some(more) = changes.checked_sub(1) else {
            return Ok(());
        };
        let height = self.root().map_or(0, |(_, height)| height) + levels_of::<W>(changes);
        // The last one needs what one change takes, those before leave behind what they add.
        let left = more.checked_mul(self.growth(height));
        let nodes = left.and_then(|nodes| nodes.checked_add(Self::need(height)));
        if height + 2 > LEVELS {
            return Err(ErrorKind::Exhausted.into());
        }
        self.ensure(writer, source, nodes.ok_or(ErrorKind::Exhausted)?)
    }

    /// Returns how many nodes more than before there are at most after a change of a tree that may
    /// become so high.
    #[inline]
    fn growth(&self, height: usize) -> usize {
        // Three leaves become four of usual ones, and twice as many if these have to be wide.
        let far = self.high - self.low > Node::<W>::NARROW_PAGES;
        let may_be_wide = far || size_of::<T>() > size_of::<u32>();
        let leaves = if may_be_wide { LEAVES - 3 } else { 1 };
        // A few children more than a node holds make one more, or two where they are too far from
        // each other for one, unless nodes are tiny.
        let inners = match far {
            _ if Node::<W>::WIDE_INNER <= 2 * LEAVES => INNERS,
            true => 2,
            false => 1,
        };
        leaves + height * inners
    }

    /// Makes sure that an update of these pages, of the gaps between them too where `gaps` says so,
    /// cannot fail for want of memory, nor one change instead.
    pub(crate) fn prepare_update(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        (start, end): Pages,
        gaps: bool,
    ) -> Result<(), Error> {
        let ranges = self.count_in((start, end));
        let pieces = if gaps { 2 * ranges + 1 } else { ranges };
        let height = self.root().map_or(0, |(_, height)| height);
        if height + 4 > LEVELS {
            return Err(ErrorKind::Exhausted.into());
        }
        self.ensure(writer, source, self.need_for(pieces + 2))
    }

    /// Takes the values of pages away; returns how many had one.
    #[inline]
    pub(crate) fn remove(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        pages: Pages,
    ) -> Result<u64, Error> {
        self.set(writer, source, pages, None, Present::Replace, None)
    }

    /// Changes the values of pages in one change; returns how many had one.
    pub(crate) fn update(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        pages: Pages,
        mut change: impl FnMut(T) -> T,
    ) -> Result<u64, Error> {
        self.rewrite(writer, source, pages, false, |_, old| old.map(&mut change))
    }
}

impl<T: Value, const W: usize> Tree<T, W> {
    /// Gives the pages from `start` up to `end` a value, or none. Returns how many of them had one.
    pub(super) fn set(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        (start, end): Pages,
        value: Option<T>,
        present: Present,
        path: Option<&Path>,
    ) -> Result<u64, Error> {
        debug_assert!(self.low <= start && start < end && end <= self.high);
        let Some(root) = self.root() else {
            return self.set_first(writer, source, (start, end), value);
        };
        let mut own = Path::unknown();
        let path = path.unwrap_or_else(|| {
            self.descend_by(root, start.saturating_sub(1).max(self.low), &mut own);
            &own
        });
        let wanted = (start, end);
        if let Some(had) = self.set_in_place(writer, source, path, wanted, value, present)? {
            return Ok(had);
        }
        self.set_anywhere(writer, source, path, wanted, value, present)
    }

    /// As [`Tree::set`], for any change.
    #[cold]
    #[inline(never)]
    fn set_anywhere(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        path: &Path,
        (start, end): Pages,
        value: Option<T>,
        present: Present,
    ) -> Result<u64, Error> {
        let wanted = (start, end);
        let (root, path) = self.settle_all(writer, source, *path, wanted)?;
        let plan = self.plan((root, path), wanted, value, present)?;
        let (left, right) = (&plan.left, &plan.right);
        let one_leaf = left.path.node[0] == right.path.node[0];
        if one_leaf && left.at == right.at && value.is_none() {
            return Ok(0);
        }
        let added = if value.is_some() { end - start } else { 0 };
        let before = writer.pages;
        if !one_leaf || !self.replace_leaf(writer, source, &plan)? {
            self.rebuild(writer, source, root, &plan)?;
        }
        self.moved_on();
        Ok(before + added - writer.pages)
    }

    fn set_first(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        (start, end): Pages,
        value: Option<T>,
    ) -> Result<u64, Error> {
        if let Some(value) = value {
            self.ensure(writer, source, 1)?;
            let id = self.take(writer);
            let entry = Entry::new(start, end, value.to_bits64());
            self.node(id).write_leaf(&[entry]);
            self.publish_root(Some((id, 0)));
            writer.ranges += 1;
            writer.pages += end - start;
            self.moved_on();
        }
        Ok(0)
    }

    /// Returns how many nodes a change needs at most.
    pub(super) fn need(height: usize) -> usize {
        SETTLED + LEAVES + INNERS * height + 1
    }

    /// Notes the largest gap of the node below `level` of a path, and what follows above.
    #[inline]
    pub(super) fn update_gap(&self, path: &Path, level: usize, gap: u64) {
        let mut gap = saturated(gap);
        let mut level = level;
        let (mut node, mut at) = (self.node(path.node[level]), path.at(level));
        let mut was = node.gap(at);
        while gap != was {
            node.set_gap(at, gap);
            if level == path.height {
                return;
            }
            level += 1;
            let (below, before) = (node, was);
            (node, at) = (self.node(path.node[level]), path.at(level));
            was = node.gap(at);
            if gap < was {
                if before < was {
                    return;
                }
                gap = below.inner_gap();
            }
        }
    }
}
