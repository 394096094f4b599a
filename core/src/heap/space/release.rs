//! How addresses go back to the provider, or are lost to others.

use super::Space;
use crate::{
    heap::{Heap, class::GRANULE, segment::SegmentRef},
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::ops::Range;

/// Granules whose addresses are given back at once for want of metadata, at most: as much as it
/// grows by.
const ADDRESSES: usize = 4;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Forgets free granules that are others' now.
    pub(super) fn lose(&self, space: &mut Space, segment: SegmentRef, part: &Range<usize>) {
        space.lose(segment, part);
        let start = segment.addr() + part.start * GRANULE;
        self.map.set(start, part.len() * GRANULE, None);
    }

    /// Releases addresses that are not used any more.
    ///
    /// # Errors
    ///
    /// Those of the provider, but for addresses that were lost.
    pub(in crate::heap) fn release_range(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the heap reserved the range and has forgotten, or is about to forget, all that
        // lay there.
        match unsafe { self.release_pages(range) } {
            Err(error) if error.kind() != ErrorKind::RangeLost => Err(error),
            _ => Ok(()),
        }
    }

    /// Releases free granules. Where the provider cannot, they stay.
    fn release_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: &Range<usize>,
    ) -> Result<(), Error> {
        let range = segment.range(part, self.page);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        // Before the addresses can be others'.
        self.map.set(range.addr(), range.len_bytes(), None);
        segment.give_up(part);
        match self.release_range(range) {
            Ok(()) => {
                space.lose(segment, part);
                Ok(())
            }
            Err(error) => {
                segment.regain(part);
                let nothing = Some(self.nothing);
                self.map.set(range.addr(), range.len_bytes(), nothing);
                Err(error)
            }
        }
    }

    /// Releases some free granules of a segment that others keep from being released, so that there
    /// are addresses for metadata; says whether there were any. They come back with the rest of the
    /// segment only.
    pub(in crate::heap) fn release_some(&self, space: &mut Space) -> bool {
        let segments = (0..space.segments.len()).rev();
        let found = segments.into_iter().find_map(|place| {
            let segment = space.segments.nth(place)?;
            Some((segment, segment.last_free(segment.granules())?))
        });
        let Some((segment, run)) = found else {
            return false;
        };
        let part = run.end - run.len().min(ADDRESSES)..run.end;
        self.release_part(space, segment, &part).is_ok()
    }

    /// Releases segments that are free, until one cannot be.
    pub(in crate::heap) fn release_free(&self, space: &mut Space) {
        // From behind, as those that follow one that is taken out move up.
        for place in (0..space.segments.len()).rev() {
            let Some(segment) = space.segments.nth(place).filter(|s| s.is_empty()) else {
                continue;
            };
            let mut from = 0;
            while let Some(part) = segment.kept(from) {
                if self.release_part(space, segment, &part).is_err() {
                    return;
                }
                from = part.end;
            }
            space.remove(segment);
        }
    }
}
