//! Leaves.
//!
//! ```text
//!   leaf         header │ base │ offsets of the starts, two a word │ length and value, a word each
//!   wide leaf    header │      │ starts │ lengths │ values
//! ```
//!
//! Leaves may have *dead* ranges: of no length, in the gap that they left, so that a range goes and
//! another one comes by one store. The first one is never dead.

use super::{
    super::change::Pages, Entry, GROUP, NEVER, NO_OFFSET, Node, WIDE_BIT, high_half, larger,
    low_half, pair,
};
use crate::atomic::{AtomicU64, Ordering};
use core::{mem::MaybeUninit, ops::ControlFlow};

/// What one dead range adds to the header.
const ONE_DEAD: u64 = 1 << 33;

/// Room in front of a range of a leaf.
#[derive(Clone, Copy, Debug)]
pub(in crate::range_map) struct Room {
    pub(in crate::range_map) low: u64,
    pub(in crate::range_map) high: u64,
    /// The range behind it, and where the last one before that ends.
    pub(in crate::range_map) next: usize,
    pub(in crate::range_map) end: u64,
}

/// Copies words, eight at a time: compilers do not merge steps of a loop over atomics.
#[inline]
fn copy(from: &[AtomicU64], to: &[AtomicU64]) {
    let step = |from: &AtomicU64, to: &AtomicU64| {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    };
    let (from, from_rest) = from.as_chunks::<8>();
    let (to, to_rest) = to.as_chunks::<8>();
    for (from, to) in from.iter().zip(to) {
        for (from, to) in from.iter().zip(to) {
            step(from, to);
        }
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        step(from, to);
    }
}

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

    /// Returns the range with the highest start at or below `page`, dead or not, and the next one behind
    /// it that is not dead, for a reader: one that comes late gets anything, but gets it from within
    /// the node.
    #[inline]
    pub(in crate::range_map) fn around(
        &self,
        page: u64,
    ) -> (Option<Entry>, impl FnOnce() -> Option<Entry>) {
        let header = self.get(0);
        let wide = header & WIDE_BIT != 0;
        let rank = self.rank_as(wide, page);
        let below = rank.checked_sub(1).map(|n| self.entry_as(wide, n));
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
        let rank = self.rank_as(wide, page);
        let mut before = (0..rank).rev().map(|n| self.entry_as(wide, n));
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
        let header = self.get(0);
        let wide = header & WIDE_BIT != 0;
        let slots = if wide { Self::WIDE } else { Self::LEAF };
        let all = slots.min(low_half(header) as usize);
        let first = self.rank_as(wide, page).saturating_sub(1);
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
        // The first one may end before the page, and there may be dead ones. A late reader's header
        // may say anything: what it leads to is discarded.
        let dead = header / ONE_DEAD != 0;
        let skipped = usize::from(
            page != 0
                && buffer.first().is_some_and(|first| {
                    // SAFETY: all of the buffer was written above.
                    unsafe { first.assume_init_ref() }.end() <= page
                }),
        );
        if !dead && skipped == 0 {
            return (count, is_all);
        }
        let mut kept = 0;
        for n in skipped..count {
            // SAFETY: as above.
            let entry = *unsafe { buffer[n].assume_init_ref() };
            buffer[kept].write(entry);
            kept += usize::from(entry.len != 0);
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

    /// Returns the end of the last range before the nth that is not dead: there is one unless `n` is 0.
    #[inline]
    pub(in crate::range_map) fn end_before(&self, n: usize) -> u64 {
        self.live_before(n).map_or(self.start(0), Entry::end)
    }

    /// Says whether a leaf that is not wide, and starts at `base`, can hold a range.
    #[inline]
    fn packs(base: u64, entry: Entry) -> bool {
        let near = entry.start >= base && entry.start - base < NO_OFFSET.into();
        near && (entry.len | entry.bits) <= u32::MAX.into()
    }

    /// Says whether ranges can be written to one leaf.
    pub(in crate::range_map) fn fits(entries: &[Entry]) -> bool {
        let Some(first) = entries.first() else {
            return false;
        };
        entries.len() <= Self::WIDE
            || entries.len() <= Self::LEAF && entries.iter().all(|e| Self::packs(first.start, *e))
    }

    fn tail(entry: Entry) -> u64 {
        pair(low_half(entry.bits), low_half(entry.len))
    }

    /// Writes a leaf of ranges that fit.
    pub(in crate::range_map) fn write_leaf(&self, entries: &[Entry]) {
        let base = entries.first().map_or(0, |e| e.start);
        let count = entries.len() as u64;
        if entries.iter().all(|e| Self::packs(base, *e)) {
            self.set(0, count);
            self.set(1, base);
            let offset = |n: usize| {
                let offset = entries.get(n).map(|e| e.start - base);
                offset.map_or(NO_OFFSET, low_half)
            };
            for word in 0..Self::LEAF / 2 {
                self.set(
                    Self::OFFSETS + word,
                    pair(offset(2 * word), offset(2 * word + 1)),
                );
            }
            for (n, entry) in entries.iter().enumerate() {
                self.set(Self::TAILS + n, Self::tail(*entry));
            }
            return;
        }
        self.write_wide(entries.iter().copied());
    }

    fn write_wide(&self, entries: impl Iterator<Item = Entry>) {
        let mut count = 0;
        for entry in entries {
            self.set(Self::STARTS + count, entry.start);
            self.set(Self::LENGTHS + count, entry.len);
            self.set(Self::VALUES + count, entry.bits);
            count += 1;
        }
        for n in count..Self::WIDE {
            self.set(Self::STARTS + n, NEVER);
        }
        self.set(0, count as u64 | WIDE_BIT);
    }

    /// Returns how many ranges fit into a leaf as it is.
    #[inline]
    pub(in crate::range_map) fn capacity(&self) -> usize {
        if self.is_wide() {
            Self::WIDE
        } else {
            Self::LEAF
        }
    }

    /// Says whether [`Node::write_spliced`] can make a leaf from this one.
    #[inline]
    pub(in crate::range_map) fn can_splice(&self, from: usize, to: usize, with: &[Entry]) -> bool {
        let first_stays = from > 0 || with.first().is_some_and(|e| e.start == self.start(0));
        first_stays
            && self.count() - (to - from) + with.len() <= self.capacity()
            && with.iter().all(|e| self.can_hold(*e))
    }

    /// Writes a leaf that is `old` with other ranges in place of `from..to`. It has the dead ranges of
    /// `old` elsewhere, and does not count them yet.
    pub(in crate::range_map) fn write_spliced(
        &self,
        old: &Self,
        from: usize,
        to: usize,
        with: &[Entry],
    ) {
        let (base, count) = (old.get(1), old.count());
        let shifted = from + with.len();
        if old.is_wide() {
            let in_front = (0..from).map(|n| old.entry_as(true, n));
            let behind = (to..count).map(|n| old.entry_as(true, n));
            self.write_wide(in_front.chain(with.iter().copied()).chain(behind));
            return;
        }
        self.set(0, (shifted + count - to) as u64);
        self.set(1, base);
        self.splice_offsets(old, (from, to), with, base);
        let (source, target) = (&old.words[Self::TAILS..], &self.words[Self::TAILS..]);
        copy(&source[..from], &target[..from]);
        for (new, entry) in target[from..shifted].iter().zip(with) {
            new.store(Self::tail(*entry), Ordering::Relaxed);
        }
        copy(&source[to..count], &target[shifted..shifted + count - to]);
    }

    #[inline]
    fn splice_offsets(&self, old: &Self, (from, to): (usize, usize), with: &[Entry], base: u64) {
        let words = |node| -> &[AtomicU64] {
            let node: &Self = node;
            &node.words[Self::OFFSETS..Self::TAILS]
        };
        let (source, target) = (words(old), words(self));
        let shifted = from + with.len();
        // Where the nth range behind the change was; there is none behind the last slot.
        let offset = |n: usize| match n {
            n if n < from => old.offset(n),
            n if n < shifted => low_half(with[n - from].start - base),
            n if n - shifted + to < Self::LEAF => old.offset(n - shifted + to),
            _ => NO_OFFSET,
        };
        let (first, rest) = (from / 2, shifted.div_ceil(2).min(target.len()));
        copy(&source[..first], &target[..first]);
        for (n, word) in target.iter().enumerate().take(rest).skip(first) {
            word.store(pair(offset(2 * n), offset(2 * n + 1)), Ordering::Relaxed);
        }
        let was = 2 * rest - shifted + to;
        let behind = &source[(was / 2).min(source.len())..];
        let target = &target[rest..];
        let copied = if was.is_multiple_of(2) {
            let copied = behind.len().min(target.len());
            copy(&behind[..copied], &target[..copied]);
            copied
        } else {
            let mut halves = behind.iter().map(|word| word.load(Ordering::Relaxed));
            let mut low = halves.next().unwrap_or(pair(NO_OFFSET, NO_OFFSET));
            let mut copied = 0;
            for (next, word) in halves.zip(target) {
                word.store(low >> 32 | next << 32, Ordering::Relaxed);
                low = next;
                copied += 1;
            }
            if let Some(word) = target.get(copied) {
                word.store(pair(high_half(low), NO_OFFSET), Ordering::Relaxed);
                copied += 1;
            }
            copied
        };
        for word in &target[copied..] {
            word.store(pair(NO_OFFSET, NO_OFFSET), Ordering::Relaxed);
        }
    }

    /// Finds the first range from the nth on that starts `len` pages or more behind `end`, where the one
    /// before ends; returns where the last one ends if there is none.
    #[inline]
    pub(in crate::range_map) fn next_room(
        &self,
        n: usize,
        mut end: u64,
        len: u64,
    ) -> Result<Room, u64> {
        let found = |n: usize, end: u64, entry: Entry| Room {
            low: end,
            high: entry.start,
            next: n + 1,
            end: if entry.len == 0 { end } else { entry.end() },
        };
        if self.is_wide() {
            for n in n..self.count() {
                let entry = self.entry_as(true, n);
                if entry.start - end >= len {
                    return Ok(found(n, end, entry));
                }
                end = if entry.len == 0 { end } else { entry.end() };
            }
            return Err(end);
        }
        let (base, count) = (self.get(1), self.count());
        // From an even one on, since offsets come in pairs, and from the second pair on, since what
        // lies in front of the base is no offset.
        let even = count.min(n.max(1).next_multiple_of(2));
        for n in n..even {
            let entry = self.entry_as(false, n);
            if entry.start - end >= len {
                return Ok(found(n, end, entry));
            }
            end = if entry.len == 0 { end } else { entry.end() };
        }
        end = end.wrapping_sub(base);
        let room = self.scan_narrow(even, |n, offset, pages| {
            // In front of a dead one there is at most as much as in front of the next one.
            if offset - end >= len {
                return ControlFlow::Break(found(n, base + end, self.entry_as(false, n)));
            }
            end = if pages == 0 { end } else { offset + pages };
            ControlFlow::Continue(())
        });
        match room {
            ControlFlow::Break(room) => Ok(room),
            ControlFlow::Continue(()) => Err(base.wrapping_add(end)),
        }
    }

    /// Shows number, offset and length of the ranges from an even one on, in a leaf that is not wide.
    #[inline]
    fn scan_narrow<B>(
        &self,
        even: usize,
        mut visit: impl FnMut(usize, u64, u64) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let tails = &self.words[Self::TAILS + even..Self::TAILS + self.count().max(even)];
        let offsets = &self.words[Self::OFFSETS + even / 2..Self::TAILS];
        let (pairs, last) = tails.as_chunks::<2>();
        let length = |tail: &AtomicU64| tail.load(Ordering::Relaxed) >> 32;
        let mut n = even;
        for (word, [low, high]) in offsets.iter().zip(pairs) {
            let word = word.load(Ordering::Relaxed);
            visit(n, low_half(word).into(), length(low))?;
            visit(n + 1, high_half(word).into(), length(high))?;
            n += 2;
        }
        if let ([tail], Some(word)) = (last, offsets.get(pairs.len())) {
            visit(
                n,
                low_half(word.load(Ordering::Relaxed)).into(),
                length(tail),
            )?;
        }
        ControlFlow::Continue(())
    }

    /// Returns the pages of the largest gap of a leaf that answers for the pages `low..high`. The
    /// caller knows that none is larger than `most`.
    pub(in crate::range_map) fn leaf_gap(&self, low: u64, high: u64, most: u64) -> u64 {
        let count = self.count();
        if self.is_wide() || count == 0 {
            let (mut end, mut gap) = (low, 0);
            for entry in self.entries() {
                gap = gap.max(entry.start - end);
                end = entry.end();
            }
            return gap.max(high - end);
        }
        let base = self.get(1);
        let mut gap = base - low;
        let mut end = 0;
        let mut visit = |offset: u32, tail: &AtomicU64| {
            let (offset, pages) = (u64::from(offset), tail.load(Ordering::Relaxed) >> 32);
            // What lies between a range and a dead one is a part of the gap around that.
            gap = larger(gap, offset - end);
            end = if pages == 0 { end } else { offset + pages };
            gap
        };
        let offsets = &self.words[Self::OFFSETS..Self::TAILS];
        let (groups, rest) = self.words[Self::TAILS..Self::TAILS + count].as_chunks::<GROUP>();
        let (offsets, _) = offsets.as_chunks::<{ GROUP / 2 }>();
        for (tails, offsets) in groups.iter().zip(offsets) {
            let mut so_far = 0;
            for (tails, word) in tails.as_chunks::<2>().0.iter().zip(offsets) {
                let word = word.load(Ordering::Relaxed);
                visit(low_half(word), &tails[0]);
                so_far = visit(high_half(word), &tails[1]);
            }
            if so_far >= most {
                return so_far;
            }
        }
        for (n, tail) in (count - rest.len()..).zip(rest) {
            visit(self.offset(n), tail);
        }
        larger(gap, high - base - end)
    }
}

/// Changes of leaves while readers are in them: one store is all that they can tell of each.
impl<const W: usize> Node<W> {
    /// Says whether a leaf as it is can hold a range.
    #[inline]
    pub(in crate::range_map) fn can_hold(&self, entry: Entry) -> bool {
        self.is_wide() || Self::packs(self.get(1), entry)
    }

    /// Changes the length of the nth range to that of `entry`, which differs in nothing else.
    #[inline]
    pub(in crate::range_map) fn set_len(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set(Self::LENGTHS + n, entry.len);
        } else {
            self.set(Self::TAILS + n, Self::tail(entry));
        }
    }

    /// Changes the value of the nth range to that of `entry`, which differs in nothing else.
    #[inline]
    pub(in crate::range_map) fn set_bits(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set(Self::VALUES + n, entry.bits);
        } else {
            self.set(Self::TAILS + n, Self::tail(entry));
        }
    }

    /// Makes the nth range a dead one.
    #[inline]
    pub(in crate::range_map) fn kill(&self, n: usize) {
        let entry = Entry {
            len: 0,
            ..self.entry(n)
        };
        self.set_len(n, entry);
        self.set(0, self.get(0) + ONE_DEAD);
    }

    /// Moves the nth range, which is dead, within the gap that it lies in, to where `entry` begins.
    #[inline]
    pub(in crate::range_map) fn move_dead(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set(Self::STARTS + n, entry.start);
            self.set_bits(n, entry);
        } else {
            let offset = low_half(entry.start - self.get(1));
            self.set_half(Self::OFFSETS + n / 2, n, offset);
        }
    }

    /// Makes the nth range, which is dead and was moved for this, `entry`.
    #[inline]
    pub(in crate::range_map) fn revive(&self, n: usize, entry: Entry) {
        self.set_len(n, entry);
        self.set(0, self.get(0) - ONE_DEAD);
    }

    /// Notes how many ranges of a copied leaf are dead.
    #[inline]
    pub(in crate::range_map) fn set_dead(&self, dead: usize) {
        self.set(0, self.get(0) + ONE_DEAD * dead as u64);
    }
}
