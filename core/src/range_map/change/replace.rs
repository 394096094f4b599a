//! Another leaf in the place of one.

use super::super::{
    Value,
    node::{Entry, Node},
    pool::{Source, Writer},
    tree::Tree,
};
use super::Plan;
use crate::provider::Error;

impl<T: Value, const W: usize> Tree<T, W> {
    /// Puts another leaf in the place of one, if that is all there is to do; says whether it was.
    #[inline]
    pub(super) fn replace_leaf(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        plan: &Plan,
    ) -> Result<bool, Error> {
        let (path, from, to) = (&plan.left.path, plan.left.at, plan.right.at);
        let with = plan.with.as_slice();
        let old_id = path.node[0];
        let old = self.node(old_id);
        let (old_count, dropped) = (old.count(), to - from);
        let count = old_count - dropped + with.len();
        let is_few = count < Node::<W>::LEAF / 3 && count < old_count && path.height > 0;
        if count == 0 || is_few || !old.can_splice(from, to, with) {
            return Ok(false);
        }
        self.ensure(writer, source, 1)?;
        let id = self.take(writer);
        self.node(id).write_spliced(old, from, to, with);
        let gap = (path.height > 0).then(|| self.spliced_gap(plan, old, self.node(id)));
        self.publish_leaf(path, id);
        if let Some(gap) = gap {
            self.update_gap(path, 1, gap);
        }
        for n in from..to {
            writer.pages -= old.entry(n).len;
        }
        writer.pages += with.iter().map(|e| e.len).sum::<u64>();
        writer.ranges = writer.ranges - dropped + with.len();
        if writer.wait(old_id) {
            self.recycle(writer);
        }
        Ok(true)
    }

    /// Returns the largest gap of a leaf that replaces another one.
    #[inline]
    fn spliced_gap(&self, plan: &Plan, old: &Node<W>, new: &Node<W>) -> u64 {
        let (path, from, to) = (&plan.left.path, plan.left.at, plan.right.at);
        let low = match from.checked_sub(1) {
            Some(n) => old.entry(n).end(),
            None => self.low_of(path),
        };
        let high = if to < old.count() {
            old.start(to)
        } else {
            self.next_low(path, 0)
        };
        let largest = |entries: &mut dyn Iterator<Item = Entry>| {
            let (mut end, mut gap) = (low, 0);
            for entry in entries {
                gap = gap.max(entry.start - end);
                end = entry.end();
            }
            gap.max(high - end)
        };
        let was = self.node(path.node[1]).gap(path.at(1));
        let is = largest(&mut plan.with.as_slice().iter().copied());
        if is >= was {
            return is;
        }
        if largest(&mut (from..to).map(|n| old.entry(n))) < was {
            return was;
        }
        new.leaf_gap(self.low_of(path), self.next_low(path, 0))
    }
}
