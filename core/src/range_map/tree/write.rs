//! The writer's ways through the tree, and its nodes.

use super::super::{
    Value,
    node::{Entry, Node},
    pool::{Source, Writer},
};
use super::{EMPTY, Path, Tree, unpack};
use crate::{
    arch::prefetch,
    atomic::{Ordering, fence},
    provider::Error,
};

impl<T: Value, const W: usize> Tree<T, W> {
    /// Returns the topmost node and its level.
    #[inline]
    pub(in crate::range_map) fn root(&self) -> Option<(u32, usize)> {
        let root = self.root.load(Ordering::Relaxed);
        (root != EMPTY).then(|| unpack(root))
    }

    /// Publishes another root.
    pub(in crate::range_map) fn publish_root(&self, root: Option<(u32, usize)>) {
        let root = root.map_or(EMPTY, |(id, level)| u64::from(id) | (level as u64) << 32);
        self.root.store(root, Ordering::Release);
    }

    /// Returns the way to the leaf that answers for `page`.
    #[inline]
    pub(in crate::range_map) fn descend(&self, root: (u32, usize), page: u64) -> Path {
        let mut path = Path::unknown();
        self.descend_by(root, page, &mut path);
        path
    }

    /// As [`Tree::descend`], by a path that was made before.
    #[inline]
    pub(in crate::range_map) fn descend_by(&self, root: (u32, usize), page: u64, path: &mut Path) {
        let (mut id, height) = root;
        path.height = height;
        for level in (1..=height).rev() {
            let node = self.node(id);
            let (at, child) = node.way_to(page);
            path.step(level, id, at);
            id = child;
        }
        path.step(0, id, 0);
        prefetch(self.node(id));
    }

    /// Returns the range that holds `start`, if it is to be found on the way to the page before
    /// that; `way` becomes that way, which holds until the next change. The writer is held.
    #[inline]
    pub(crate) fn look(&self, start: u64, way: &mut Path) -> Option<Entry> {
        self.descend_by(self.root()?, start.checked_sub(1)?.max(self.low), way);
        let leaf = self.node(way.node[0]);
        let at = leaf.rank(start).checked_sub(1)?;
        let below = leaf.entry(at);
        // Ranges do not start at the same page.
        let rank = at + usize::from(below.start < start);
        way.step(0, way.node[0], rank);
        (below.end() > start).then_some(below)
    }

    /// Returns where the node behind the one at `level` begins.
    #[inline]
    pub(in crate::range_map) fn next_low(&self, path: &Path, level: usize) -> u64 {
        for above in level + 1..=path.height {
            let (node, at) = (self.node(path.node[above]), path.at(above));
            if at + 1 < node.count() {
                return node.low(at + 1);
            }
        }
        self.high
    }

    /// Returns the first page that the leaf of a path answers for.
    #[inline]
    pub(in crate::range_map) fn low_of(&self, path: &Path) -> u64 {
        self.low_in(path, self.node(path.node[0]))
    }

    /// As [`Tree::low_of`], of a leaf in the place of that of the path.
    #[inline]
    pub(in crate::range_map) fn low_in(&self, path: &Path, leaf: &Node<W>) -> u64 {
        if self.is_first(path) {
            self.low
        } else {
            leaf.start(0)
        }
    }

    #[inline]
    pub(in crate::range_map) fn is_first(&self, path: &Path) -> bool {
        path.at[1..=path.height].iter().all(|&at| at == 0)
    }

    /// Says that a change is done.
    #[inline]
    pub(in crate::range_map) fn moved_on(&self) {
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes.store(changes + 1, Ordering::Release);
    }

    #[inline]
    pub(in crate::range_map) fn take(&self, writer: &mut Writer<W>) -> u32 {
        writer.take(|id| self.node(id).next_free())
    }

    /// Moves the version: a reader of the one before that sees a store behind this sees that it
    /// moved, and one of this version sees all stores in front of this.
    #[inline]
    pub(in crate::range_map) fn move_version(&self) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Release);
        fence(Ordering::Release);
    }

    /// Lets nodes that were replaced be used again.
    pub(in crate::range_map) fn recycle(&self, writer: &mut Writer<W>) {
        // Readers of the version before may be in the nodes.
        self.move_version();
        while let Some(id) = writer.waited() {
            self.release(writer, id);
        }
    }

    /// Adds a node that no reader of the current version reaches to those that can be taken.
    pub(in crate::range_map) fn release(&self, writer: &mut Writer<W>, id: u32) {
        self.node(id).set_next_free(writer.give(id));
    }

    /// Makes sure that `count` nodes can be taken.
    #[inline]
    pub(in crate::range_map) fn ensure(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        count: usize,
    ) -> Result<(), Error> {
        if count <= writer.available() {
            return Ok(());
        }
        self.make_nodes(writer, source, count)
    }

    #[cold]
    #[inline(never)]
    fn make_nodes(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        count: usize,
    ) -> Result<(), Error> {
        if let Some(missing) = count.checked_sub(writer.obtainable()).filter(|&n| n > 0) {
            for id in writer.make(&self.places, source, missing)? {
                self.release(writer, id);
            }
        }
        self.recycle(writer);
        Ok(())
    }
}
