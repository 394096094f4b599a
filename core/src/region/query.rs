//! Queries: the state of pages, gaps, and statistics.

#[cfg(doc)]
use super::RegionConfig;
use super::{
    MappingPressure, PageState, RegionAllocator, RegionRange, RegionStatistics,
    fork::Parts,
    record::{Mark, Record},
};
use crate::{
    page::{Access, AddressRange},
    provider::{Capabilities, PageProvider},
    range_map::Pages,
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Returns what is known of the page around `addr`; `None` where it is free or not the
    /// allocator's. Takes no lock, and may be called from a signal handler.
    pub fn query(&self, addr: usize) -> Option<RegionRange> {
        let entry = self.parts.current().tree.query(self.page_of(addr))?;
        self.described(entry.start, entry.end(), entry.value::<Record>())
    }

    /// Yields what was given out in `window`, whole and in order. Each step looks anew, without a
    /// lock: what changes meanwhile is seen or not.
    pub fn ranges(&self, window: AddressRange) -> impl Iterator<Item = RegionRange> + '_ {
        let mut from = self.page_of(window.start());
        let last = self.page_of(window.last());
        core::iter::from_fn(move || {
            loop {
                let tree = &self.parts.current().tree;
                let entry = tree.next_from(from).filter(|e| e.start <= last)?;
                from = entry.end();
                let record = entry.value::<Record>();
                if let Some(range) = self.described(entry.start, entry.end(), record) {
                    return Some(range);
                }
            }
        })
    }

    /// Yields the free addresses in `window`, cut off at its ends, in order. Each step takes the
    /// lock for itself.
    pub fn gaps(&self, window: AddressRange) -> impl Iterator<Item = AddressRange> + '_ {
        let window = self.pages_inside(window);
        let mut from = window.map_or(0, |(low, _)| low);
        core::iter::from_fn(move || {
            let (_, high) = window.filter(|(_, high)| from < *high)?;
            let gap = self.lock().parts.tree.next_gap(from, high)?;
            from = gap.1;
            Some(self.addresses(gap))
        })
    }

    /// Returns the longest free piece of `window`, the lowest one of several.
    pub fn largest_gap(&self, window: AddressRange) -> Option<AddressRange> {
        let (low, high) = self.pages_inside(window)?;
        let held = self.lock();
        let tree = &held.parts.tree;
        tree.largest_gap(low, high).map(|gap| self.addresses(gap))
    }

    /// Returns what is held now.
    pub fn statistics(&self) -> RegionStatistics {
        let held = self.lock();
        RegionStatistics {
            adopted: self.bytes(held.adopted),
            used: self.bytes(held.used),
            ranges: held.writer.ranges(),
            metadata: held.parts.arena.committed_bytes(),
            abandoned: held.parts.abandoned,
        }
    }

    /// Warns where the regions take more than three quarters of the mappings that the host allows
    /// ([`RegionConfig::mapping_limit`]): at the limit it refuses to map, and to unmap a part of a
    /// mapping. Looks at every range, unless there are too few of them for that.
    pub fn mapping_pressure(&self) -> Option<MappingPressure> {
        let limit = self.mapping_limit;
        let many = limit - limit / 4;
        // Each range is one mapping at most, and so is what is free behind it.
        let could_be = 2 * self.lock().writer.ranges() + 1 > many;
        let mappings = could_be.then(|| self.host_mappings());
        let mappings = mappings.filter(|mappings| *mappings > many)?;
        Some(MappingPressure { mappings, limit })
    }

    /// Counts the mappings that the host keeps for what was adopted, if it joins neighbours that
    /// are alike: what its limit (`vm.max_map_count` on Linux) counts. Looks at every range.
    ///
    /// Memory that was [mapped by the caller](RegionAllocator::map_with) or moved, and each view of
    /// a dual mapping, counts by itself, and so does what of the first was writable for a time. A
    /// host may join some of that (shared memory that was writable; parts of a file that lie side
    /// by side in it, too): then there are fewer. On Linux there may be more where pages that
    /// were written to while they lay apart are joined by what is mapped between them.
    pub fn host_mappings(&self) -> usize {
        let held = self.lock();
        let apart = Capabilities::NAMES | Capabilities::CORE_FILES | Capabilities::PAGE_ADVICE;
        let can = self.inner.capabilities_among(apart);
        let (mut count, mut before) = (0, None);
        for (_, record) in held.parts.entries((0, self.end())) {
            let seen = match record {
                Some(Record::Foreign) => None,
                Some(Record::Ours(state, mark)) => {
                    let access = match state {
                        PageState::Committed(access) => Some(access),
                        PageState::Reserved | PageState::Interrupted => Some(Access::None),
                        // A view tells itself apart.
                        PageState::Dual => None,
                    };
                    Some((access, mark.seen_by(can)))
                }
                None => Some((Some(Access::None), Mark::of(0))),
            };
            count += usize::from(seen.is_some() && seen != before);
            before = seen;
        }
        count
    }

    fn described(&self, start: u64, end: u64, record: Record) -> Option<RegionRange> {
        match record {
            Record::Foreign => None,
            Record::Ours(state, mark) => Some(RegionRange {
                addresses: self.addresses((start, end)),
                state,
                tag: mark.tag,
            }),
        }
    }
}

impl<M: PageProvider + Copy, R> Parts<M, R> {
    /// Yields the pieces of a range of pages and their records; `None` for free ones.
    pub(super) fn entries(
        &self,
        (start, end): Pages,
    ) -> impl Iterator<Item = (Pages, Option<Record>)> + use<'_, M, R> {
        let mut at = start;
        core::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let next = self.tree.next_from(at).filter(|e| e.start < end);
            let (piece, record) = match next {
                Some(entry) if entry.start <= at => {
                    let record = entry.value::<Record>();
                    ((at, entry.end().min(end)), Some(record))
                }
                Some(entry) => ((at, entry.start), None),
                None => ((at, end), None),
            };
            at = piece.1;
            Some((piece, record))
        })
    }
}
