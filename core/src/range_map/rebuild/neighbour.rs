//! Drawing in a neighbour.

use super::super::{Value, node::Node, tree::Path};
use super::Rebuild;

/// Where a neighbour was drawn in.
pub(super) enum Side {
    Front,
    Back,
}

impl<T: Value, const W: usize> Rebuild<'_, T, W> {
    /// Draws in the neighbour with fewer ranges, or children, preferably of the same parent.
    pub(super) fn draw(&mut self, level: usize) -> Option<Side> {
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
        let fork = (level + 1..=path.height).find(|&above| !is_end(above))?;
        let mut path = *path;
        let at = match side {
            Side::Front => path.at(fork) - 1,
            Side::Back => path.at(fork) + 1,
        };
        path.step(fork, path.node[fork], at);
        for above in (level..fork).rev() {
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
}
