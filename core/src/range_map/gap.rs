//! Finding gaps: the pages without a value.
//!
//! Every inner node has the largest gap below each of its children. A gap belongs to the child
//! whose range is in front of it, the very first one to the first child; so each gap is counted
//! once and whole, and a child whose largest one is too small is passed by. Of the longest ones,
//! 2^31 pages and more, nothing else is noted, so that these are looked at.

use super::{
    Value,
    change::Pages,
    node::{Node, View, saturated},
    tree::{Path, Tree},
};
use crate::arch::prefetch;

/// A gap that is looked for. All numbers are pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// How many; not 0.
    pub(crate) len: u64,
    /// The start plus `shift` is a multiple of this; a power of two.
    pub(crate) align: u64,
    pub(crate) shift: u64,
    /// The pages that will do.
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl Wanted {
    /// Returns the lowest start that fits into `low..high`.
    #[inline]
    fn lowest(&self, low: u64, high: u64) -> Option<u64> {
        let (low, high) = (low.max(self.low), high.min(self.high));
        let up = low.wrapping_add(self.shift).wrapping_neg() & (self.align - 1);
        let start = low.checked_add(up)?;
        (start <= high && high - start >= self.len).then_some(start)
    }

    /// Returns the highest start that fits into `low..high`.
    #[inline]
    fn highest(&self, low: u64, high: u64) -> Option<u64> {
        let (low, high) = (low.max(self.low), high.min(self.high));
        let top = high.checked_sub(self.len)?;
        let start = top.checked_sub(top.wrapping_add(self.shift) & (self.align - 1))?;
        (start >= low).then_some(start)
    }
}

impl<T: Value, const W: usize> Tree<T, W> {
    /// Finds the lowest start. The writer is held.
    pub(crate) fn find_lowest(&self, wanted: &Wanted) -> Option<u64> {
        self.find_lowest_way(wanted, &mut Path::unknown())
    }

    /// Finds the lowest start, and the way to the page before it, which holds until the next
    /// change; an empty tree has none.
    #[inline]
    pub(crate) fn find_lowest_way(&self, wanted: &Wanted, way: &mut Path) -> Option<u64> {
        let Some(root) = self.root() else {
            return wanted.lowest(self.low, self.high);
        };
        way.height = root.1;
        let found = self
            .lowest_straight(root, wanted, way)
            .or_else(|| self.lowest_in(root, (self.low, self.high), wanted, way));
        if found.is_none() {
            way.forget();
        }
        found
    }

    /// Finds the lowest start where the first gap that is long enough will do, as one does that may
    /// lie anywhere.
    #[inline]
    fn lowest_straight(
        &self,
        (mut id, height): (u32, usize),
        wanted: &Wanted,
        path: &mut Path,
    ) -> Option<u64> {
        if wanted.low > self.low {
            return None;
        }
        let mut is_first = true;
        for level in (1..=height).rev() {
            let node = self.node(id);
            let n = node.next_gap(0, wanted.len)?;
            is_first &= n == 0;
            path.step(level, id, n);
            id = node.child(n);
        }
        let node = self.node(id);
        if node.is_wide() {
            return None;
        }
        prefetch(node);
        path.step(0, id, 0);
        let leaf = View::<W, false>::of(node);
        let low = if is_first { self.low } else { leaf.start(0) };
        let high = || self.next_low(path, 0);
        let (start, rank) = Self::lowest_in_leaf(leaf, low, high, wanted)?;
        path.step(0, id, rank);
        Some(start)
    }

    fn lowest_in(
        &self,
        (id, level): (u32, usize),
        (low, high): Pages,
        wanted: &Wanted,
        path: &mut Path,
    ) -> Option<u64> {
        let node = self.node(id);
        if level == 0 {
            prefetch(node);
            let found = if node.is_wide() {
                Self::lowest_in_leaf(View::<W, true>::of(node), low, || high, wanted)
            } else {
                Self::lowest_in_leaf(View::<W, false>::of(node), low, || high, wanted)
            };
            path.step(0, id, found.map_or(0, |(_, rank)| rank));
            return found.map(|(start, _)| start);
        }
        let count = node.count();
        let mut from = if wanted.low <= low {
            0
        } else {
            node.child_for(wanted.low)
        };
        while let Some(n) = node.next_gap(from, wanted.len) {
            let low = if n == 0 { low } else { node.low(n) };
            if low >= wanted.high {
                return None;
            }
            path.step(level, id, n);
            let high = if n + 1 < count { node.low(n + 1) } else { high };
            let found = self.lowest_in((node.child(n), level - 1), (low, high), wanted, path);
            if found.is_some() {
                return found;
            }
            from = n + 1;
        }
        None
    }

    /// Returns the lowest start, and how many ranges start below it if that is known.
    #[inline(always)]
    fn lowest_in_leaf<const WIDE: bool>(
        leaf: View<'_, W, WIDE>,
        low: u64,
        high: impl Fn() -> u64,
        wanted: &Wanted,
    ) -> Option<(u64, usize)> {
        leaf.learn_gaps(&high);
        let first = leaf.start(0);
        if low < first
            && let Some(start) = wanted.lowest(low, first)
        {
            return Some((start, 0));
        }
        let mut n = 0;
        if wanted.low > first {
            n = leaf.live_before(leaf.rank(wanted.low));
        }
        while let Some((owner, end, next)) = leaf.next_room(n, wanted.len, &high) {
            if let Some(start) = wanted.lowest(end, next) {
                // Dead ones of the gap are not below its first page.
                let rank = if start == end { owner + 1 } else { 0 };
                return Some((start, rank));
            }
            if next >= wanted.high {
                break;
            }
            n = owner + 1;
        }
        None
    }

