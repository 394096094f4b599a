//! The tree: one writer, and readers without a lock. `read` has what readers do, `write` the ways
//! of the writer, and `copy` what a forked child does with a tree that it found.

mod copy;
mod read;
mod write;

use super::{
    Value,
    node::{Node, WORDS},
    pool::{NONE, Places, Source},
};
use crate::atomic::AtomicU64;
use core::marker::PhantomData;

/// Levels that a tree can have. Nodes are at least a third full when they are merged, so that no
/// map that fits into memory gets there.
pub(super) const LEVELS: usize = 16;

/// Ranges of pages, disjoint and in order, with a value each.
///
/// Changes take the [`Writer`](super::pool::Writer) that was made for this tree, for which the lock
/// of all changes is held. All numbers are pages.
pub(crate) struct Tree<T, const W: usize = WORDS> {
    /// Moves before nodes are used again, and before a word of a leaf changes.
    version: AtomicU64,
    /// Moves behind every change.
    changes: AtomicU64,
    /// The topmost node and its level; [`EMPTY`] without one.
    root: AtomicU64,
    /// The first page.
    pub(super) low: u64,
    /// The page behind the last one.
    pub(crate) high: u64,
    /// Where nodes lie.
    places: Places<W>,
    values: PhantomData<fn(T) -> T>,
}

/// The root of a tree without ranges.
const EMPTY: u64 = u64::MAX;

/// A way from a leaf up to the root.
#[derive(Clone, Copy)]
pub(crate) struct Path {
    /// The node of each level; the leaf's is 0.
    pub(super) node: [u32; LEVELS],
    /// Which child of each level's node the node below it is. The leaf's is how many of its ranges,
    /// dead ones too, start at or below the page that the way leads to; 0 where that is not known.
    pub(super) at: [u8; LEVELS],
    pub(super) height: usize,
}

impl Path {
    /// Returns a way that leads nowhere.
    #[inline]
    pub(crate) const fn unknown() -> Self {
        Self {
            node: [NONE; LEVELS],
            at: [0; LEVELS],
            height: 0,
        }
    }

    /// Returns the way, if it is known.
    #[inline]
    pub(crate) fn known(&self) -> Option<&Self> {
        (self.node[0] != NONE).then_some(self)
    }

    /// Makes the way unknown.
    pub(super) const fn forget(&mut self) {
        self.node[0] = NONE;
    }

    #[inline]
    pub(super) fn at(&self, level: usize) -> usize {
        self.at[level].into()
    }

    /// Returns how many ranges of the leaf, dead ones too, start at or below the page that the way
    /// leads to, if that is known.
    #[inline]
    pub(super) fn rank(&self) -> Option<usize> {
        (self.at[0] != 0).then_some(self.at[0].into())
    }

    #[inline]
    pub(super) fn step(&mut self, level: usize, node: u32, at: usize) {
        self.node[level] = node;
        self.at[level] = u8::try_from(at).expect("nodes have fewer children");
    }
}

#[inline]
fn unpack(root: u64) -> (u32, usize) {
    let [a, b, c, d, level, ..] = root.to_le_bytes();
    // No level is higher, which compilers do not know.
    (
        u32::from_le_bytes([a, b, c, d]),
        usize::from(level) % LEVELS,
    )
}

impl<T: Value, const W: usize> Tree<T, W> {
    /// Makes an empty tree for the pages from `low` up to `high`, with nodes from `source`.
    ///
    /// # Safety
    ///
    /// All changes are given this source, which outlives the tree.
    pub(crate) unsafe fn new(_source: &impl Source<W>, low: u64, high: u64) -> Self {
        Self {
            version: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            root: AtomicU64::new(EMPTY),
            low,
            high,
            places: Places::new(),
            values: PhantomData,
        }
    }

    #[inline]
    pub(super) fn node(&self, id: u32) -> &Node<W> {
        // A reader follows a number only after it saw that the version had not moved, or that it
        // was published: the word it came from was then a child's or the root's, never another
        // one's. It has the number by an acquiring load, and so sees what the places had when it
        // was stored.
        let node = self.places.node(id);
        // SAFETY: numbers are those that the writer gave to nodes of the source, so that the places
        // have them: initialised, and only changed by their atomics as long as the source is there,
        // which outlives self.
        unsafe { &*node }
    }
}
