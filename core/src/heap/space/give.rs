//! How granules are given back, and how their memory goes back to the host.

use super::Space;
use crate::{
    heap::{Heap, class::GRANULE, segment::SegmentRef},
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::ops::Range;

/// Runs of free granules that lose their access where memory is short, beside those that segments
/// end with: each splits a mapping.
const GAPS: usize = 16;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Gives granules back, which keep their memory for now.
    pub(in crate::heap) fn give_granules(&self, space: &mut Space, addr: usize, len: usize) {
        self.map.set(addr, len, Some(self.nothing));
        let Some(segment) = space.find(addr) else {
            return;
        };
        let first = segment.number(addr);
        let part = first..first + len / GRANULE;
        segment.give(part.clone());
        space.room_from = space.room_from.min(segment.addr());
        let eager = self.config.returns() == crate::heap::Return::Eager || self.is_full();
        if eager {
            self.return_around(space, segment, &part);
        }
    }

    /// Gives the memory of free granules back; returns how many bytes of it went. They keep their
    /// access, and no mapping is split, but at the highest level of hardening.
    ///
    /// # Errors
    ///
    /// Those of the provider; the granules stay as they are, and the next call tries again.
    pub(super) fn return_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: &Range<usize>,
    ) -> Result<usize, Error> {
        let range = segment.range(part, self.page);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        let before = space.gauges.committed;
        if self.is_full() && self.may_split(space, 1) {
            self.decommit_part(space, segment, part)?;
        } else {
            // SAFETY: free and committed granules of the segment, whose contents are not needed.
            let shown = unsafe { self.purge_pages(range) }?;
            let with_memory = segment.with_memory(part);
            segment.purge(part, shown);
            space.gauges.committed -= (with_memory - segment.with_memory(part)) * GRANULE;
        }
        Ok(before - space.gauges.committed)
    }

    /// Takes the access of free granules away, of few and long runs of them: on hosts that charge
    /// for what can be written, and under limits that count it, purging is not enough.
    pub(in crate::heap) fn decommit_longest(&self, space: &mut Space) {
        let all = space.segments.all().iter();
        let gaps: usize = all.map(|(_, segment)| segment.gaps()).sum();
        for _ in gaps..space.segments.len() + GAPS {
            let all = space.segments.all().iter();
            let runs = all.filter_map(|(_, segment)| Some((*segment, segment.longest_writable()?)));
            let Some((segment, run)) = runs.max_by_key(|(_, run)| run.len()) else {
                return;
            };
            if self.decommit_part(space, segment, &run).is_err() {
                return;
            }
        }
    }

    /// Takes memory and access of free granules away. If the provider says that they are lost, they
    /// are forgotten.
    fn decommit_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: &Range<usize>,
    ) -> Result<(), Error> {
        let range = segment.range(part, self.page);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        let (with_memory, borders) = (segment.with_memory(part), segment.borders(part));
        // Given up before it goes, so that a forked child does not take it for writable.
        let before = segment.take_access(part);
        // SAFETY: free and committed granules of the segment, which are not used.
        match unsafe { self.decommit_pages(range) } {
            Ok(()) => {
                space.gauges.committed -= with_memory * GRANULE;
                segment.decommit(part);
                space.note_borders(borders, segment.borders(part));
            }
            Err(error) => {
                segment.restore_access(&before);
                if error.kind() != ErrorKind::RangeLost {
                    return Err(error);
                }
                self.lose(space, segment, part);
            }
        }
        Ok(())
    }

    /// Gives the memory of free granules at `addr` back, if they have any.
    pub(in crate::heap) fn return_granules(&self, space: &mut Space, addr: usize, len: usize) {
        let Some(segment) = space.find(addr) else {
            return;
        };
        let first = segment.number(addr);
        let part = first..first + len / GRANULE;
        self.return_around(space, segment, &part);
    }

    /// Gives the memory of free granules back, by whole large pages where it came by those.
    fn return_around(&self, space: &mut Space, segment: SegmentRef, part: &Range<usize>) {
        for part in segment.worth_around(part) {
            // The next pass tries again where this could not be done.
            let _ = self.return_part(space, segment, &part);
        }
    }

    /// Gives the memory of free granules back: of all, or of those that are aged; then ages the
    /// others. Where it came by large pages, whole ones go, unless `parts` of them are to. Stops at
    /// the first error.
    pub(in crate::heap) fn return_free(&self, space: &mut Space, only_aged: bool, parts: bool) {
        let mut goes_on = true;
        for place in 0..space.segments.len() {
            let Some(segment) = space.segments.nth(place) else {
                return;
            };
            let mut from = 0;
            while goes_on && let Some(run) = segment.returnable(from, only_aged) {
                let part = if !parts {
                    segment.worth(&run)
                } else {
                    run.clone()
                };
                if !part.is_empty() {
                    goes_on = self.return_part(space, segment, &part).is_ok();
                }
                from = run.end;
            }
            segment.age();
        }
    }

    /// Gives the memory of free granules back, the highest first, until it is `wanted` bytes, or
    /// there are no more, or one fails; returns how many bytes of it.
    pub(in crate::heap) fn return_some(&self, space: &mut Space, wanted: usize) -> usize {
        let mut given = 0;
        for place in (0..space.segments.len()).rev() {
            let Some(segment) = space.segments.nth(place) else {
                continue;
            };
            let mut end = segment.granules();
            while given < wanted
                && let Some(run) = segment.last_returnable(end)
            {
                let count = (wanted - given).div_ceil(GRANULE).min(run.len());
                let part = run.end - count..run.end;
                match self.return_part(space, segment, &part) {
                    Ok(bytes) => given += bytes,
                    Err(_) => return given,
                }
                end = part.start;
            }
        }
        given
    }
}