    /// Finds the highest start. The writer is held.
    pub(crate) fn find_highest(&self, wanted: &Wanted) -> Option<u64> {
        match self.root() {
            Some(root) => self.highest_in(root, (self.low, self.high), wanted),
            None => wanted.highest(self.low, self.high),
        }
    }

    fn highest_in(
        &self,
        (id, level): (u32, usize),
        (low, high): Pages,
        wanted: &Wanted,
    ) -> Option<u64> {
        let node = self.node(id);
        if level == 0 {
            prefetch(node);
            return Self::highest_in_leaf(node, (low, high), wanted);
        }
        let count = node.count();
        for n in (0..=node.child_for(wanted.high - 1)).rev() {
            let high = if n + 1 < count { node.low(n + 1) } else { high };
            if high <= wanted.low {
                return None;
            }
            if !node.may_have(n, wanted.len) {
                continue;
            }
            let low = if n == 0 { low } else { node.low(n) };
            let found = self.highest_in((node.child(n), level - 1), (low, high), wanted);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn highest_in_leaf(node: &Node<W>, (low, high): Pages, wanted: &Wanted) -> Option<u64> {
        let until = node.rank(wanted.high - 1);
        let mut next = if until < node.count() {
            node.start(until)
        } else {
            high
        };
        for n in (0..until).rev() {
            let entry = node.entry(n);
            if entry.len == 0 {
                continue;
            }
            if next - entry.end() >= wanted.len
                && let Some(start) = wanted.highest(entry.end(), next)
            {
                return Some(start);
            }
            next = entry.start;
            if next <= wanted.low {
                return None;
            }
        }
        wanted.highest(low, next)
    }

    /// Finds the start nearest to a page; the lower one of two. The writer is held.
    pub(crate) fn find_nearest(&self, wanted: &Wanted, page: u64) -> Option<u64> {
        // Starts at or below the page leave off at most this high.
        let high = page.saturating_add(wanted.len).min(wanted.high);
        let below = Wanted { high, ..*wanted };
        let below = (below.low < high).then(|| self.find_highest(&below));
        let low = page.max(wanted.low);
        let mut above = Wanted { low, ..*wanted };
        if let Some(Some(below)) = below {
            // Whatever is no nearer than that need not be found.
            let reach = page.saturating_add(page - below);
            above.high = reach.saturating_add(wanted.len).min(above.high);
        }
        let above = (above.low < above.high).then(|| self.find_lowest(&above));
        match (below.flatten(), above.flatten()) {
            (Some(below), Some(above)) if above - page < page - below => Some(above),
            (below, above) => below.or(above),
        }
    }

    /// Returns the lowest of the largest gaps within `low..high`. The writer is held.
    pub(crate) fn largest_gap(&self, low: u64, high: u64) -> Option<Pages> {
        let all = (self.low, self.high);
        let mut best = (low, low);
        match self.root() {
            Some(root) => self.largest_in(root, all, (low, high), &mut best),
            None => best = (low, high),
        }
        (best.0 < best.1).then_some(best)
    }

    fn largest_in(
        &self,
        (id, level): (u32, usize),
        (low, high): Pages,
        window: Pages,
        best: &mut Pages,
    ) {
        let node = self.node(id);
        let mut offer = |low: u64, high: u64| {
            let (low, high) = (low.max(window.0), high.min(window.1));
            if low < high && high - low > best.1 - best.0 {
                *best = (low, high);
            }
        };
        if level == 0 {
            let from = node.rank(window.0).saturating_sub(1);
            let mut end = if from == 0 { low } else { node.start(from) };
            for entry in node.entries_from(from) {
                offer(end, entry.start);
                end = entry.end();
                if end >= window.1 {
                    return;
                }
            }
            return offer(end, high);
        }
        let count = node.count();
        let (first, last) = (node.child_for(window.0), node.child_for(window.1 - 1));
        let pages = |n: usize| {
            let low = if n == 0 { low } else { node.low(n) };
            (low, if n + 1 < count { node.low(n + 1) } else { high })
        };
        let visit = |n: usize, best: &mut Pages| {
            if node.may_have(n, best.1 - best.0 + 1) {
                self.largest_in((node.child(n), level - 1), pages(n), window, best);
            }
        };
        visit(first, best);
        // Of the children that lie wholly in the window one has the largest gap, or several have
        // one that is too large to be noted.
        let inside = (first + 1..last).reduce(|a, b| if node.gap(b) > node.gap(a) { b } else { a });
        if let Some(n) = inside {
            let same = node.gap(n);
            visit(n, best);
            if same == saturated(u64::MAX) {
                (n + 1..last).for_each(|n| visit(n, best));
            }
        }
        if last > first {
            visit(last, best);
        }
    }

    /// Returns the first gap within `low..high`. The writer is held.
    pub(crate) fn next_gap(&self, low: u64, high: u64) -> Option<Pages> {
        let one = Wanted {
            len: 1,
            align: 1,
            shift: 0,
            low,
            high,
        };
        let start = self.find_lowest(&one)?;
        let end = match self.root() {
            Some(root) => {
                let path = self.descend(root, start);
                let leaf = self.node(path.node[0]);
                let next = leaf.next_start(leaf.rank(start));
                next.unwrap_or_else(|| self.next_low(&path, 0))
            }
            None => self.high,
        };
        Some((start, end.min(high)))
    }
}
