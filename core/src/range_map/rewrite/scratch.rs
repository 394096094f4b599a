//! Lists in nodes that no reader reaches.

use super::super::{
    Value,
    node::{Child, Entry, Node},
    pool::{NONE, Writer},
    tree::Tree,
};

/// An item that a scratch node can hold.
pub(super) trait Item: Copy {
    fn to_words(self) -> [u64; 3];
    fn from_words(words: [u64; 3]) -> Self;
}

impl Item for Entry {
    fn to_words(self) -> [u64; 3] {
        [self.start, self.len, self.bits]
    }
    fn from_words([start, len, bits]: [u64; 3]) -> Self {
        Self { start, len, bits }
    }
}

impl Item for Child {
    fn to_words(self) -> [u64; 3] {
        [self.low, self.id.into(), self.gap]
    }
    fn from_words([low, id, gap]: [u64; 3]) -> Self {
        let id = u32::try_from(id).expect("it was one");
        Self { low, id, gap }
    }
}

/// A list in nodes that no reader reaches.
pub(super) struct Scratch<I> {
    first: u32,
    last: u32,
    pub(super) count: usize,
    items: core::marker::PhantomData<fn(I) -> I>,
}

impl<I: Item> Scratch<I> {
    pub(super) const fn new() -> Self {
        Self {
            first: NONE,
            last: NONE,
            count: 0,
            items: core::marker::PhantomData,
        }
    }

    pub(super) fn push<T: Value, const W: usize>(
        &mut self,
        tree: &Tree<T, W>,
        writer: &mut Writer<W>,
        item: I,
    ) {
        let at = self.count % Node::<W>::ITEMS;
        if at == 0 {
            let id = tree.take(writer);
            if self.last == NONE {
                self.first = id;
            } else {
                tree.node(self.last).set_link(id);
            }
            tree.node(id).set_link(NONE);
            self.last = id;
        }
        tree.node(self.last).set_item(at, item.to_words());
        self.count += 1;
    }

    /// Yields what is in the list, in order.
    pub(super) fn iter<'a, T: Value, const W: usize>(
        &self,
        tree: &'a Tree<T, W>,
    ) -> impl Iterator<Item = I> + use<'a, I, T, W> {
        let (mut id, count) = (self.first, self.count);
        (0..count).map(move |n| {
            let at = n % Node::<W>::ITEMS;
            if n != 0 && at == 0 {
                id = tree.node(id).link();
            }
            I::from_words(tree.node(id).item(at))
        })
    }

    /// Gives the nodes back.
    pub(super) fn release<T: Value, const W: usize>(
        self,
        tree: &Tree<T, W>,
        writer: &mut Writer<W>,
    ) {
        let mut id = self.first;
        while id != NONE {
            let next = tree.node(id).link();
            tree.release(writer, id);
            id = next;
        }
    }
}
