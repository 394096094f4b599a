//! Leaves and inner nodes of as many ranges as a list has.

use super::super::{
    Value,
    change::Plan,
    list::List,
    node::{Child, Entry, Node, WORDS},
    pool::Writer,
    rebuild::{Rebuild, part},
    tree::{LEVELS, Path, Tree},
};
use super::Scratch;
use crate::provider::{Error, ErrorKind};
use core::mem;

impl<T: Value, const W: usize> Tree<T, W> {
    /// As [`Tree::rebuild`], with as many ranges as a list has.
    pub(super) fn rebuild_long(
        &self,
        writer: &mut Writer<W>,
        root: (u32, usize),
        plan: &Plan,
        list: &Scratch<Entry>,
    ) -> Result<(), Error> {
        let height = root.1;
        let (left, right): (Path, Path) = (plan.left.path, plan.right.path);
        let old_low = self.low_of(&left);
        let mut work = Rebuild::new(self, writer, plan);
        let mut made = work.long_leaves(plan, list);
        let new_low = made.iter(self).next().map(|child: Child| child.low);
        let grew_in_front = !self.is_first(&left) && new_low != Some(old_low);
        work.retire(0);
        let (mut level, mut in_place) = (0, false);
        while level < height {
            level += 1;
            let only = made.iter(self).next().filter(|_| made.count == 1);
            if let Some(child) = only.filter(|child| work.is_in_place(level, *child)) {
                self.node(left.node[level])
                    .publish_child(left.at(level), child.id);
                self.update_gap(&left, level, child.gap);
                in_place = true;
                break;
            }
            let (from, to) = (left.at(level), right.at(level) + 1);
            let ends = (left.node[level], from, right.node[level], to);
            let rest = self.node(ends.2).count() - to;
            if level == height && from + made.count + rest == 1 {
                // The root has one child, which becomes the root.
                work.retire(level);
                level -= 1;
                break;
            }
            let above = work.long_inners(&made, Some(ends));
            mem::replace(&mut made, above).release(self, work.writer);
            work.retire(level);
        }
        if !in_place {
            // Levels above the old root, down from one that has only one child.
            while made.count > 1 {
                level += 1;
                if level >= LEVELS {
                    return Err(ErrorKind::Exhausted.into());
                }
                let above = work.long_inners(&made, None);
                mem::replace(&mut made, above).release(self, work.writer);
            }
            let only = made.iter(self).next();
            self.publish_root(only.map(|child| (child.id, level)));
        }
        made.release(self, work.writer);
        let retired = work.retired;
        self.retire_all(writer, retired.as_slice());
        if grew_in_front {
            self.grow_gap_before(old_low);
        }
        Ok(())
    }
}

impl<T: Value, const W: usize> Rebuild<'_, T, W> {
    /// Makes leaves of a list and what lies around it in the first leaf and the last one.
    fn long_leaves(&mut self, plan: &Plan, list: &Scratch<Entry>) -> Scratch<Child> {
        let tree = self.tree;
        let (first, last) = (tree.node(self.a.node[0]), tree.node(self.b.node[0]));
        let (from, to) = (plan.left.at, plan.right.at);
        let same = self.a.node[0] == self.b.node[0];
        self.count_dropped(plan);
        self.writer.pages += list.iter(tree).map(|e| e.len).sum::<u64>();
        self.writer.ranges += list.count;

        let rest = last.count() - to;
        let total = from + list.count + rest;
        let in_front = first.entries().take(from);
        let behind = last.entries().skip(to);
        debug_assert!(!same || from <= to, "in order");
        let mut entries = in_front.chain(list.iter(tree)).chain(behind).peekable();
        let parts = total.div_ceil(Node::<W>::LEAF - Node::<W>::LEAF / 16);
        let mut made = Scratch::new();
        for n in 0..parts {
            let count = part(n, parts, total).len();
            let mut some: List<Entry, WORDS> = List::new();
            some.extend(entries.by_ref().take(count));
            let next = match entries.peek() {
                Some(entry) => entry.start,
                None => tree.next_low(&self.b, 0),
            };
            let mut leaves = List::new();
            self.leaf(some.as_slice(), n == 0, next, &mut leaves);
            for child in leaves.as_slice() {
                made.push(tree, self.writer, *child);
            }
        }
        made
    }

    /// Makes inner nodes above nodes that were made, which take the place of the children from one
    /// of a node up to one of another.
    fn long_inners(
        &mut self,
        below: &Scratch<Child>,
        ends: Option<(u32, usize, u32, usize)>,
    ) -> Scratch<Child> {
        let tree = self.tree;
        let (from, rest) = ends.map_or((0, 0), |(_, from, last, to)| {
            (from, tree.node(last).count() - to)
        });
        let in_front = ends.map(|(first, from, ..)| tree.node(first).children().take(from));
        let behind = ends.map(|(_, _, last, to)| tree.node(last).children().skip(to));
        let total = from + below.count + rest;
        let mut children = in_front
            .into_iter()
            .flatten()
            .chain(below.iter(tree))
            .chain(behind.into_iter().flatten());
        let is_far = tree.high - tree.low > Node::<W>::NARROW_PAGES;
        let capacity = if is_far {
            Node::<W>::WIDE_INNER
        } else {
            Node::<W>::INNER
        };
        let parts = total.div_ceil(capacity - capacity / 16);
        let mut made = Scratch::new();
        for n in 0..parts {
            let mut some: List<Child, WORDS> = List::new();
            some.extend(children.by_ref().take(part(n, parts, total).len()));
            let mut node = List::new();
            self.inner(some.as_slice(), &mut node);
            for child in node.as_slice() {
                made.push(tree, self.writer, *child);
            }
        }
        made
    }
}
