//! Gaps between the ranges of a leaf.
//!
//! ```text
//!   leaf   header │ base │ offsets │ lengths and values ┃ largest gaps, two a word
//! ```
//!
//! A gap belongs to the range in front of it that is not dead. A leaf that is not wide has the
//! largest one of each eight ranges in words of their own, which only the writer reads. A leaf that
//! was written has none: they are learned when they are asked for, and kept from then on.

use super::super::{GROUP, Node, high_half, larger, low_half, pair, saturated};
use super::View;
use crate::atomic::{AtomicU64, Ordering};

/// In the place of the first two gaps, which have 31 bits: nothing is known of any.
const UNKNOWN: u64 = u64::MAX;

/// Groups of the widest leaf.
const MOST_GROUPS: usize = 8;

impl<const W: usize> Node<W> {
    const GROUPS: usize = Self::LEAF.div_ceil(GROUP);
    pub(super) const GROUP_GAPS: usize = {
        assert!(Self::GROUPS <= MOST_GROUPS, "lists are made for them");
        Self::TAILS + Self::LEAF
    };

    /// Says that nothing is known of the gaps of a leaf that is not wide, and was written anew.
    #[inline]
    pub(super) fn forget_gaps(&self) {
        self.set(Self::GROUP_GAPS, UNKNOWN);
    }

    /// Says that the last gap of a leaf ends elsewhere now.
    pub(in crate::range_map) fn forget_last_gap(&self) {
        if !self.is_wide() {
            self.forget_gaps();
        }
    }

    /// Returns the pages of the largest gap of a leaf that answers for the pages `low..high`; of a
    /// leaf that is not wide, as they are noted.
    pub(in crate::range_map) fn leaf_gap(&self, low: u64, high: u64) -> u64 {
        if self.is_wide() {
            let (mut end, mut gap) = (low, 0);
            for entry in self.entries() {
                gap = gap.max(entry.start - end);
                end = entry.end();
            }
            return gap.max(high - end);
        }
        let leaf = View::<W, false>::of(self);
        leaf.learn_gaps(|| high);
        larger(saturated(leaf.start(0) - low), leaf.largest_gap())
    }
}

