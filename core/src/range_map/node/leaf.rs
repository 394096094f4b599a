//! Leaves.
//!
//! ```text
//!   leaf         header │ base │ offsets of the starts, two a word │ length and value, a word each
//!   wide leaf    header │      │ starts │ lengths │ values
//! ```
//!
//! Leaves may have *dead* ranges: of no length, in the gap that they left, so that a range goes and
//! another one comes by one store. The first one is never dead.
//!
//! Reading is here, and `view` what the writer reads; `gaps` has the gaps, `write` leaves that no
//! reader reaches yet, and `in_place` changes of those that readers are in.

mod gaps;
mod in_place;
mod view;
mod write;

use super::{super::change::Pages, Entry, NEVER, Node, WIDE_BIT, high_half, low_half};
use crate::atomic::Ordering;
use core::mem::MaybeUninit;
pub(in crate::range_map) use view::View;

/// The number that one dead range adds to the header.
const ONE_DEAD: u64 = 1 << 33;

impl<const W: usize> Node<W> {
    /// Returns how many ranges, or children, there are.
    #[inline]
    pub(in crate::range_map) fn count(&self) -> usize {
        low_half(self.get(0)) as usize
    }

    #[inline]
    pub(in crate::range_map) fn is_wide(&self) -> bool {
        self.get(0) & WIDE_BIT != 0
    }

    /// Returns how many of the ranges are dead.
    #[inline]
    pub(in crate::range_map) fn dead(&self) -> usize {
        (self.get(0) / ONE_DEAD) as usize
    }

    /// Returns how many ranges of a leaf are not dead.
    #[inline]
    pub(in crate::range_map) fn live(&self) -> usize {
        self.count() - self.dead()
    }

    /// Returns how many ranges, dead ones too, start at or below `page`.
    #[inline]
    pub(in crate::range_map) fn rank(&self, page: u64) -> usize {
        self.rank_as(self.is_wide(), page)
    }

    #[inline]
    fn rank_as(&self, wide: bool, page: u64) -> usize {
        if wide {
            return self.rank_words(Self::STARTS, Self::WIDE, page);
        }
        self.rank_narrow(page)
    }

    /// Returns the range that holds `page`, for a reader, as [`Node::around`].
    #[inline]
    pub(in crate::range_map) fn holding(&self, page: u64) -> Option<Entry> {
        let wide = self.is_wide();
        let n = self.rank_as(wide, page).checked_sub(1)?;
        let last = self.entry_as(wide, n);
        if page.wrapping_sub(last.start) < last.len {
            return Some(last);
        }
        if last.len != 0 {
            return None;
        }
        let live = self.live_far_below(wide, n);
        live.filter(|e| page.wrapping_sub(e.start) < e.len)
    }

    /// Returns the last range that starts at or below `page` and is not dead, and the next one
    /// behind it, for a reader: one that comes late gets anything, but gets it from within the node.
    #[inline]
    pub(in crate::range_map) fn around(
        &self,
        page: u64,
    ) -> (Option<Entry>, impl FnOnce() -> Option<Entry>) {
        let header = self.get(0);
        let wide = header & WIDE_BIT != 0;
        let rank = self.rank_as(wide, page);
        let below = self.live_below(wide, rank);
        let next = move || {
            let slots = if wide { Self::WIDE } else { Self::LEAF };
            let count = slots.min(low_half(header) as usize);
            let mut behind = (rank..count).map(|n| self.entry_as(wide, n));
            behind.find(|e| e.len != 0)
        };
        (below, next)
    }

    /// Returns the last range that starts at or below `page` and is not dead, for a reader, as
    /// [`Node::around`].
    pub(in crate::range_map) fn last_from(&self, page: u64) -> Option<Entry> {
        let wide = self.get(0) & WIDE_BIT != 0;
        self.live_below(wide, self.rank_as(wide, page))
    }

    /// Returns the last range before the nth that is not dead: one that is being moved may be in
    /// front of a dead one with its start.
    #[inline]
    fn live_below(&self, wide: bool, n: usize) -> Option<Entry> {
        let last = self.entry_as(wide, n.checked_sub(1)?);
        if last.len != 0 {
            return Some(last);
        }
        self.live_far_below(wide, n - 1)
    }

    #[inline(never)]
    fn live_far_below(&self, wide: bool, n: usize) -> Option<Entry> {
        let mut before = (0..n).rev().map(|n| self.entry_as(wide, n));
        before.find(|e| e.len != 0)
    }

