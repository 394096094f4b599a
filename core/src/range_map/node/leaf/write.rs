//! Writing leaves that no reader reaches yet.

use super::super::{Entry, NEVER, NO_OFFSET, Node, WIDE_BIT, high_half, low_half, pair};
use super::View;
use crate::atomic::{AtomicU64, Ordering};

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
        let count = entries.len() as u64;
        if entries.iter().all(|e| Self::packs(base, *e)) {
            self.set(0, count);
            self.set(1, base);
            self.forget_gaps();
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

    /// Writes a leaf of those ranges of `old`, from one that is not dead on, which are not dead, and
    /// of one more in front of the nth, if any, for which there is room.
    pub(in crate::range_map) fn write_live<const WIDE: bool>(
        &self,
        old: View<'_, W, WIDE>,
        from: usize,
        more: Option<(usize, Entry)>,
    ) {
        let until = more.map_or(old.count(), |(n, _)| n);
        if WIDE {
            let live = |(from, to)| (from..to).map(move |n| old.entry(n)).filter(|e| e.len != 0);
            let more = more.map(|(_, entry)| entry);
            let behind = live((until, old.count()));
            self.write_wide(live((from, until)).chain(more).chain(behind));
            return;
        }
        let base = old.start(from);
        let (mut count, mut even) = (0, NO_OFFSET);
        let mut push = |start: u64, tail: u64| {
            let offset = low_half(start - base);
            self.set(Self::TAILS + count, tail);
            if count.is_multiple_of(2) {
                even = offset;
            } else {
                self.set(Self::OFFSETS + count / 2, pair(even, offset));
            }
            count += 1;
        };
        for (range, behind) in [(from..until, more), (until..old.count(), None)] {
            for n in range {
                let tail = old.node.get(Self::TAILS + n);
                if high_half(tail) != 0 {
                    push(old.start(n), tail);
                }
            }
            if let Some((_, entry)) = behind {
                push(entry.start, Self::tail(entry));
            }
        }
        self.set(0, count as u64);
        self.set(1, base);
        self.forget_gaps();
        let mut word = count / 2;
        if !count.is_multiple_of(2) {
            self.set(Self::OFFSETS + word, pair(even, NO_OFFSET));
            word += 1;
        }
        for word in word..Self::PAIRS {
            self.set(Self::OFFSETS + word, pair(NO_OFFSET, NO_OFFSET));
        }
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
            && with.iter().all(|e| self.is_wide() || Self::packs(self.get(1), *e))
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
}
