//! Copying what a writer left behind who will not come back, or not before this is done.

use super::super::{
    Value,
    node::{Entry, Node},
    pool::{Source, Writer},
};
use super::{EMPTY, Tree, unpack};
use crate::{atomic::Ordering, provider::Error};

impl<T: Value, const W: usize> Tree<T, W> {
    /// Bytes of a node.
    pub(crate) const NODE_BYTES: usize = size_of::<Node<W>>();

    /// Copies all ranges to an empty tree; returns how many nodes they took here. The writer of
    /// this tree may have stopped anywhere: what is read is what it publishes for readers. `see` is
    /// told each value, and how many pages have it.
    pub(crate) fn copy_to(
        &self,
        to: &Self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        mut see: impl FnMut(T, u64),
    ) -> Result<usize, Error> {
        let root = self.root.load(Ordering::Acquire);
        if root == EMPTY {
            return Ok(0);
        }
        self.copy_below(unpack(root), self.low, &mut |entry| {
            let value = entry.value::<T>();
            to.insert(writer, source, (entry.start, entry.end()), value)?;
            see(value, entry.len);
            Ok(())
        })
    }

    /// Copies the ranges below a node that answers for the pages from `low` on.
    fn copy_below(
        &self,
        (id, level): (u32, usize),
        low: u64,
        add: &mut impl FnMut(Entry) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let node = self.node(id);
        let mut nodes = 1;
        if level == 0 {
            let mut known = None;
            // For readers, a leaf's first range goes when the node above says so.
            for entry in node.entries().filter(|entry| entry.start >= low) {
                // One that was being moved may be there twice.
                if known.replace(entry.start) != Some(entry.start) {
                    add(entry)?;
                }
            }
        } else {
            for n in 0..node.count() {
                let low = if n == 0 { low } else { node.low(n) };
                nodes += self.copy_below((node.child(n), level - 1), low, add)?;
            }
        }
        Ok(nodes)
    }
}