impl<const W: usize, const WIDE: bool> View<'_, W, WIDE> {
    #[inline(always)]
    fn knows_gaps(self) -> bool {
        !WIDE && self.node.get(Node::<W>::GROUP_GAPS) != UNKNOWN
    }

    /// Returns the largest gap of a group, as it is noted.
    #[inline(always)]
    fn group_gap(self, group: usize) -> u64 {
        let word = self.node.get(Node::<W>::GROUP_GAPS + group / 2);
        (word >> (group % 2 * 32)) & u64::from(u32::MAX)
    }

    #[inline(always)]
    fn set_group_gap(self, group: usize, gap: u64) {
        let at = Node::<W>::GROUP_GAPS + group / 2;
        self.node.set_half(at, group, low_half(gap));
    }

    /// Returns the largest gap of the ranges in a group, and where the first range of it that is
    /// not dead is; `next` is where the first one behind it is. Both are counted from the base.
    #[inline(always)]
    fn gap_in(self, group: usize, mut next: u64) -> (u64, u64) {
        let mut most = 0;
        let mut see = |offset: u32, tail: u64| {
            let (offset, len) = (u64::from(offset), tail >> 32);
            let gap = next.wrapping_sub(offset).wrapping_sub(len);
            most = larger(most, if len == 0 { 0 } else { gap });
            next = if len == 0 { next } else { offset };
        };
        let (first, end) = (group * GROUP, (group * GROUP + GROUP).min(self.count));
        let tails = &self.node.words[Node::<W>::TAILS + first..Node::<W>::TAILS + end];
        let offsets = &self.node.words[Node::<W>::OFFSETS + first / 2..];
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        if let (Some(tails), Some(offsets)) = (
            tails.as_array::<GROUP>(),
            offsets.first_chunk::<{ GROUP / 2 }>(),
        ) {
            let (pairs, _) = tails.as_chunks::<2>();
            for ([low, high], word) in pairs.iter().zip(offsets).rev() {
                let word = load(word);
                see(high_half(word), load(high));
                see(low_half(word), load(low));
            }
        } else {
            for (n, tail) in (first..end).zip(tails).rev() {
                see(self.node.offset(n), load(tail));
            }
        }
        (most, next)
    }

    /// Finds the largest gaps of the groups of a leaf that answers for pages up to `high`, if they
    /// are not known.
    #[inline]
    pub(in crate::range_map) fn learn_gaps(self, high: impl FnOnce() -> u64) {
        if !WIDE && !self.knows_gaps() {
            self.learn_all(high());
        }
    }

    #[inline(never)]
    fn learn_all(self, high: u64) {
        let mut gaps = [0; MOST_GROUPS];
        let mut next = high - self.base;
        let groups = self.count.div_ceil(GROUP);
        for (group, gap) in gaps.iter_mut().enumerate().take(groups).rev() {
            let most;
            (most, next) = self.gap_in(group, next);
            *gap = low_half(saturated(most));
        }
        let (words, _) = gaps.as_chunks::<2>();
        for (at, [low, high]) in words
            .iter()
            .enumerate()
            .take(Node::<W>::gap_words(Node::<W>::PAIRS))
        {
            self.node.set(Node::<W>::GROUP_GAPS + at, pair(*low, *high));
        }
    }

    /// Finds the largest gap of one group anew.
    #[inline]
    fn learn_group(self, group: usize, high: impl FnOnce() -> u64) {
        let end = (group * GROUP + GROUP).min(self.count);
        let next = match self.live_from(end) {
            Some(n) => self.start(n),
            None => high(),
        };
        let (most, _) = self.gap_in(group, next - self.base);
        self.set_group_gap(group, saturated(most));
    }

    #[inline(always)]
    fn raise_group(self, group: usize, gap: u64) {
        let gap = saturated(gap);
        if gap > self.group_gap(group) {
            self.set_group_gap(group, gap);
        }
    }

    /// Returns the largest gap behind a range, as it is noted, where they are known.
    #[inline]
    fn largest_gap(self) -> u64 {
        let words =
            (0..Node::<W>::gap_words(Node::<W>::PAIRS)).map(|at| Node::<W>::GROUP_GAPS + at);
        let (low, high) = words.fold((0, 0), |(low, high), at| {
            let word = self.node.get(at);
            (
                larger(low, low_half(word).into()),
                larger(high, high_half(word).into()),
            )
        });
        larger(low, high)
    }

    /// Notes that the gap behind the nth range grew and has `gap` pages now. If a range went for
    /// it, `gone` says which one, and how many pages the gap behind that had; `high` is where the
    /// next leaf begins.
    #[inline(always)]
    pub(in crate::range_map) fn gap_grew(
        self,
        n: usize,
        gap: u64,
        gone: Option<(usize, u64)>,
        high: impl FnOnce() -> u64,
    ) {
        if !self.knows_gaps() {
            return;
        }
        self.raise_group(n / GROUP, gap);
        if let Some((gone, had)) = gone
            && gone / GROUP != n / GROUP
            && self.group_gap(gone / GROUP) == saturated(had)
        {
            self.learn_group(gone / GROUP, high);
        }
    }

    /// Notes that of the gap behind the nth range, which had `had` pages, a part was filled: by the
    /// range itself, or by another one, `new`, behind which `gap` pages are left.
    #[inline(always)]
    pub(in crate::range_map) fn gap_shrank(
        self,
        n: usize,
        had: u64,
        new: Option<(usize, u64)>,
        high: impl FnOnce() -> u64,
    ) {
        if !self.knows_gaps() {
            return;
        }
        if let Some((new, gap)) = new {
            self.raise_group(new / GROUP, gap);
        }
        if self.group_gap(n / GROUP) == saturated(had) {
            self.learn_group(n / GROUP, high);
        }
    }

    /// Notes that ranges moved within some places, the gaps behind which are all that changed, as
    /// [`View::gap_shrank`].
    #[inline(always)]
    pub(in crate::range_map) fn gaps_moved(
        self,
        (first, last): (usize, usize),
        (n, had): (usize, u64),
        new: (usize, u64),
        high: impl Fn() -> u64,
    ) {
        if first / GROUP == last / GROUP {
            self.gap_shrank(n, had, Some(new), high);
        } else if self.knows_gaps() {
            for group in first / GROUP..=last / GROUP {
                self.learn_group(group, &high);
            }
        }
    }

    /// Finds the first range from the nth on with `len` pages or more behind it, where gaps are
    /// known; returns the range, where it ends, and where the next one starts, at `high` behind the
    /// last one.
    #[inline(always)]
    pub(in crate::range_map) fn next_room(
        self,
        mut n: usize,
        len: u64,
        high: impl Fn() -> u64,
    ) -> Option<(usize, u64, u64)> {
        if WIDE {
            return self.room_in((n, self.count), len, &high);
        }
        while n < self.count {
            let group = self.group_from(n / GROUP, saturated(len))?;
            let (first, end) = (
                n.max(group * GROUP),
                (group * GROUP + GROUP).min(self.count),
            );
            let room = self.room_in((first, end), len, &high);
            if room.is_some() {
                return room;
            }
            n = end;
        }
        None
    }

    /// Returns the first group from one on that has a gap of `noted` pages or more, which is not 0.
    #[inline(always)]
    fn group_from(self, group: usize, noted: u64) -> Option<usize> {
        let words =
            &self.node.words[Node::<W>::GROUP_GAPS..][..Node::<W>::gap_words(Node::<W>::PAIRS)];
        let least = low_half(noted);
        for (at, word) in words.iter().enumerate().skip(group / 2) {
            let word = word.load(Ordering::Relaxed);
            if low_half(word) >= least && 2 * at >= group {
                return Some(2 * at);
            }
            if high_half(word) >= least {
                return Some(2 * at + 1);
            }
        }
        None
    }

    /// As [`View::next_room`], among the ranges from one up to another one.
    #[inline(always)]
    fn room_in(
        self,
        (first, behind): (usize, usize),
        len: u64,
        high: impl Fn() -> u64,
    ) -> Option<(usize, u64, u64)> {
        // The last range that is not dead.
        let mut before = usize::MAX;
        let mut end = u64::MAX;
        for n in first..behind {
            let (start, pages) = (self.start(n), self.len(n));
            if pages != 0 {
                if start > end && start - end >= len {
                    return Some((before, end, start));
                }
                (before, end) = (n, start + pages);
            }
        }
        if before == usize::MAX {
            return None;
        }
        let n = before;
        let next = self.live_from(behind);
        let next = next.map_or_else(high, |next| self.start(next));
        (next - end >= len).then_some((n, end, next))
    }
}
