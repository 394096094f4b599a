//! Gaps between the ranges of a leaf.

use super::super::{Entry, GROUP, Node, high_half, larger, low_half};
use crate::atomic::{AtomicU64, Ordering};
use core::ops::ControlFlow;

/// Room in front of a range of a leaf.
#[derive(Clone, Copy, Debug)]
pub(in crate::range_map) struct Room {
    pub(in crate::range_map) low: u64,
    pub(in crate::range_map) high: u64,
    /// The range behind it, and where the last one before that ends.
    pub(in crate::range_map) next: usize,
    pub(in crate::range_map) end: u64,
}

impl<const W: usize> Node<W> {
    /// Finds the first range from the nth on that starts `len` pages or more behind `end`, where
    /// the one before ends; returns where the last one ends if there is none.
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

    /// Shows number, offset and length of the ranges from an even one on, in a leaf that is not
    /// wide.
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
            // The gap between a range and a dead one is a part of the gap around that.
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
