//! Changes of many ranges at once, which readers see as one.
//!
//! ```text
//!     the ranges of the window        what becomes of them            one store
//!   ┌───┬───┬───┬───┬───┬───┐      ┌─ in nodes of nobody ─┐      ┌──────┬──────┐
//!   │ a │ b │   │ c │ d │ e │ ───► │ A  │ B │ C   │ D │ E │ ───► │ new  │ new  │
//!   └───┴───┴───┴───┴───┴───┘      └──────────────────────┘      └──────┴──────┘
//! ```
//!
//! All nodes that it may take are there before the caller is asked what becomes of the ranges. What
//! the caller says is kept in some of them, and written to leaves from there; so are the children
//! of each level.

use super::{
    Value,
    change::{Pages, Plan, Present},
    list::List,
    node::{Child, Entry, Node, WORDS},
    pool::{NONE, Source, Writer},
    rebuild::{Rebuild, part},
    tree::{LEVELS, Path, Tree},
};
use crate::provider::{Error, ErrorKind};
use core::mem;

/// What a scratch node can hold.
trait Item: Copy {
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
struct Scratch<I> {
    first: u32,
    last: u32,
    count: usize,
    items: core::marker::PhantomData<fn(I) -> I>,
}

impl<I: Item> Scratch<I> {
    const fn new() -> Self {
        Self {
            first: NONE,
            last: NONE,
            count: 0,
            items: core::marker::PhantomData,
        }
    }

