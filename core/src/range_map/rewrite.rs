//! Changes of many ranges at once, which readers see as one.
//!
//! ```text
//!     the ranges of the window        what becomes of them            one store
//!   ┌───┬───┬───┬───┬───┬───┐      ┌── in nodes not seen ─┐      ┌──────┬──────┐
//!   │ a │ b │   │ c │ d │ e │ ───► │ A  │ B │ C   │ D │ E │ ───► │ new  │ new  │
//!   └───┴───┴───┴───┴───┴───┘      └──────────────────────┘      └──────┴──────┘
//! ```
//!
//! All nodes that it may take are there before the caller is asked what becomes of the ranges. What
//! the caller says is kept in some of them, and written to leaves from there; so are the children
//! of each level.
//!
//! `draft` has the new ranges, `scratch` the lists, and `long` makes the new nodes of them.

mod draft;
mod long;
mod scratch;

use super::{
    Value,
    change::{Pages, Present},
    node::{Entry, Node},
    pool::{Source, Writer},
    tree::{LEVELS, Tree},
};
use crate::provider::{Error, ErrorKind};
use draft::Draft;
use scratch::Scratch;

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
            // A range that starts before the pages may reach into them, from before dead ranges,
            // too.
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

    /// Returns how many nodes it takes at most to write `ranges` ranges in place of others.
    pub(super) fn need_for(&self, ranges: usize) -> usize {
        let height = self.root().map_or(0, |(_, height)| height);
        // Each leaf is half full at least, and may have to become two.
        let all = ranges.saturating_add(2 * Node::<W>::LEAF);
        let leaves = (all / (Node::<W>::LEAF / 2) + 2).saturating_mul(2);
        let inners = leaves / (Node::<W>::WIDE_INNER / 3).max(1) * 2 + 2 * LEVELS;
        // The caller's answers and the ranges written of them, the children of one level and of the
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
        // Ranges that reach into the pages, or touch them and join, are written with them.
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
}
