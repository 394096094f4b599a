//! The first range of a leaf goes.
//!
//! ```text
//!        ─┬────┬────┬─           ─┬────────┬─           ─┬────────┬─
//!         │ 20 │ 40 │             │ 20  46 │             │ 20  46 │
//!        ─┴─┬──┴──┬─┴─  ─────►   ─┴─┬────┬─┴─  ─────►   ─┴─┬────┬─┴─
//!          20  40 46 53            20  40 46 53           20   46 53
//! ```
//!
//! The node above says first that the leaf begins with the next range, one store by which the range
//! is gone, and then leads to a copy of the leaf without it. Were the range made a dead one
//! instead, the gap would be of two leaves.

use super::super::{
    Value,
    change::Pages,
    node::{View, saturated},
    pool::{Source, Writer},
    tree::{Path, Tree},
};
use crate::provider::Error;

impl<T: Value, const W: usize> Tree<T, W> {
    /// Takes away the range from `start` up to `end` if it is the first one of the leaf behind that
    /// of the path, both are children of one node, and neither is to be merged.
    #[inline(never)]
    pub(super) fn behead<const WIDE: bool>(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        path: &Path,
        leaf: View<'_, W, WIDE>,
        (start, end): Pages,
    ) -> Result<Option<u64>, Error> {
        if path.height == 0 || path.at(1) + 1 >= self.node(path.node[1]).count() {
            return Ok(None);
        }
        let mut next_path = *path;
        next_path.step(1, path.node[1], path.at(1) + 1);
        let id = self.node(path.node[1]).child(next_path.at(1));
        next_path.step(0, id, 0);
        let next = self.node(id);
        let first = next.entry(0);
        if first.end() != end || self.is_few(&next_path, next.live() - 1) {
            return Ok(None);
        }
        let shorter = if next.is_wide() {
            self.without_first(writer, source, View::<W, true>::of(next), &next_path)?
        } else {
            self.without_first(writer, source, View::<W, false>::of(next), &next_path)?
        };
        if shorter {
            writer.pages -= first.len;
            writer.ranges -= 1;
            let low = self.node(path.node[1]).low(next_path.at(1));
            let owner = leaf.live_before(leaf.count());
            let gap = low - leaf.end(owner);
            leaf.gap_grew(owner, gap, None, || low);
            self.raise_gap(path, gap);
            self.moved_on();
        }
        Ok(shorter.then_some(end - start))
    }

    /// Puts a copy without the first range in the place of the leaf of a path, which is not the
    /// first child of its node. Says whether it did.
    fn without_first<const WIDE: bool>(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        leaf: View<'_, W, WIDE>,
        path: &Path,
    ) -> Result<bool, Error> {
        let (above, at) = (self.node(path.node[1]), path.at(1));
        let Some(second) = leaf.live_from(1) else {
            return Ok(false);
        };
        let low = leaf.start(second);
        if !above.can_begin(at, low) {
            return Ok(false);
        }
        self.ensure(writer, source, 1)?;
        let had = low - leaf.end(0);
        let id = self.take(writer);
        let new = self.node(id);
        new.write_spliced(leaf.node, 0, second, &[]);
        new.set_dead(leaf.node.dead() - (second - 1));
        // Whoever was here before this goes on in either leaf, each as it was.
        self.move_version();
        above.begin(at, low);
        // Whoever finds the copy knows where it begins, or starts over.
        self.move_version();
        above.publish_child(at, id);
        if writer.wait(path.node[0]) {
            self.recycle(writer);
        }
        if saturated(had) == above.gap(at) {
            let gap = new.leaf_gap(low, self.next_low(path, 0));
            self.update_gap(path, 1, gap);
        }
        Ok(true)
    }
}
