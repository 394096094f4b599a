//! Changes that are more than another leaf in the place of one.
//!
//! ```text
//!        a      left          right     b                       one store
//!     ┌──────┬────────┬─────┬────────┬──────┐             ┌──────┬──────┐
//!     │ drawn│ ...███ │█████│ ██.... │ drawn│  ────────►  │ new  │ new  │
//!     └──────┴────────┴─────┴────────┴──────┘             └──────┴──────┘
//!       in     the change     the change   in               as even as can be
//! ```
//!
//! Level by level: the nodes at both ends of the change become others, those between are dropped,
//! and a neighbour is drawn in where what is left is too much for them or too little. `nodes` makes
//! them, and `neighbour` draws in.

mod neighbour;
mod nodes;

pub(super) use nodes::part;

use super::{
    Value,
    change::Plan,
    list::List,
    node::{Child, Node},
    pool::{Source, Writer},
    tree::{LEVELS, Path, Tree},
};
use crate::provider::{Error, ErrorKind};

/// Leaves that one change makes at most: of the ranges of three leaves and three more.
pub(super) const LEAVES: usize = 8;
/// Inner nodes of a level that one change makes at most: of the children of three, and of what the
/// level below made, in nodes of four children or more.
pub(super) const INNERS: usize = 5;
/// Ranges of three of the widest leaves, and three.
const ENTRIES: usize = 192;
/// Children of three of the widest inner nodes, and what one level makes.
const CHILDREN: usize = 128;

/// A node that was replaced, and those of its children that were dropped.
#[derive(Clone, Copy)]
pub(super) struct Retired {
    id: u32,
    level: usize,
    from: usize,
    to: usize,
}

impl<T: Value, const W: usize> Tree<T, W> {
    /// Makes a change that is more than another leaf in the place of one.
    #[cold]
    #[inline(never)]
    pub(super) fn rebuild(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        root: (u32, usize),
        plan: &Plan,
    ) -> Result<(), Error> {
        let height = root.1;
        if height + 2 > LEVELS {
            return Err(ErrorKind::Exhausted.into());
        }
        self.ensure(writer, source, Self::need(height))?;
        let left = plan.left.path;
        let old_low = self.low_of(&left);
        let mut work = Rebuild::new(self, writer, plan);
        let mut made = work.leaves(plan);
        // The gap in front of a leaf is its neighbour's.
        let new_low = made.as_slice().first().map(|child| child.low);
        let grew_in_front =
            !self.is_first(&work.a) && work.a.node[0] == left.node[0] && new_low != Some(old_low);
        work.retire(0);
        let mut in_place = false;
        let mut level = 0;
        while level < height {
            level += 1;
            if let Some(child) = work.takes_the_place(level, &made) {
                let (node, at) = (self.node(work.a.node[level]), work.a.at(level));
                node.publish_child(at, child.id);
                self.update_gap(&work.a, level, child.gap);
                in_place = true;
                break;
            }
            made = work.inners(level, &made);
            work.retire(level);
        }
        if !in_place {
            work.publish_above(level, &made);
        }
        let retired = work.retired;
        self.retire_all(writer, retired.as_slice());
        if grew_in_front {
            self.grow_gap_before(old_low);
        }
        Ok(())
    }

    /// Frees the nodes that were replaced, and what was dropped below them.
    pub(super) fn retire_all(&self, writer: &mut Writer<W>, retired: &[Retired]) {
        self.recycle(writer);
        for old in retired {
            for n in old.from..old.to {
                let child = self.node(old.id).child(n);
                self.drop_below(writer, child, old.level - 1);
            }
        }
        for old in retired {
            self.release(writer, old.id);
        }
    }

    /// Notes the gap in front of a leaf that began at `low`, which is its neighbour's and grew, or
    /// shrank.
    pub(super) fn grow_gap_before(&self, low: u64) {
        let Some(root) = self.root() else {
            return;
        };
        let path = self.descend(root, low - 1);
        let leaf = self.node(path.node[0]);
        leaf.forget_last_gap();
        if path.height > 0 {
            let gap = leaf.leaf_gap(self.low_of(&path), self.next_low(&path, 0));
            self.update_gap(&path, 1, gap);
        }
    }

