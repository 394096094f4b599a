//! Moving memory to other pages.

use super::super::{
    PageState, RegionAllocator,
    fork::Undo,
    record::{Mark, Record},
};
use crate::{
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Moves memory to pages that are reserved; see [`PageProvider::move_pages`].
    ///
    /// # Safety
    ///
    /// Both ranges are the caller's: all of `from` is committed, all of `to` reserved and not
    /// committed.
    pub(in crate::region) unsafe fn move_committed(
        &self,
        from: PageRange,
        to: PageRange,
    ) -> Result<(), Error> {
        if from.len_bytes() != to.len_bytes() || from.overlaps(to) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if self.is_foreign(from)? && self.is_foreign(to)? {
            // SAFETY: no part is the allocator's, so that both ranges came from the provider below;
            // the first is committed, the second reserved and not committed, by this function's
            // condition.
            return unsafe { self.inner.move_pages(from, to) };
        }
        let (source, target) = (self.pages(from)?, self.pages(to)?);
        let undo = Undo::Move(target.0);
        loop {
            let mut held = self.lock();
            let parts = held.parts;
            let mut alike = parts.entries(source);
            let Some((whole, Some(Record::Ours(state, mark)))) = alike.next() else {
                return Err(ErrorKind::OutsideRange.into());
            };
            if !matches!(state, PageState::Committed(_)) {
                return Err(ErrorKind::InvalidArgument.into());
            }
            let reserved = |r| matches!(r, Some(Record::Ours(PageState::Reserved, _)));
            if !parts.entries(target).all(|(_, r)| reserved(r)) {
                return Err(ErrorKind::InvalidArgument.into());
            }
            if whole != source {
                // Several mappings of the host, probably, and more than this can note.
                return Err(ErrorKind::Unsupported.into());
            }
            parts.tree.prepare(&mut held.writer, &parts.arena, 2)?;
            if !self.begin(&held, undo, source) {
                continue;
            }
            // SAFETY: the one is committed, the other reserved, as was just looked up under the
            // lock.
            let moved = unsafe { self.inner.move_pages(from, to) };
            let mut done = self.or_lost(&mut held, target, moved);
            if done.is_ok() {
                // Nothing was taken.
                let recent = held.recent;
                // The host tells what was moved from its neighbours by where it was.
                let colour = parts.colour_beside(target);
                let there = Record::Ours(state, Mark { colour, ..mark });
                let here = Record::Ours(PageState::Reserved, Mark::of(mark.tag));
                done = self.record(&mut held, target, Some(there));
                done = done.and(self.record(&mut held, source, Some(here)));
                held.recent = recent;
            }
            if self.finish(&held, undo, source) {
                return done;
            }
        }
    }
}
