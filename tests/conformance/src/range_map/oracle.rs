//! A plain ordered map of pages.

use alloc::{collections::BTreeMap, vec::Vec};

/// From the first page up to one behind the last.
pub(super) type Pages = (u64, u64);

/// What is looked for: pages, an alignment in pages, how far behind the start it counts, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) len: u64,
    pub(super) align: u64,
    pub(super) shift: u64,
    pub(super) within: Pages,
}

/// Disjoint ranges: end and value by start.
#[derive(Debug)]
pub(super) struct Oracle {
    map: BTreeMap<u64, (u64, u32)>,
    /// Whether neighbours with the same value are one.
    joins: bool,
    pub(super) pages: u64,
}

impl Oracle {
    pub(super) const fn new(joins: bool) -> Self {
        Self {
            map: BTreeMap::new(),
            joins,
            pages: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns the ranges that share a page with these, whole and in order.
    pub(super) fn overlapping(&self, (start, end): Pages) -> Vec<(Pages, u32)> {
        let below = self.map.range(..end).rev();
        let mut found: Vec<_> = below
            .take_while(|(_, (e, _))| *e > start)
            .map(|(&s, &(e, value))| ((s, e), value))
            .collect();
        found.reverse();
        found
    }

    /// Returns the first range that does not lie wholly below a page.
    pub(super) fn next_from(&self, page: u64) -> Option<(Pages, u32)> {
        let holds = self.overlapping((page, page + 1)).pop();
        holds.or_else(|| {
            let (&start, &(end, value)) = self.map.range(page..).next()?;
            Some(((start, end), value))
        })
    }

    /// Takes pages away; returns how many had a value.
    pub(super) fn remove(&mut self, (start, end): Pages) -> u64 {
        let mut had = 0;
        for ((s, e), value) in self.overlapping((start, end)) {
            self.map.remove(&s);
            had += e.min(end) - s.max(start);
            if s < start {
                self.map.insert(s, (start, value));
            }
            if e > end {
                self.map.insert(end, (e, value));
            }
        }
        self.pages -= had;
        had
    }

    /// Gives pages a value; returns how many had one.
    pub(super) fn insert(&mut self, (mut start, mut end): Pages, value: u32) -> u64 {
        let had = self.remove((start, end));
        self.pages += end - start;
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
        had
    }

    /// Changes the values of pages; returns how many had one.
    pub(super) fn update(&mut self, range: Pages, change: impl Fn(u32) -> u32) -> u64 {
        let mut had = 0;
        for ((s, e), value) in self.overlapping(range) {
            let part = (s.max(range.0), e.min(range.1));
            had += part.1 - part.0;
            if change(value) != value {
                self.insert(part, change(value));
            }
        }
        had
    }

    /// Returns the gaps, cut off at the ends.
    pub(super) fn gaps(&self, (low, high): Pages) -> Vec<Pages> {
        let (mut at, mut gaps) = (low, Vec::new());
        for ((s, e), _) in self.overlapping((low, high)) {
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

    /// Returns the first and the last start in each gap where what is wanted fits.
    fn fits(&self, wanted: &Wanted) -> Vec<Pages> {
        let fit = |(low, high): Pages| {
            let over = |start: u64| start.wrapping_add(wanted.shift) % wanted.align;
            let first = low + (wanted.align - over(low)) % wanted.align;
            let last = high.checked_sub(wanted.len)?;
            let last = last.checked_sub(over(last))?;
            (first <= last).then_some((first, last))
        };
        self.gaps(wanted.within)
            .into_iter()
            .filter_map(fit)
            .collect()
    }

    pub(super) fn lowest(&self, wanted: &Wanted) -> Option<u64> {
        self.fits(wanted).first().map(|fit| fit.0)
    }

    pub(super) fn highest(&self, wanted: &Wanted) -> Option<u64> {
        self.fits(wanted).last().map(|fit| fit.1)
    }

    /// Returns the start nearest to a page; the lower one of two.
    pub(super) fn nearest(&self, wanted: &Wanted, page: u64) -> Option<u64> {
        let in_one = |(first, last): Pages| {
            let below = first + (page.clamp(first, last) - first) / wanted.align * wanted.align;
            [below, (below + wanted.align).min(last)]
        };
        let starts = self.fits(wanted).into_iter().flat_map(in_one);
        starts.min_by_key(|&start| (start.abs_diff(page), start))
    }
}
