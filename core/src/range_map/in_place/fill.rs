//! A range that comes, in a gap.

use super::super::{
    Value,
    node::{Entry, View, saturated},
    pool::{Source, Writer},
    tree::{Path, Tree},
};
use crate::provider::Error;

/// A gap in which a range is to lie.
#[derive(Clone, Copy)]
pub(super) struct Gap {
    /// How many ranges of the leaf, dead ones too, start below the new one.
    pub(super) at: usize,
    /// The last range in front of it that is not dead.
    pub(super) owner: usize,
    pub(super) before: Entry,
    /// The first range behind it that is not dead, if it is in the leaf, and where it starts.
    pub(super) behind: Option<usize>,
    pub(super) next: u64,
}

impl<T: Value, const W: usize> Tree<T, W> {
    /// Puts a range into a gap: as a part of the one before, in the place of a dead one, or into a
    /// copy of the leaf that keeps its dead ranges while there is room. Says whether it did.
    #[inline]
    pub(super) fn fill<const WIDE: bool>(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        path: &Path,
        leaf: View<'_, W, WIDE>,
        gap: Gap,
        (entry, joins): (Entry, bool),
    ) -> Result<bool, Error> {
        let Gap {
            at,
            owner,
            before,
            behind,
            next,
        } = gap;
        if joins && next == entry.end() && next < self.high {
            // It may be in another leaf.
            if behind.is_none_or(|n| leaf.entry(n).bits == entry.bits) {
                return Ok(false);
            }
        }
        let count = leaf.count();
        let low = before.end();
        // No dead range may lie in one that is not.
        let is_free = |n: usize| behind == Some(n) || n >= count || leaf.start(n) >= entry.end();
        let had = next - low;
        let high = || self.next_low(path, 0);
        let mut new = leaf;
        if joins && owner == at - 1 && low == entry.start && before.bits == entry.bits {
            let grown = Entry::new(before.start, entry.end(), entry.bits);
            if !is_free(at) || !leaf.can_hold(grown) {
                return Ok(false);
            }
            self.move_version();
            leaf.set_len(owner, grown);
            leaf.gap_shrank(owner, had, None, high);
        } else {
            if !leaf.can_hold(entry) {
                return Ok(false);
            }
            let is_dead = |n: usize| n < count && leaf.len(n) == 0;
            let dead = if owner != at - 1 && is_free(at) {
                Some(at - 1)
            } else {
                (is_dead(at) && is_free(at + 1)).then_some(at)
            };
            if let Some(n) = dead {
                self.revive(leaf, n, entry);
                leaf.gap_shrank(owner, had, Some((n, next - entry.end())), high);
            } else if is_free(at)
                && let Some(dead) = leaf.dead_near(at)
            {
                let n = leaf.move_to(dead, at, || self.move_version());
                self.revive(leaf, n, entry);
                let moved = (dead.min(n - 1), dead.max(n));
                leaf.gaps_moved(moved, (n - 1, had), (n, next - entry.end()), high);
            } else {
                let mut behind = at;
                while !is_free(behind) {
                    behind += 1;
                }
                let dropped = behind - at;
                if count - dropped == leaf.capacity() {
                    return Ok(false);
                }
                self.ensure(writer, source, 1)?;
                let id = self.take(writer);
                let node = self.node(id);
                node.write_spliced(leaf.node, at, behind, &[entry]);
                node.set_dead(leaf.node.dead() - dropped);
                new = View::of(node);
                self.publish_leaf(path, id);
                if writer.wait(path.node[0]) {
                    self.recycle(writer);
                }
            }
            writer.ranges += 1;
        }
        writer.pages += entry.len;
        if path.height > 0 && saturated(had) == self.node(path.node[1]).gap(path.at(1)) {
            // The first range is the one that it was.
            let gap = new.node.leaf_gap(self.low_in(path, new.node), high());
            self.update_gap(path, 1, gap);
        }
        self.moved_on();
        Ok(true)
    }

    /// Makes a dead range another one.
    #[inline]
    fn revive<const WIDE: bool>(&self, leaf: View<'_, W, WIDE>, n: usize, entry: Entry) {
        // Whoever sees that it is no longer dead, and began before it was moved, starts over.
        self.move_version();
        leaf.move_dead(n, entry);
        self.move_version();
        leaf.revive(n, entry);
    }
}
