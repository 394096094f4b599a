//! How granules are taken: the lowest free ones, with memory.

use super::Space;
use crate::{
    heap::{Heap, error::HeapError, segment::SegmentRef},
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider, PageWish},
    sync::RawMutex,
};
use core::{ops::Range, ptr::NonNull};

/// New segments that may be lost to others one after the other, before a call gives up.
const TRIES: usize = 8;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Takes `count` granules, the lowest there are, with memory, and `guards` without any on both
    /// sides; says whether they read zero.
    ///
    /// # Errors
    ///
    /// Where there is no memory, no address, or no metadata.
    pub(in crate::heap) fn take_granules(
        &self,
        space: &mut Space,
        count: usize,
        guards: usize,
    ) -> Result<(NonNull<u8>, bool), HeapError> {
        let count = count + 2 * guards;
        let start = |segment, part: &Range<usize>| {
            let inner = part.start + guards..part.end - guards;
            self.part_start(segment, &inner)
        };
        let mut place = space.first_with_room();
        while let Some(segment) = space.segments.nth(place) {
            place += 1;
            while let Some(part) = segment.find(count) {
                if let Some(zero) = self.take_part(space, segment, part.clone(), guards)? {
                    return Ok((start(segment, &part)?, zero));
                }
            }
        }
        for _ in 0..TRIES {
            let segment = self.new_segment(space, count)?;
            if let Some(zero) = self.take_part(space, segment, 0..count, guards)? {
                return Ok((start(segment, &(0..count))?, zero));
            }
        }
        Err(HeapError::Memory(ErrorKind::RangeLost.into()))
    }

    /// Takes `count` granules with memory where as many as `room` are free behind them; `None`
    /// where there are none, or none is to be left.
    pub(in crate::heap) fn take_with_room(
        &self,
        space: &mut Space,
        count: usize,
        room: usize,
    ) -> Result<Option<(NonNull<u8>, bool)>, HeapError> {
        let mut place = space.first_with_room();
        while room != 0
            && let Some(segment) = space.segments.nth(place)
        {
            place += 1;
            let Some(run) = segment.find(count + room) else {
                continue;
            };
            let part = run.start..run.start + count;
            if let Some(zero) = self.take_part(space, segment, part.clone(), 0)? {
                return Ok(Some((self.part_start(segment, &part)?, zero)));
            }
        }
        Ok(None)
    }

    pub(in crate::heap) fn part_start(
        &self,
        segment: SegmentRef,
        part: &Range<usize>,
    ) -> Result<NonNull<u8>, HeapError> {
        let range = segment.range(part, self.page);
        range.map(PageRange::start).ok_or(HeapError::Internal)
    }

    /// Takes free granules of a segment, `guards` of them without memory on both sides; `None`
    /// where the provider says that some are lost.
    fn take_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: Range<usize>,
        guards: usize,
    ) -> Result<Option<bool>, HeapError> {
        let sides = [part.start..part.start + guards, part.end - guards..part.end];
        for side in sides.iter().filter(|side| !segment.are_empty(side)) {
            // Whether it could is seen below.
            let _ = self.return_part(space, segment, side);
            if !segment.are_free(side) {
                return Ok(None);
            }
            if !segment.are_empty(side) {
                return Err(HeapError::Memory(ErrorKind::Exhausted.into()));
            }
        }
        let part = part.start + guards..part.end - guards;
        while let Some(hole) = segment.uncommitted(&part) {
            let mut tried = match segment.whole(&hole) {
                Some(whole) => self.commit_part(space, segment, whole, PageWish::Transparent),
                None => Err(ErrorKind::Unsupported.into()),
            };
            if tried.is_err_and(|error| error.kind() != ErrorKind::RangeLost) {
                tried = self.commit_part(space, segment, hole, PageWish::Base);
            }
            match tried {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::RangeLost => return Ok(None),
                Err(error) => return Err(HeapError::Memory(error)),
            }
        }
        let zero = space.take(segment, part);
        for side in sides {
            segment.reserve(side);
        }
        Ok(Some(zero))
    }

    /// Gives free granules memory. If the provider says that they are lost, they are forgotten.
    fn commit_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: Range<usize>,
        pages: PageWish,
    ) -> Result<(), Error> {
        let range = segment.range(&part, self.page);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        // SAFETY: reserved as part of the segment, not committed, and free.
        match unsafe { self.commit_pages(range, pages) } {
            Ok(()) => {
                let borders = segment.borders(&part);
                segment.commit(part.clone());
                space.note_borders(borders, segment.borders(&part));
                space.gauges.committed += range.len_bytes();
                Ok(())
            }
            Err(error) => {
                if error.kind() == ErrorKind::RangeLost {
                    self.lose(space, segment, &part);
                }
                Err(error)
            }
        }
    }

    /// Takes the granules at `addr` as well, if they are free and of the same segment as those
    /// before them.
    pub(in crate::heap) fn take_behind(
        &self,
        space: &mut Space,
        addr: usize,
        count: usize,
    ) -> bool {
        // The next segment may begin there.
        let Some(segment) = space.find(addr - 1) else {
            return false;
        };
        let first = segment.number(addr);
        let part = first..first + count;
        segment.are_free(&part) && matches!(self.take_part(space, segment, part, 0), Ok(Some(_)))
    }
}