    /// Frees a node that no reader reaches, and all below it.
    fn drop_below(&self, writer: &mut Writer<W>, id: u32, level: usize) {
        let node = self.node(id);
        if level == 0 {
            writer.ranges -= node.live();
            writer.pages -= node.entries().map(|e| e.len).sum::<u64>();
        } else {
            for n in 0..node.count() {
                self.drop_below(writer, node.child(n), level - 1);
            }
        }
        self.release(writer, id);
    }
}

/// A change on its way up.
pub(super) struct Rebuild<'a, T, const W: usize> {
    pub(super) tree: &'a Tree<T, W>,
    pub(super) writer: &'a mut Writer<W>,
    /// The ends of the change.
    left: Path,
    right: Path,
    /// The first node and the last one of each level that are replaced: those of the ends, or
    /// neighbours that were drawn in.
    pub(super) a: Path,
    pub(super) b: Path,
    pub(super) retired: List<Retired, { 4 * LEVELS }>,
    /// The only child of the root becomes the root.
    collapsed: bool,
}

impl<'a, T: Value, const W: usize> Rebuild<'a, T, W> {
    pub(super) fn new(tree: &'a Tree<T, W>, writer: &'a mut Writer<W>, plan: &Plan) -> Self {
        let (left, right) = (plan.left.path, plan.right.path);
        Self {
            tree,
            writer,
            left,
            right,
            a: left,
            b: right,
            retired: List::new(),
            collapsed: false,
        }
    }

    /// Counts what the change takes out of the leaves at its ends.
    pub(super) fn count_dropped(&mut self, plan: &Plan) -> usize {
        let tree = self.tree;
        let (first, last) = (tree.node(self.a.node[0]), tree.node(self.b.node[0]));
        let (from, to) = (plan.left.at, plan.right.at);
        let same = self.a.node[0] == self.b.node[0];
        let until = if same { to } else { first.count() };
        let others = if same { 0 } else { to };
        let dropped = until - from + others;
        let pages = |node: &Node<W>, range: core::ops::Range<usize>| {
            range.map(|n| node.entry(n).len).sum::<u64>()
        };
        self.writer.pages -= pages(first, from..until) + pages(last, 0..others);
        self.writer.ranges -= dropped;
        dropped
    }

    /// Returns the child that takes the place of just one with the same lowest start.
    fn takes_the_place(&self, level: usize, made: &List<Child, LEAVES>) -> Option<Child> {
        let [child] = made.as_slice() else {
            return None;
        };
        self.is_in_place(level, *child).then_some(*child)
    }

    /// Says whether a child takes the place of just one with the same lowest start.
    pub(super) fn is_in_place(&self, level: usize, child: Child) -> bool {
        let (id, at) = (self.a.node[level], self.a.at(level));
        let one = id == self.b.node[level] && at == self.b.at(level);
        one && self.tree.node(id).low(at) == child.low
    }

    /// Publishes the nodes that were made at the highest level, under a root if they are more than
    /// one.
    fn publish_above(&mut self, level: usize, made: &List<Child, LEAVES>) {
        match made.as_slice() {
            [] => self.tree.publish_root(None),
            [only] => {
                let level = if self.collapsed { level - 1 } else { level };
                self.tree.publish_root(Some((only.id, level)));
            }
            children => {
                let id = self.tree.take(self.writer);
                self.tree.node(id).write_inner(children);
                self.tree.publish_root(Some((id, level + 1)));
            }
        }
    }

    /// Notes which nodes of a level are replaced, and which below them are dropped.
    pub(super) fn retire(&mut self, level: usize) {
        let (left, right) = (self.left.node[level], self.right.node[level]);
        let mut retire = |id, from, to| {
            self.retired.extend([Retired {
                id,
                level,
                from,
                to,
            }]);
        };
        let node = self.tree.node(left);
        let (from, to) = if level == 0 {
            (0, 0)
        } else if left == right {
            (self.left.at(level) + 1, self.right.at(level))
        } else {
            (self.left.at(level) + 1, node.count())
        };
        retire(left, from, to);
        if right != left {
            retire(right, 0, if level == 0 { 0 } else { self.right.at(level) });
        }
        // Neighbours give all they have to the new nodes.
        let (a, b) = (self.a.node[level], self.b.node[level]);
        if a != left {
            retire(a, 0, 0);
        }
        if b != right {
            retire(b, 0, 0);
        }
    }
}
