//! A plain ordered map that does the same.

extern crate std;
use super::super::{change::Pages, gap::Wanted};
use std::{collections::BTreeMap, vec::Vec};

/// The plain map.
#[derive(Clone, Default)]
pub(super) struct Oracle {
    /// End and value by start.
    pub(super) map: BTreeMap<u64, (u64, u32)>,
    pub(super) joins: bool,
}

impl Oracle {
    pub(super) fn overlapping(&self, (start, end): Pages) -> Vec<(u64, u64, u32)> {
        let all = self.map.range(..end).rev();
        let mut found: Vec<_> = all
            .take_while(|(_, (e, _))| *e > start)
            .map(|(&s, &(e, v))| (s, e, v))
            .collect();
        found.reverse();
        found
    }

    pub(super) fn remove(&mut self, (start, end): Pages) -> u64 {
        let mut pages = 0;
        for (s, e, v) in self.overlapping((start, end)) {
            self.map.remove(&s);
            pages += e.min(end) - s.max(start);
            if s < start {
                self.map.insert(s, (start, v));
            }
            if e > end {
                self.map.insert(end, (e, v));
            }
        }
        pages
    }

    pub(super) fn insert(&mut self, (start, end): Pages, value: u32) -> u64 {
        let pages = self.remove((start, end));
        let (mut start, mut end) = (start, end);
        if self.joins {
            let below = self.map.range(..start).next_back().map(|(&s, &x)| (s, x));
            if let Some((s, _)) = below.filter(|&(_, x)| x == (start, value)) {
                self.map.remove(&s);
                start = s;
            }
            if let Some(&(e, _)) = self.map.get(&end).filter(|&&(_, v)| v == value) {
                self.map.remove(&end);
                end = e;
            }
        }
        self.map.insert(start, (end, value));
        pages
    }

    pub(super) fn update(&mut self, range: Pages, change: impl Fn(u32) -> u32) -> u64 {
        let mut pages = 0;
        for (s, e, v) in self.overlapping(range) {
            let part = (s.max(range.0), e.min(range.1));
            pages += part.1 - part.0;
            if change(v) != v {
                self.insert(part, change(v));
            }
        }
        pages
    }

    /// All ranges and gaps of a window, cut off at its ends.
    pub(super) fn pieces(&self, (low, high): Pages) -> Vec<(Pages, Option<u32>)> {
        let ranges = self.overlapping((low, high)).into_iter();
        let ranges = ranges.map(|(s, e, v)| ((s.max(low), e.min(high)), Some(v)));
        let gaps = self.gaps((low, high)).into_iter().map(|gap| (gap, None));
        let mut all: Vec<_> = ranges.chain(gaps).collect();
        all.sort_unstable();
        all
    }

    pub(super) fn gaps(&self, (low, high): Pages) -> Vec<Pages> {
        let (mut at, mut gaps) = (low, Vec::new());
        for (s, e, _) in self.overlapping((low, high)) {
            if s > at {
                gaps.push((at, s));
            }
            at = e;
        }
        if at < high {
            gaps.push((at, high));
        }
        gaps
    }

    /// All starts of a gap that fit, as first, last and how far apart.
    pub(super) fn fits(&self, wanted: &Wanted) -> Vec<(u64, u64, u64)> {
        let gaps = self.gaps((wanted.low, wanted.high)).into_iter();
        let fit = |(low, high): Pages| {
            let up = (wanted.align - (low + wanted.shift) % wanted.align) % wanted.align;
            let first = low + up;
            let last = high.checked_sub(wanted.len)?;
            let last = last.checked_sub((last + wanted.shift) % wanted.align)?;
            (first <= last).then_some((first, last, wanted.align))
        };
        gaps.filter_map(fit).collect()
    }

    pub(super) fn nearest(&self, wanted: &Wanted, page: u64) -> Option<u64> {
        let fits = self.fits(wanted).into_iter();
        let in_one = |(first, last, step): (u64, u64, u64)| {
            let below = first + page.clamp(first, last).abs_diff(first) / step * step;
            [below, (below + step).min(last)]
        };
        fits.flat_map(in_one)
            .min_by_key(|&start| (start.abs_diff(page), start))
    }
}
