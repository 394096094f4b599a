//! Forked children: the parts of a map, which they make anew where the lock was held.

use super::{Pages, RangeMap, Tree, Value, Writer};
use crate::{
    arena::Arena,
    fork::ForkChild,
    provider::{Error, PageProvider},
    sync::{Lock, RawMutex},
};

/// The parts that a forked child makes anew where the lock was held.
pub(super) struct Parts<T, M: PageProvider + Copy, R> {
    pub(super) tree: Tree<T>,
    pub(super) writer: Lock<Writer, R>,
    pub(super) arena: Arena<M, R>,
    /// Bytes of the nodes that were left behind for these.
    pub(super) abandoned: usize,
}

impl<T: Value, M: PageProvider + Copy, R: RawMutex> Parts<T, M, R> {
    /// Makes an empty tree of the pages from one to another.
    pub(super) fn new(metadata: M, (low, high): Pages, max_bytes: usize) -> Result<Self, Error> {
        let arena = Arena::new(metadata, max_bytes)?;
        // SAFETY: all changes are given this arena, which is owned beside the tree; the tree
        // reaches no node when it is dropped.
        let tree = unsafe { Tree::new(&arena, low, high) };
        Ok(Self {
            tree,
            writer: Lock::new(Writer::new()),
            arena,
            abandoned: 0,
        })
    }
}

// SAFETY: the tree is whole for readers after every store of a change, so that what it holds can be
// copied; the lock is the child's own afterwards, and the arena, whose lock is only taken under it.
unsafe impl<T: Value, M: PageProvider + Copy, R: RawMutex> ForkChild for RangeMap<T, M, R> {
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let old = self.parts.current();
        if !old.writer.is_locked() {
            return Ok(());
        }
        let pages = (old.tree.low, old.tree.high);
        let mut new: Parts<T, M, R> = Parts::new(self.metadata, pages, self.max_bytes)?;
        let nodes = old
            .tree
            .copy_to(&new.tree, new.writer.get_mut(), &new.arena, |_, _| {})?;
        new.abandoned = old.abandoned + nodes * Tree::<T>::NODE_BYTES;
        // SAFETY: fork_child is called by the only thread of the child; the copy is made of the
        // same provider, and Drop disposes of it with `metadata`.
        unsafe { self.parts.renew(&self.metadata, || new)? };
        // SAFETY: this is the only thread of the child, and `renew` took these parts, and so the
        // lock, out of use just now.
        unsafe { old.writer.abandon() };
        Ok(())
    }
}
