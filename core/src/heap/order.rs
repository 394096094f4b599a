//! Slabs with free blocks by address: a pairing heap (Fredman, Sedgewick, Sleator and Tarjan, 1986)
//! in the links of the descriptors. The lowest is found at once, and any can be taken out.
//!
//! `previous` is the parent of a first child, and the left sibling of any other.

use super::slab::Handle;

/// The root of the heap. Guarded by the lock of a bin, as the links are.
#[derive(Default)]
pub(super) struct Order(Option<Handle>);

/// Makes one tree of two; the lower address is its root.
fn meld(a: Handle, b: Handle) -> Handle {
    let (low, high) = if a.addr() < b.addr() { (a, b) } else { (b, a) };
    let child = low.child.get();
    high.next.set(child);
    if let Some(child) = child {
        child.previous.set(Some(high));
    }
    high.previous.set(Some(low));
    low.child.set(Some(high));
    low.next.set(None);
    low.previous.set(None);
    low
}

/// Makes one tree of siblings: of pairs from the left, then of those from the right.
fn merge(first: Option<Handle>) -> Option<Handle> {
    let mut pairs = None;
    let mut rest = first;
    while let Some(a) = rest {
        let b = a.next.get();
        rest = b.and_then(|b| b.next.get());
        let pair = b.map_or(a, |b| meld(a, b));
        pair.next.set(pairs);
        pairs = Some(pair);
    }
    let mut root: Option<Handle> = None;
    while let Some(pair) = pairs {
        pairs = pair.next.get();
        root = Some(root.map_or(pair, |root| meld(root, pair)));
    }
    if let Some(root) = root {
        root.next.set(None);
        root.previous.set(None);
    }
    root
}

impl Order {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    pub(super) fn lowest(&self) -> Option<Handle> {
        self.0
    }

    /// Says whether `slab`, which is in the heap, is the only one.
    pub(super) fn is_only(&self, slab: Handle) -> bool {
        self.0 == Some(slab) && slab.child.get().is_none()
    }

    pub(super) fn insert(&mut self, slab: Handle) {
        slab.child.set(None);
        slab.next.set(None);
        slab.previous.set(None);
        self.0 = Some(self.0.map_or(slab, |root| meld(root, slab)));
    }

    /// Takes `slab` out, which is in the heap.
    pub(super) fn remove(&mut self, slab: Handle) {
        let below = merge(slab.child.get());
        slab.child.set(None);
        let Some(previous) = slab.previous.get() else {
            self.0 = below;
            return;
        };
        let next = slab.next.get();
        if previous.child.get() == Some(slab) {
            previous.child.set(next);
        } else {
            previous.next.set(next);
        }
        if let Some(next) = next {
            next.previous.set(Some(previous));
        }
        slab.next.set(None);
        slab.previous.set(None);
        if let (Some(root), Some(below)) = (self.0, below) {
            self.0 = Some(meld(root, below));
        }
    }
}
