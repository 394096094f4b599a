//! Making the nodes of a level, as even as can be.

use super::super::{
    Value,
    change::Plan,
    list::List,
    node::{Child, Entry, Node, saturated},
};
use super::{CHILDREN, ENTRIES, LEAVES, Rebuild, neighbour::Side};

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
pub(in crate::range_map) fn part(n: usize, parts: usize, count: usize) -> core::ops::Range<usize> {
    n * count / parts..(n + 1) * count / parts
}

impl<T: Value, const W: usize> Rebuild<'_, T, W> {
    /// Makes the leaves.
    pub(super) fn leaves(&mut self, plan: &Plan) -> List<Child, LEAVES> {
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
    pub(in crate::range_map) fn leaf(
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
            let gap = saturated(node.leaf_gap(low, next));
            made.extend([Child { low, id, gap }]);
        }
    }

    /// Makes the inner nodes of a level above the nodes that were made.
    pub(super) fn inners(
        &mut self,
        level: usize,
        below: &List<Child, LEAVES>,
    ) -> List<Child, LEAVES> {
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

    pub(in crate::range_map) fn inner(
        &mut self,
        children: &[Child],
        made: &mut List<Child, LEAVES>,
    ) {
        let id = self.tree.take(self.writer);
        let node = self.tree.node(id);
        node.write_inner(children);
        let low = children.first().map_or(self.tree.low, |child| child.low);
        let gap = node.inner_gap();
        made.extend([Child { low, id, gap }]);
    }
}
