//! The new ranges of a window, as far as they are known.

use super::super::{Value, change::Pages, node::Entry, pool::Writer, tree::Tree};
use super::Scratch;
use core::mem;

/// The new ranges of a window, as far as they are known.
pub(super) struct Draft<'a, T: Value, const W: usize> {
    pub(super) tree: &'a Tree<T, W>,
    pub(super) writer: &'a mut Writer<W>,
    pub(super) list: Scratch<Entry>,
    /// The last range, which may grow yet.
    pub(super) open: Option<Entry>,
    /// From the first page that changes to behind the last one.
    pub(super) span: Option<Pages>,
}

impl<T: Value, const W: usize> Draft<'_, T, W> {
    /// Adds a range behind the last one.
    pub(super) fn add(&mut self, entry: Entry) {
        if let Some(open) = &mut self.open {
            let joins = open.end() == entry.start && open.bits == entry.bits;
            if joins && entry.value::<T>().joins() {
                open.len += entry.len;
                return;
            }
            self.list.push(self.tree, self.writer, *open);
        }
        self.open = Some(entry);
    }

    /// Notes that pages have a value now, or none.
    pub(super) fn change(&mut self, (start, end): Pages, bits: Option<u64>) {
        if let Some((_, known)) = self.span {
            // Ranges between stay.
            let tree = self.tree;
            tree.each_in((known, start), |entry| self.add(entry));
        }
        let first = self.span.map_or(start, |span| span.0);
        self.span = Some((first, end));
        if let Some(bits) = bits {
            self.add(Entry::new(start, end, bits));
        }
    }

    /// Ends the list; returns it.
    pub(super) fn close(&mut self) -> Scratch<Entry> {
        if let Some(open) = self.open.take() {
            self.list.push(self.tree, self.writer, open);
        }
        mem::replace(&mut self.list, Scratch::new())
    }
}

impl<T: Value, const W: usize> Drop for Draft<'_, T, W> {
    fn drop(&mut self) {
        // Where the caller's function unwinds there is a list still.
        let list = mem::replace(&mut self.list, Scratch::new());
        list.release(self.tree, self.writer);
    }
}
