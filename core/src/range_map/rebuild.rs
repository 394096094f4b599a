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
//! Level by level: the nodes at both ends of the change become others, those between are dropped, and
//! a neighbour is drawn in where what is left is too much for them or too little.

use super::{
    Value,
    change::Plan,
    list::List,
    node::{Child, Entry, Node, saturated},
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
        if path.height > 0 {
            let leaf = self.node(path.node[0]);
            let gap = leaf.leaf_gap(self.low_of(&path), self.next_low(&path, 0), u64::MAX);
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

/// Where a neighbour was drawn in.
enum Side {
    Front,
    Back,
}

/// Returns how many nodes of `capacity` are to hold `count`, which `inputs` nodes held before.
fn nodes_for(count: usize, capacity: usize, inputs: usize, grows: bool) -> usize {
    let least = count.div_ceil(capacity);
    if grows {
        // Nodes that are full from the start would be split by the next change.
        let roomy = capacity - capacity.div_ceil(16);
        count.div_ceil(roomy).max(least)
    } else {
        let roomy = capacity - capacity / 4;
        count.div_ceil(roomy).min(inputs).max(least)
    }
}

/// Returns the bounds of the nth of `parts` of `count`, as even as can be.
pub(super) fn part(n: usize, parts: usize, count: usize) -> core::ops::Range<usize> {
    n * count / parts..(n + 1) * count / parts
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

    /// Makes the leaves.
    fn leaves(&mut self, plan: &Plan) -> List<Child, LEAVES> {
        let tree = self.tree;
        let capacity = Node::<W>::LEAF;
        let (first, last) = (tree.node(self.a.node[0]), tree.node(self.b.node[0]));
        let (from, to) = (plan.left.at, plan.right.at);
        let same = self.a.node[0] == self.b.node[0];
        let with = plan.with.as_slice();
        let mut entries: List<Entry, ENTRIES> = List::new();
        entries.extend(first.entries().take(from));
        entries.extend(with.iter().copied());
        entries.extend(last.entries().skip(to));

        let dropped = self.count_dropped(plan);
        self.writer.pages += with.iter().map(|e| e.len).sum::<u64>();
        self.writer.ranges += with.len();
        let grows = with.len() > dropped;
        let count = entries.as_slice().len();
        // A run of ranges that come in order leaves full leaves behind.
        let (at_end, at_front) = (to == last.count(), from == 0);
        let in_order = same && grows && count > capacity && (at_end || at_front);
        if in_order {
            let full = if at_end { capacity } else { count - capacity };
            let (low, high) = entries.as_slice().split_at(full);
            let mut made = List::new();
            let next = high.first().map_or(tree.high, |e| e.start);
            self.leaf(low, true, next, &mut made);
            let next = tree.next_low(&self.b, 0);
            self.leaf(high, false, next, &mut made);
            return made;
        }
        let mut inputs = if same { 1 } else { 2 };
        if (count > capacity || count < capacity / 3)
            && let Some(drawn) = self.draw(0)
        {
            inputs += 1;
            match drawn {
                Side::Front => entries.extend_front(tree.node(self.a.node[0]).entries()),
                Side::Back => entries.extend(tree.node(self.b.node[0]).entries()),
            }
        }
        let mut made = List::new();
        let entries = entries.as_slice();
        let parts = nodes_for(entries.len(), capacity, inputs, grows);
        for n in 0..parts {
            let range = part(n, parts, entries.len());
            let next = match entries.get(range.end) {
                Some(e) => e.start,
                None => tree.next_low(&self.b, 0),
            };
            self.leaf(&entries[range], n == 0, next, &mut made);
        }
        made
    }

    /// Makes a leaf of ranges, or more if they do not fit; `next` is where the one behind begins.
    pub(super) fn leaf(
        &mut self,
        entries: &[Entry],
        first: bool,
        next: u64,
        made: &mut List<Child, LEAVES>,
    ) {
        let parts = if Node::<W>::fits(entries) {
            1
        } else {
            entries.len().div_ceil(Node::<W>::WIDE)
        };
        for n in 0..parts {
            let range = part(n, parts, entries.len());
            let next = entries.get(range.end).map_or(next, |e| e.start);
            let some = &entries[range];
            let id = self.tree.take(self.writer);
            let node = self.tree.node(id);
            node.write_leaf(some);
            let low = if first && n == 0 && self.tree.is_first(&self.a) {
                self.tree.low
            } else {
                some.first().map_or(self.tree.low, |e| e.start)
            };
            let gap = saturated(node.leaf_gap(low, next, u64::MAX));
            made.extend([Child { low, id, gap }]);
        }
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

    /// Makes the inner nodes of a level above the nodes that were made.
    fn inners(&mut self, level: usize, below: &List<Child, LEAVES>) -> List<Child, LEAVES> {
        let tree = self.tree;
        let (first, last) = (self.a.node[level], self.b.node[level]);
        let mut children: List<Child, CHILDREN> = List::new();
        let from = self.a.at(level);
        children.extend(tree.node(first).children().take(from));
        children.extend(below.as_slice().iter().copied());
        let to = self.b.at(level) + 1;
        children.extend(tree.node(last).children().skip(to));
        let count = children.as_slice().len();
        let mut inputs = if first == last { 1 } else { 2 };
        let grows = first == last && below.as_slice().len() > to - from;
        let mut made = List::new();
        if level == self.a.height && count == 1 {
            // The root has one child, which becomes the root.
            self.collapsed = true;
            made.extend(children.as_slice().iter().copied());
            return made;
        }
        let at_end = to == tree.node(last).count();
        let capacity = Node::<W>::room_for(children.as_slice());
        if grows && (capacity + 1..=2 * capacity).contains(&count) && at_end {
            let (low, high) = children.as_slice().split_at(capacity);
            self.inner(low, &mut made);
            self.inner(high, &mut made);
            return made;
        }
        if count < capacity / 3
            && let Some(drawn) = self.draw(level)
        {
            inputs += 1;
            match drawn {
                Side::Front => children.extend_front(tree.node(self.a.node[level]).children()),
                Side::Back => children.extend(tree.node(self.b.node[level]).children()),
            }
        }
        let children = children.as_slice();
        let capacity = Node::<W>::room_for(children);
        let parts = nodes_for(children.len(), capacity, inputs, grows);
        for n in 0..parts {
            self.inner(&children[part(n, parts, children.len())], &mut made);
        }
        made
    }

    pub(super) fn inner(&mut self, children: &[Child], made: &mut List<Child, LEAVES>) {
        let id = self.tree.take(self.writer);
        let node = self.tree.node(id);
        node.write_inner(children);
        let low = children.first().map_or(self.tree.low, |child| child.low);
        let gap = node.inner_gap();
        made.extend([Child { low, id, gap }]);
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

    /// Draws in the neighbour with fewer ranges, or children, preferably of the same parent.
    fn draw(&mut self, level: usize) -> Option<Side> {
        let count = |path: &Path| self.tree.node(path.node[level]).count();
        let cost = |path: &Path, of: &Path| {
            let is_foreign = path.node[level + 1] != of.node[level + 1];
            count(path) + if is_foreign { Node::<W>::LEAF } else { 0 }
        };
        let front = self.beside(&self.a, level, Side::Front);
        let back = self.beside(&self.b, level, Side::Back);
        let front_cost = front.as_ref().map(|path| cost(path, &self.a));
        let back_cost = back.as_ref().map(|path| cost(path, &self.b));
        match (front, back) {
            (Some(front), back) if back.is_none() || front_cost <= back_cost => {
                self.a = front;
                Some(Side::Front)
            }
            (_, Some(back)) => {
                self.b = back;
                Some(Side::Back)
            }
            _ => None,
        }
    }

    /// Returns the way up from the node beside that of a path.
    fn beside(&self, path: &Path, level: usize, side: Side) -> Option<Path> {
        let last = |node: u32| self.tree.node(node).count() - 1;
        let is_end = |above: usize| match side {
            Side::Front => path.at(above) == 0,
            Side::Back => path.at(above) == last(path.node[above]),
        };
        let turn = (level + 1..=path.height).find(|&above| !is_end(above))?;
        let mut path = *path;
        let at = match side {
            Side::Front => path.at(turn) - 1,
            Side::Back => path.at(turn) + 1,
        };
        path.step(turn, path.node[turn], at);
        for above in (level..turn).rev() {
            let node = self
                .tree
                .node(path.node[above + 1])
                .child(path.at(above + 1));
            let at = match side {
                Side::Front if above > 0 => last(node),
                _ => 0,
            };
            path.step(above, node, at);
        }
        Some(path)
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
