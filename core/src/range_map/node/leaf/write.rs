//! Writing leaves that no reader reaches yet.

use super::super::{Entry, NEVER, NO_OFFSET, Node, WIDE_BIT, WORDS, high_half, low_half, pair};
use super::View;
use crate::{arch::copy_halves, atomic::Ordering};

impl<const W: usize> Node<W> {
    /// Says whether a leaf that is not wide, and starts at `base`, can hold a range.
    #[inline]
    pub(super) fn packs(base: u64, entry: Entry) -> bool {
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

    pub(super) fn tail(entry: Entry) -> u64 {
        pair(low_half(entry.bits), low_half(entry.len))
    }

    /// Writes a leaf of ranges that fit.
    pub(in crate::range_map) fn write_leaf(&self, entries: &[Entry]) {
        let base = entries.first().map_or(0, |e| e.start);
        if !entries.iter().all(|e| Self::packs(base, *e)) {
            return self.write_wide(entries.iter().copied());
        }
        let mut offsets = [NO_OFFSET; WORDS];
        for ((n, entry), offset) in entries.iter().enumerate().zip(&mut offsets) {
            *offset = low_half(entry.start - base);
            self.set(Self::TAILS + n, Self::tail(*entry));
        }
        self.write_head(base, entries.len(), &offsets);
    }

    /// Writes all of a leaf that is not wide but the lengths and values.
    #[inline]
    fn write_head(&self, base: u64, count: usize, offsets: &[u32; WORDS]) {
        self.set(0, count as u64);
        self.set(1, base);
        self.forget_gaps();
        let words = &self.words[Self::OFFSETS..Self::TAILS];
        for (word, [low, high]) in words.iter().zip(offsets.as_chunks::<2>().0) {
            word.store(pair(*low, *high), Ordering::Relaxed);
        }
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

    /// Writes a leaf of those ranges of `old` that are not dead.
    pub(in crate::range_map) fn write_live<const WIDE: bool>(&self, old: View<'_, W, WIDE>) {
        if WIDE {
            let all = (0..old.count()).map(|n| old.entry(n));
            return self.write_wide(all.filter(|e| e.len != 0));
        }
        let first = old.node.offset(0);
        let mut offsets = [NO_OFFSET; WORDS];
        let mut count = 0;
        for n in 0..old.count() {
            let tail = old.node.get(Self::TAILS + n);
            // What is dead is written, too, and then overwritten.
            offsets[count] = old.node.offset(n) - first;
            self.set(Self::TAILS + count, tail);
            count += usize::from(high_half(tail) != 0);
        }
        if let Some(offset) = offsets.get_mut(count) {
            *offset = NO_OFFSET;
        }
        self.write_head(old.start(0), count, &offsets);
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
            && with
                .iter()
                .all(|e| self.is_wide() || Self::packs(self.get(1), *e))
    }

    /// Writes a leaf that is `old` with other ranges in place of `from..to`. It has the dead ranges
    /// of `old` elsewhere, and does not count them yet.
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
        self.forget_gaps();
        self.splice_offsets(old, (from, to), with, base);
        let (source, target) = (
            &old.words[Self::TAILS..][..Self::LEAF],
            &self.words[Self::TAILS..][..Self::LEAF],
        );
        copy_halves(source, 0, &target[..from]);
        for (new, entry) in target[from..shifted].iter().zip(with) {
            new.store(Self::tail(*entry), Ordering::Relaxed);
        }
        copy_halves(source, 2 * to, &target[shifted..shifted + count - to]);
    }

    #[inline]
    fn splice_offsets(&self, old: &Self, (from, to): (usize, usize), with: &[Entry], base: u64) {
        let (source, target) = (
            &old.words[Self::OFFSETS..Self::TAILS],
            &self.words[Self::OFFSETS..Self::TAILS],
        );
        let shifted = from + with.len();
        // Where the nth range behind the change was; there is none behind the last slot.
        let offset = |n: usize| match n {
            n if n < from => old.offset(n),
            n if n < shifted => low_half(with[n - from].start - base),
            n if n - shifted + to < Self::LEAF => old.offset(n - shifted + to),
            _ => NO_OFFSET,
        };
        let write = |word: usize| {
            let halves = pair(offset(2 * word), offset(2 * word + 1));
            target[word].store(halves, Ordering::Relaxed);
        };
        // Words whose halves come from the same words, and from those that follow on the change.
        let first = from / 2;
        let rest = shifted.div_ceil(2).min(target.len());
        let end = (Self::LEAF + shifted - to) / 2;
        let end = end.clamp(rest, target.len());
        copy_halves(source, 0, &target[..first]);
        (first..rest).for_each(write);
        if rest < end {
            copy_halves(source, 2 * rest + to - shifted, &target[rest..end]);
        }
        (end..target.len()).for_each(write);
    }
}