    fn push<T: Value, const W: usize>(
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
    fn iter<'a, T: Value, const W: usize>(
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
    fn release<T: Value, const W: usize>(self, tree: &Tree<T, W>, writer: &mut Writer<W>) {
        let mut id = self.first;
        while id != NONE {
            let next = tree.node(id).link();
            tree.release(writer, id);
            id = next;
        }
    }
}

/// What becomes of the ranges of a window, as far as it is known.
struct Draft<'a, T: Value, const W: usize> {
    tree: &'a Tree<T, W>,
    writer: &'a mut Writer<W>,
    list: Scratch<Entry>,
    /// The last range, which may grow yet.
    open: Option<Entry>,
    /// From the first page that changes to behind the last one.
    span: Option<Pages>,
}

impl<T: Value, const W: usize> Draft<'_, T, W> {
    /// Adds a range behind the last one.
    fn add(&mut self, entry: Entry) {
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
    fn change(&mut self, (start, end): Pages, bits: Option<u64>) {
        if let Some((_, known)) = self.span {
            // What lies between stays.
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
    fn close(&mut self) -> Scratch<Entry> {
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

impl<T: Value, const W: usize> Tree<T, W> {
    /// Shows the ranges in pages, cut off at their ends, to the writer.
    pub(super) fn each_in(&self, (start, end): Pages, mut visit: impl FnMut(Entry)) {
        let Some(root) = self.root() else {
            return;
        };
        let mut page = start;
        while page < end {
            let path = self.descend(root, page);
            let leaf = self.node(path.node[0]);
            // What starts before the pages may reach into them, from before dead ranges, too.
            let at = leaf.rank(start.max(leaf.start(0)));
            let reaching = leaf.live_before(at).filter(|e| e.end() > start);
            let inside = leaf.entries_from(at).take_while(|e| e.start < end);
            for entry in reaching.into_iter().chain(inside) {
                let (from, to) = (entry.start.max(start), entry.end().min(end));
                if from < to {
                    visit(Entry::new(from, to, entry.bits));
                }
            }
            page = self.next_low(&path, 0);
        }
    }

    /// Returns how many ranges lie in pages, at least in part.
    pub(super) fn count_in(&self, pages: Pages) -> usize {
        let mut count = 0;
        self.each_in(pages, |_| count += 1);
        count
    }

    /// Returns how many nodes it takes at most to write so many ranges in place of others.
    pub(super) fn need_for(&self, ranges: usize) -> usize {
        let height = self.root().map_or(0, |(_, height)| height);
        // Each leaf is half full at least, and may have to become two.
        let all = ranges.saturating_add(2 * Node::<W>::LEAF);
        let leaves = (all / (Node::<W>::LEAF / 2) + 2).saturating_mul(2);
        let inners = leaves / (Node::<W>::WIDE_INNER / 3).max(1) * 2 + 2 * LEVELS;
        // What the caller says and what is written of it, the children of one level and of the
        // next.
        let lists = ranges.saturating_add(leaves) / Node::<W>::ITEMS * 2 + 8;
        let work = leaves.saturating_add(inners).saturating_add(lists);
        work.saturating_add(Self::need(height + 1))
    }

    /// Asks what becomes of each range in pages, and of each gap if that is asked for, in order,
    /// and makes it so in one change; returns how many pages had a value. Where memory is short it
    /// may have asked about one piece.
    pub(crate) fn rewrite(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        (start, end): Pages,
        gaps: bool,
        mut change: impl FnMut(Pages, Option<T>) -> Option<T>,
    ) -> Result<u64, Error> {
        let ranges = self.count_in((start, end));
        let pieces = if gaps { 2 * ranges + 1 } else { ranges };
        if pieces == 0 {
            return Ok(0);
        }
        if pieces > 1 {
            self.ensure(writer, source, self.need_for(pieces + 2))?;
        }
        let mut draft = Draft {
            tree: self,
            writer,
            list: Scratch::new(),
            open: None,
            span: None,
        };
        let mut had = 0;
        let mut at = start;
        let mut only = None;
        let mut ask = |pages: Pages, old: Option<Entry>| {
            let value = old.map(Entry::value::<T>);
            let new = change(pages, value);
            if new != value {
                let bits = new.map(T::to_bits64);
                if pieces == 1 {
                    only = Some((pages, new));
                } else {
                    draft.change(pages, bits);
                }
            }
        };
        self.each_in((start, end), |entry| {
            if gaps && at < entry.start {
                ask((at, entry.start), None);
            }
            had += entry.len;
            at = entry.end();
            ask((entry.start, at), Some(entry));
        });
        if gaps && at < end {
            ask((at, end), None);
        }
        let span = draft.span;
        let list = draft.close();
        drop(draft);
        if let Some((pages, value)) = only {
            self.set(writer, source, pages, value, Present::Replace, None)?;
            return Ok(had);
        }
        let Some(span) = span else {
            return Ok(had);
        };
        let one = list.iter(self).next();
        let whole = one.is_none_or(|one| (one.start, one.end()) == span);
        let done = if list.count <= 1 && whole {
            let value = one.map(Entry::value::<T>);
            let set = self.set(writer, source, span, value, Present::Replace, None);
            set.map(drop)
        } else {
            self.write(writer, source, span, &list)
        };
        list.release(self, writer);
        done.map(|()| had)
    }

    /// Writes a list of ranges in the place of what lies in pages, all of whose nodes are there.
    fn write(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        (mut start, mut end): Pages,
        list: &Scratch<Entry>,
    ) -> Result<(), Error> {
        debug_assert!(self.root().is_some(), "several pieces are ranges and gaps");
        // What reaches into the pages, or touches them and joins, is written with them.
        let mut around = [None, None];
        let (first, last) = (list.iter(self).next(), list.iter(self).last());
        let joins = |e: &Entry, with: Option<Entry>, at: u64, touches: bool| {
            let same = with.filter(|with| with.bits == e.bits && with.value::<T>().joins());
            touches && same.is_some_and(|with| with.start == at || with.end() == at)
        };
        if let Some(below) = start.checked_sub(1).filter(|page| *page >= self.low)
            && let Some(e) = self.query(below)
            && (e.end() > start || joins(&e, first, start, e.end() == start))
        {
            around[0] = Some(Entry::new(e.start, start, e.bits));
        }
        if end < self.high
            && let Some(e) = self.query(end)
            && (e.start < end || joins(&e, last, end, e.start == end))
        {
            around[1] = Some(Entry::new(end, e.end(), e.bits));
        }
        start = around[0].map_or(start, |e| e.start);
        end = around[1].map_or(end, |e| e.end());
        let mut all: Draft<'_, T, W> = Draft {
            tree: self,
            writer,
            list: Scratch::new(),
            open: None,
            span: None,
        };
        let [in_front, behind] = around;
        for entry in in_front.into_iter().chain(list.iter(self)).chain(behind) {
            all.add(entry);
        }
        let all_of_it = all.close();
        drop(all);
        let root = self.root().ok_or(ErrorKind::Other)?;
        let path = self.descend(root, start.saturating_sub(1).max(self.low));
        let wanted = (start, end);
        let (root, path) = self.settle_all(writer, source, path, wanted)?;
        let plan = self.plan((root, path), wanted, None, Present::Replace)?;
        debug_assert!(plan.with.as_slice().is_empty(), "no range is cut");
        self.rebuild_long(writer, root, &plan, &all_of_it)?;
        all_of_it.release(self, writer);
        self.moved_on();
        Ok(())
    }

    /// As [`Tree::rebuild`], with as many ranges as a list has.
    fn rebuild_long(
        &self,
        writer: &mut Writer<W>,
        root: (u32, usize),
        plan: &Plan,
        list: &Scratch<Entry>,
    ) -> Result<(), Error> {
        let height = root.1;
        let (left, right): (Path, Path) = (plan.left.path, plan.right.path);
        let old_low = self.low_of(&left);
        let mut work = Rebuild::new(self, writer, plan);
        let mut made = work.long_leaves(plan, list);
        let new_low = made.iter(self).next().map(|child: Child| child.low);
        let grew_in_front = !self.is_first(&left) && new_low != Some(old_low);
        work.retire(0);
        let (mut level, mut in_place) = (0, false);
        while level < height {
            level += 1;
            let only = made.iter(self).next().filter(|_| made.count == 1);
            if let Some(child) = only.filter(|child| work.is_in_place(level, *child)) {
                self.node(left.node[level])
                    .publish_child(left.at(level), child.id);
                self.update_gap(&left, level, child.gap);
                in_place = true;
                break;
            }
            let (from, to) = (left.at(level), right.at(level) + 1);
            let ends = (left.node[level], from, right.node[level], to);
            let rest = self.node(ends.2).count() - to;
            if level == height && from + made.count + rest == 1 {
                // The root has one child, which becomes the root.
                work.retire(level);
                level -= 1;
                break;
            }
            let above = work.long_inners(&made, Some(ends));
            mem::replace(&mut made, above).release(self, work.writer);
            work.retire(level);
        }
        if !in_place {
            // Levels above the old root, down from one that has only one child.
            while made.count > 1 {
                level += 1;
                if level >= LEVELS {
                    return Err(ErrorKind::Exhausted.into());
                }
                let above = work.long_inners(&made, None);
                mem::replace(&mut made, above).release(self, work.writer);
            }
            let only = made.iter(self).next();
            self.publish_root(only.map(|child| (child.id, level)));
        }
        made.release(self, work.writer);
        let retired = work.retired;
        self.retire_all(writer, retired.as_slice());
        if grew_in_front {
            self.grow_gap_before(old_low);
        }
        Ok(())
    }
}

impl<T: Value, const W: usize> Rebuild<'_, T, W> {
    /// Makes leaves of a list and what lies around it in the first leaf and the last one.
    fn long_leaves(&mut self, plan: &Plan, list: &Scratch<Entry>) -> Scratch<Child> {
        let tree = self.tree;
        let (first, last) = (tree.node(self.a.node[0]), tree.node(self.b.node[0]));
        let (from, to) = (plan.left.at, plan.right.at);
        let same = self.a.node[0] == self.b.node[0];
        self.count_dropped(plan);
        self.writer.pages += list.iter(tree).map(|e| e.len).sum::<u64>();
        self.writer.ranges += list.count;

        let rest = last.count() - to;
        let total = from + list.count + rest;
        let in_front = first.entries().take(from);
        let behind = last.entries().skip(to);
        debug_assert!(!same || from <= to, "in order");
        let mut entries = in_front.chain(list.iter(tree)).chain(behind).peekable();
        let parts = total.div_ceil(Node::<W>::LEAF - Node::<W>::LEAF / 16);
        let mut made = Scratch::new();
        for n in 0..parts {
            let count = part(n, parts, total).len();
            let mut some: List<Entry, WORDS> = List::new();
            some.extend(entries.by_ref().take(count));
            let next = match entries.peek() {
                Some(entry) => entry.start,
                None => tree.next_low(&self.b, 0),
            };
            let mut leaves = List::new();
            self.leaf(some.as_slice(), n == 0, next, &mut leaves);
            for child in leaves.as_slice() {
                made.push(tree, self.writer, *child);
            }
        }
        made
    }

    /// Makes inner nodes above nodes that were made, which take the place of the children from one
    /// of a node up to one of another.
    fn long_inners(
        &mut self,
        below: &Scratch<Child>,
        ends: Option<(u32, usize, u32, usize)>,
    ) -> Scratch<Child> {
        let tree = self.tree;
        let (from, rest) = ends.map_or((0, 0), |(_, from, last, to)| {
            (from, tree.node(last).count() - to)
        });
        let in_front = ends.map(|(first, from, ..)| tree.node(first).children().take(from));
        let behind = ends.map(|(_, _, last, to)| tree.node(last).children().skip(to));
        let total = from + below.count + rest;
        let mut children = in_front
            .into_iter()
            .flatten()
            .chain(below.iter(tree))
            .chain(behind.into_iter().flatten());
        let is_far = tree.high - tree.low > Node::<W>::NARROW_PAGES;
        let capacity = if is_far {
            Node::<W>::WIDE_INNER
        } else {
            Node::<W>::INNER
        };
        let parts = total.div_ceil(capacity - capacity / 16);
        let mut made = Scratch::new();
        for n in 0..parts {
            let mut some: List<Child, WORDS> = List::new();
            some.extend(children.by_ref().take(part(n, parts, total).len()));
            let mut node = List::new();
            self.inner(some.as_slice(), &mut node);
            for child in node.as_slice() {
                made.push(tree, self.writer, *child);
            }
        }
        made
    }
}
