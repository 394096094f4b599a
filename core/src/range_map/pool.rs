//! Nodes that are not in use, and what the writer counts.

use super::node::{Node, WORDS};
use crate::{
    arena::Arena,
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{alloc::Layout, ptr::NonNull};

/// No node.
pub(super) const NONE: u32 = u32::MAX;

/// Replaced nodes that wait for one move of the version; readers start over so much less often.
const WAITING: usize = 32;

/// Nodes that are taken from a source at a time: an eighth of what there is, within these bounds.
const AT_A_TIME: core::ops::RangeInclusive<usize> = 16..=1024;

/// Where nodes come from.
///
/// # Safety
///
/// `base` and `nodes` promise that
/// - `base` is aligned for nodes, and never changes;
/// - for every number `n` in a range that `nodes` returned, `base.add(n)` is an initialised node in
///   the allocation of `base`, known to nobody else, which stays as long as the source's user.
pub(crate) unsafe trait Source<const W: usize> {
    /// Returns where node 0 lies or would lie.
    fn base(&self) -> NonNull<Node<W>>;

    /// Makes `count` nodes; returns the number of the first.
    ///
    /// # Errors
    ///
    /// Where there is no memory; nothing changes then.
    fn nodes(&self, count: usize) -> Result<u32, Error>;
}

// SAFETY: an arena's range starts at a page, which is aligned for nodes where pages have 64 bytes or
// more; `nodes` checks it. Memory of the arena lies in its range, belongs to whom it was allocated
// for, and stays until the arena is dropped, which users of the tree outlive by their contract.
unsafe impl<P: PageProvider + Copy, R: RawMutex, const W: usize> Source<W> for Arena<P, R> {
    fn base(&self) -> NonNull<Node<W>> {
        self.range().start().cast()
    }

    fn nodes(&self, count: usize) -> Result<u32, Error> {
        let size = size_of::<Node<W>>();
        let base = self.range().addr();
        // One more, since memory begins where it wants, and nodes at multiples of their size.
        let bytes = (count + 1)
            .checked_mul(size)
            .ok_or(ErrorKind::InvalidArgument)?;
        let layout = Layout::from_size_align(bytes, align_of::<Node<W>>())
            .map_err(|_| ErrorKind::InvalidArgument)?;
        if !base.is_multiple_of(layout.align()) {
            return Err(ErrorKind::Unsupported.into());
        }
        let first = (self.alloc(layout)?.addr().get() - base).div_ceil(size);
        let last = u32::try_from(first + count).map_err(|_| ErrorKind::Exhausted)?;
        for n in first..first + count {
            let base: NonNull<Node<W>> = self.base();
            // SAFETY: node n lies in the allocation of count + 1 nodes, of which rounding up skips
            // less than one, and that in the arena's range, where base points to.
            let node = unsafe { base.add(n) };
            // SAFETY: as above, fresh memory; aligned, since base is, and a size is a multiple of
            // the alignment.
            unsafe { node.write(Node::new()) };
        }
        // A wasted allocation, where the number was too large, is the arena's last anyway.
        u32::try_from(first)
            .ok()
            .filter(|_| last != NONE)
            .ok_or(ErrorKind::Exhausted.into())
    }
}

/// What the writer of a tree keeps for itself: whoever holds it exclusively may change the tree.
pub(crate) struct Writer<const W: usize = WORDS> {
    free: u32,
    free_count: usize,
    waiting: [u32; WAITING],
    waiting_count: usize,
    /// Nodes that came from the source.
    pub(super) nodes: usize,
    /// Ranges in the tree.
    pub(super) ranges: usize,
    /// Pages in the ranges.
    pub(super) pages: u64,
}

impl<const W: usize> Writer<W> {
    pub(crate) const fn new() -> Self {
        Self {
            free: NONE,
            free_count: 0,
            waiting: [NONE; WAITING],
            waiting_count: 0,
            nodes: 0,
            ranges: 0,
            pages: 0,
        }
    }

    /// Returns how many ranges there are.
    pub(crate) const fn ranges(&self) -> usize {
        self.ranges
    }

    /// Returns how many nodes the tree uses.
    pub(super) const fn used(&self) -> usize {
        self.nodes - self.free_count - self.waiting_count
    }

    /// Returns how many nodes can be taken.
    #[inline]
    pub(super) const fn available(&self) -> usize {
        self.free_count
    }

    /// Returns how many could be taken if none had to wait.
    pub(super) const fn obtainable(&self) -> usize {
        self.free_count + self.waiting_count
    }

    /// Returns how many nodes to ask a source for, and what to settle for.
    pub(super) fn wanted(&self, missing: usize) -> (usize, usize) {
        let chunk = (self.nodes / 8).clamp(*AT_A_TIME.start(), *AT_A_TIME.end());
        (chunk.max(missing), missing)
    }

    /// Returns the node to take and forgets it; `next` is what it says of the next one.
    #[inline]
    pub(super) fn take(&mut self, next: impl FnOnce(u32) -> u32) -> u32 {
        let id = self.free;
        assert!(id != NONE, "nodes are made before a change begins");
        self.free = next(id);
        self.free_count -= 1;
        id
    }

    /// Adds a node that no reader reaches; returns what it has to say of the next one.
    #[inline]
    pub(super) const fn give(&mut self, id: u32) -> u32 {
        self.free_count += 1;
        core::mem::replace(&mut self.free, id)
    }

    /// Keeps a node that readers may still be in; says whether no other one can wait now.
    #[inline]
    pub(super) const fn wait(&mut self, id: u32) -> bool {
        self.waiting[self.waiting_count] = id;
        self.waiting_count += 1;
        self.waiting_count == WAITING
    }

    /// Returns a node that waited, and forgets it.
    pub(super) fn waited(&mut self) -> Option<u32> {
        self.waiting_count = self.waiting_count.checked_sub(1)?;
        Some(self.waiting[self.waiting_count])
    }
}
