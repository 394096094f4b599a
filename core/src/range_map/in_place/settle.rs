//! Leaves are written anew, without their dead ranges.

use super::super::{
    Value,
    change::Pages,
    node::View,
    pool::{Source, Writer},
    tree::{Path, Tree},
};
use crate::provider::Error;

impl<T: Value, const W: usize> Tree<T, W> {
    /// Writes the leaves that a change may read anew if they have dead ranges; returns the root and
    /// the path to the page before the change, which may have become others.
    pub(in crate::range_map) fn settle_all(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        mut path: Path,
        (start, end): Pages,
    ) -> Result<((u32, usize), Path), Error> {
        let mut known = self.next_low(&path, 0);
        path = self.settle(writer, source, path)?;
        let root = |path: &Path| (path.node[path.height], path.height);
        for page in [start, end - 1, end.min(self.high - 1)] {
            if page >= known {
                let other = self.descend(root(&path), page);
                known = self.next_low(&other, 0);
                self.settle(writer, source, other)?;
            }
        }
        Ok((root(&path), path))
    }

    /// Writes a leaf with dead ranges anew, without them; returns the path to it.
    fn settle(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        mut path: Path,
    ) -> Result<Path, Error> {
        let old_id = path.node[0];
        let old = self.node(old_id);
        if old.dead() == 0 {
            return Ok(path);
        }
        self.ensure(writer, source, 1)?;
        let id = self.take(writer);
        let new = self.node(id);
        if old.is_wide() {
            new.write_live(View::<W, true>::of(old));
        } else {
            new.write_live(View::<W, false>::of(old));
        }
        self.publish_leaf(&path, id);
        path.node[0] = id;
        if writer.wait(old_id) {
            self.recycle(writer);
        }
        Ok(path)
    }
}
