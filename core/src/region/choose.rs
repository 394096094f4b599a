//! Which free pages are taken for a request.

use super::{Order, RegionAllocator, fork::Parts, lock::Held, record::Record};
use crate::{
    provider::{Error, ErrorKind, PageProvider, Place, Plan},
    range_map::{Pages, Path, Wanted},
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Chooses free pages for a request. `way`, which is not known before, becomes the way to the
    /// page before them if that is known.
    pub(super) fn choose(
        &self,
        held: &Held<'_, M, R>,
        plan: &Plan,
        way: &mut Path,
    ) -> Result<Pages, Error> {
        let tree = &held.parts.tree;
        let len = self.page_of(plan.total());
        if let Place::Exact(base) | Place::Hint(base) = plan.place() {
            let exact = matches!(plan.place(), Place::Exact(_));
            let usable = self.page.is_aligned(base) && plan.aligned(base) && plan.fits(base);
            if exact || usable {
                let start = self.page_of(base);
                match self.free(held.parts, start, len) {
                    Ok(()) => return Ok((start, start + len)),
                    Err(error) if exact => return Err(error),
                    Err(_) => {}
                }
            }
        }
        let (low, high) = self
            .pages_inside(plan.within())
            .ok_or(ErrorKind::Exhausted)?;
        let wanted = Wanted {
            len,
            align: self.page_of(plan.align()),
            shift: self.page_of(plan.before()),
            low,
            high,
        };
        let start = match (plan.place(), self.order) {
            (Place::Near(addr), _) => tree.find_nearest(&wanted, self.page_of(addr)),
            (_, Order::Lowest) => tree.find_lowest_way(&wanted, way),
            (_, Order::Highest) => tree.find_highest(&wanted),
            (_, Order::Recent) => tree.find_nearest(&wanted, held.recent),
        };
        start
            .map(|start| (start, start + len))
            .ok_or(ErrorKind::Exhausted.into())
    }

    /// Chooses free pages for a request: all that it asks for, or as many as there are where it
    /// settles for fewer.
    pub(super) fn choose_longest(
        &self,
        held: &Held<'_, M, R>,
        plan: &Plan,
        way: &mut Path,
    ) -> Result<Pages, Error> {
        let tree = &held.parts.tree;
        let error = match self.choose(held, plan, way) {
            Err(error) if plan.min_total() < plan.total() => error,
            result => return result,
        };
        let gap = match plan.place() {
            Place::Exact(base) => {
                let start = self.page_of(base);
                self.free(held.parts, start, 1)?;
                let gap = tree.next_gap(start, self.end());
                gap.filter(|gap| gap.0 == start)
            }
            _ => {
                let window = self.pages_inside(plan.within());
                window.and_then(|(low, high)| tree.largest_gap(low, high))
            }
        };
        let gap = gap.map(|gap| self.addresses(gap)).ok_or(error)?;
        let start = plan.start_at_or_above(gap.start()).ok_or(error)?;
        let room = gap.last().checked_sub(start).map_or(0, |n| n + 1);
        if room >= plan.min_total() {
            return self.choose(held, &plan.of_total(room.min(plan.total())), way);
        }
        // A shorter gap may be aligned better than the longest one.
        plan.halving(|plan| self.choose(held, plan, way))
    }

    /// Says why pages are not all free, if so.
    fn free(&self, parts: &Parts<M, R>, start: u64, len: u64) -> Result<(), Error> {
        let end = start.checked_add(len).filter(|end| *end <= self.end());
        let end = end.ok_or(ErrorKind::OutsideRange)?;
        for (_, record) in parts.entries((start, end)) {
            match record {
                None => {}
                Some(Record::Foreign) => return Err(ErrorKind::OutsideRange.into()),
                Some(Record::Ours(..)) => return Err(ErrorKind::Taken.into()),
            }
        }
        Ok(())
    }
}