    /// Writes the ranges of the leaf that end behind `page` and start at or below `last` to a
    /// buffer, as many as fit; returns how many, and whether these are all. For a reader, as
    /// [`Node::around`].
    pub(in crate::range_map) fn read_from(
        &self,
        (page, last): Pages,
        buffer: &mut [MaybeUninit<Entry>],
    ) -> (usize, bool) {
        // Where it says that none is dead, all that this reads is as alive as it says.
        let header = self.words[0].load(Ordering::Acquire);
        let wide = header & WIDE_BIT != 0;
        let slots = if wide { Self::WIDE } else { Self::LEAF };
        let all = slots.min(low_half(header) as usize);
        // From one that is not dead, and where one that is being moved is there twice, from the
        // first of both: what is looked at here is read again below, when one of them may be dead.
        let mut first = self.rank_as(wide, page).saturating_sub(1);
        while first > 0 {
            let (before, entry) = (self.entry_as(wide, first - 1), self.entry_as(wide, first));
            if entry.len != 0 && entry.start != before.start {
                break;
            }
            first -= 1;
        }
        // A late reader's header may say anything: what it leads to is discarded.
        let dead = header / ONE_DEAD != 0;
        // Where none is dead, the first one is the only one that may end in front of the page.
        if !dead && page != 0 && first < all && self.entry_as(wide, first).end() <= page {
            first += 1;
        }
        let until = match all.checked_sub(1) {
            Some(n) if self.entry_as(wide, n).start <= last => all,
            // Ranks are those of all slots.
            _ => self.rank_as(wide, last.min(NEVER - 1)).min(all),
        };
        let wanted = until.saturating_sub(first);
        let count = wanted.min(buffer.len());
        let is_all = wanted == count;
        let Some(buffer) = buffer.get_mut(..count) else {
            return (0, false);
        };
        if wide {
            for (slot, n) in buffer.iter_mut().zip(first..) {
                slot.write(self.entry_as(true, n));
            }
        } else {
            self.read_narrow(first, buffer);
        }
        if !dead {
            return (count, is_all);
        }
        let (mut kept, mut known) = (0, NEVER);
        for n in 0..count {
            // SAFETY: n is below the buffer's length, all of which was written above.
            let entry = *unsafe { buffer[n].assume_init_ref() };
            buffer[kept].write(entry);
            // One that is being moved may be there twice, and some may lie in front of the page.
            let lives = entry.len != 0 && entry.start != known && entry.end() > page;
            known = if lives { entry.start } else { known };
            kept += usize::from(lives);
        }
        (kept, is_all)
    }

    /// Writes the ranges of a leaf that is not wide from the nth on to a buffer, dead ones too.
    #[inline]
    fn read_narrow(&self, n: usize, buffer: &mut [MaybeUninit<Entry>]) {
        let odd = (n % 2).min(buffer.len());
        let (first, rest) = buffer.split_at_mut(odd);
        if let [first] = first {
            first.write(self.entry_as(false, n));
        }
        let n = n + odd;
        // Offsets come in pairs.
        let base = self.get(1);
        let (slots, last) = rest.as_chunks_mut::<2>();
        let offsets = &self.words[Self::OFFSETS..Self::TAILS];
        let tails = self.words[Self::TAILS..Self::TAILS + Self::LEAF]
            .as_chunks::<2>()
            .0;
        let words = offsets[n / 2..].iter().zip(&tails[n / 2..]);
        for ([a, b], (word, [low, high])) in slots.iter_mut().zip(words) {
            let word = word.load(Ordering::Relaxed);
            let entry = |offset: u32, tail: u64| Entry {
                start: base.wrapping_add(offset.into()),
                len: high_half(tail).into(),
                bits: low_half(tail).into(),
            };
            a.write(entry(low_half(word), low.load(Ordering::Relaxed)));
            b.write(entry(high_half(word), high.load(Ordering::Relaxed)));
        }
        if let [last] = last {
            last.write(self.entry_as(false, n + 2 * slots.len()));
        }
    }

    /// Returns where a range starts.
    #[inline]
    pub(in crate::range_map) fn start(&self, n: usize) -> u64 {
        if self.is_wide() {
            self.get(Self::STARTS + n)
        } else {
            self.get(1).wrapping_add(self.offset(n).into())
        }
    }

    /// Returns a range.
    #[inline]
    pub(in crate::range_map) fn entry(&self, n: usize) -> Entry {
        self.entry_as(self.is_wide(), n)
    }

    #[inline]
    fn entry_as(&self, wide: bool, n: usize) -> Entry {
        if wide {
            return Entry {
                start: self.get(Self::STARTS + n),
                len: self.get(Self::LENGTHS + n),
                bits: self.get(Self::VALUES + n),
            };
        }
        let tail = self.get(Self::TAILS + n);
        Entry {
            start: self.get(1).wrapping_add(self.offset(n).into()),
            len: high_half(tail).into(),
            bits: low_half(tail).into(),
        }
    }

    /// Yields the ranges that are not dead.
    pub(in crate::range_map) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries_from(0)
    }

    /// Yields those of the ranges from the nth on that are not dead.
    #[inline]
    pub(in crate::range_map) fn entries_from(&self, n: usize) -> impl Iterator<Item = Entry> + '_ {
        let wide = self.is_wide();
        let all = (n..self.count()).map(move |n| self.entry_as(wide, n));
        all.filter(|e| e.len != 0)
    }

    /// Returns the start of the first range from the nth on that is not dead.
    #[inline]
    pub(in crate::range_map) fn next_start(&self, n: usize) -> Option<u64> {
        self.entries_from(n).next().map(|e| e.start)
    }

    /// Returns the last range before the nth that is not dead: there is one unless `n` is 0.
    #[inline]
    pub(in crate::range_map) fn live_before(&self, n: usize) -> Option<Entry> {
        let mut before = (0..n).rev().map(|n| self.entry(n));
        before.find(|e| e.len != 0)
    }
}
