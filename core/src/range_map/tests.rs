//! The tree against a plain ordered map, with nodes of several sizes.

mod copy;
mod memory;
mod model;
mod oracle;
mod readers;

extern crate std;
use super::{
    Value,
    change::Pages,
    node::{Entry, Node, saturated},
    pool::{Source, Writer},
    tree::Tree,
};
use crate::provider::{Error, ErrorKind};
use core::{cell::Cell, ptr::NonNull};
use std::{boxed::Box, vec::Vec};

/// A value whose ranges stay apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Apart(u32);

impl Value for Apart {
    fn to_bits(self) -> u32 {
        self.0
    }
    fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
    fn joins(self) -> bool {
        false
    }
}

/// A value of more than 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Big(u32);

impl Value for Big {
    fn to_bits(self) -> u32 {
        self.0
    }
    fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
    fn to_bits64(self) -> u64 {
        u64::from(self.0) << (20 * self.0)
    }
    fn from_bits64(bits: u64) -> Self {
        let all = [0, 1, 2].map(Self);
        let found = all.into_iter().find(|big| big.to_bits64() == bits);
        found.expect("nothing else was inserted")
    }
}

/// Nodes in one slice, given out until they are used up or a call is to fail.
struct Slab<const W: usize> {
    nodes: NonNull<[Node<W>]>,
    used: Cell<usize>,
    /// Whether there is nothing left.
    exhausted: Cell<bool>,
    /// Whether each call gives as little as it may.
    sparing: Cell<bool>,
}

impl<const W: usize> Slab<W> {
    fn new(count: usize) -> Self {
        let nodes: Vec<_> = (0..count).map(|_| Node::new()).collect();
        Self {
            nodes: NonNull::from(Box::leak(nodes.into_boxed_slice())),
            used: Cell::new(0),
            exhausted: Cell::new(false),
            sparing: Cell::new(false),
        }
    }
}

impl<const W: usize> Drop for Slab<W> {
    fn drop(&mut self) {
        // SAFETY: leaked from a box in new, and the trees that used it are gone.
        drop(unsafe { Box::from_raw(self.nodes.as_ptr()) });
    }
}

// SAFETY: the slice is initialised, stays until the slab is dropped, and each part of it is given
// out once.
unsafe impl<const W: usize> Source<W> for Slab<W> {
    fn nodes(&self, least: usize, most: usize) -> Result<(NonNull<Node<W>>, usize), Error> {
        let first = self.used.get();
        let left = self.nodes.len() - first;
        let most = if self.sparing.get() { least } else { most };
        if self.exhausted.get() || left < least {
            return Err(ErrorKind::Exhausted.into());
        }
        let count = most.min(left);
        self.used.set(first + count);
        // SAFETY: first < all nodes of the slice, so that this is inside it.
        Ok((unsafe { self.nodes.cast().add(first) }, count))
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

impl<T: Value, const W: usize> Tree<T, W> {
    fn all(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::new();
        let mut page = self.low;
        while let Some(entry) = (page < self.high).then(|| self.next_from(page)).flatten() {
            all.push(entry);
            page = entry.end();
        }
        all
    }

    /// Checks nodes against each other, and what the writer counts against them.
    fn check(&self, writer: &Writer<W>) {
        let (mut nodes, mut ranges, mut pages) = (0, 0, 0);
        let mut below = |node: &Node<W>| {
            ranges += node.live();
            pages += node.entries().map(|e| e.len).sum::<u64>();
        };
        if let Some(root) = self.root() {
            self.check_node(root, (self.low, self.high), &mut nodes, &mut below);
        }
        assert_eq!(nodes, writer.used(), "nodes are in the tree or not in use");
        assert_eq!((ranges, pages), (writer.ranges, writer.pages));
    }

    fn check_node(
        &self,
        (id, level): (u32, usize),
        (low, high): Pages,
        nodes: &mut usize,
        leaf: &mut dyn FnMut(&Node<W>),
    ) -> u64 {
        let node = self.node(id);
        *nodes += 1;
        assert!(node.count() > 0, "no node is empty");
        if level == 0 {
            leaf(node);
            let mut end = low;
            let mut dead = 0;
            for n in 0..node.count() {
                let entry = node.entry(n);
                assert!(entry.start >= end && entry.end() <= high, "in order");
                assert_eq!(node.rank(entry.start), n + 1, "starts differ");
                end = entry.end();
                dead += usize::from(entry.len == 0);
            }
            assert!(node.entry(0).len > 0, "the first one is not dead");
            assert_eq!(dead, node.dead());
            assert!(
                low == self.low || node.start(0) == low,
                "exact lowest starts"
            );
            let known = saturated(node.leaf_gap(low, high));
            node.forget_last_gap();
            assert_eq!(known, saturated(node.leaf_gap(low, high)), "exact groups");
            return known;
        }
        let children: Vec<_> = node.children().collect();
        assert_eq!(children[0].low, low);
        for (n, child) in children.iter().enumerate() {
            let next = children.get(n + 1).map_or(high, |next| next.low);
            let gap = self.check_node((child.id, level - 1), (child.low, next), nodes, leaf);
            assert_eq!(gap, child.gap, "exact gaps");
        }
        node.inner_gap()
    }
}

/// Where pages of a model lie: the first one, and how far apart they are.
#[derive(Clone, Copy)]
struct Layout {
    base: u64,
    step: u64,
    slots: u64,
}

/// Scales a number of operations: more in a long run, few under an emulator.
fn scaled(operations: usize) -> usize {
    if std::env::var_os("HOSTMEM_LONG").is_some() {
        operations * 20
    } else if std::env::var_os("HOSTMEM_EMULATED").is_some() {
        operations / 20
    } else {
        operations
    }
}
