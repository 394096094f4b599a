//! Taking pages away.

use super::super::{
    PageState, RegionAllocator,
    fork::{Parts, Undo},
    lock::Held,
    record::Record,
};
use crate::{
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider},
    range_map::{Pages, Path},
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Takes pages away, whatever parts of however many mappings they are: their memory is gone,
    /// and their addresses are free for the allocator again, never for others. Pages that are
    /// free already or not the allocator's are left alone.
    ///
    /// A range that is nowhere the allocator's goes to the provider below, where what was mapped
    /// before the allocator became active came from.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Taken`] where a view of a dual mapping lies in it, and want of memory: nothing
    /// changes then. The error of the provider below for a piece between two mappings of others:
    /// the pieces before it are gone.
    ///
    /// # Safety
    ///
    /// No other code uses the memory. Where a range is nowhere the allocator's, it is the
    /// provider's below, as its own `release` asks.
    pub unsafe fn unmap(&self, range: PageRange) -> Result<(), Error> {
        let pages = self.pages(range)?;
        let mut held = self.lock();
        let mut way = Path::unknown();
        if let Some(entry) = held.parts.tree.look(pages.0, &mut way)
            && entry.end() >= pages.1
            && let Record::Ours(state, mark) = entry.value::<Record>()
            && state != PageState::Dual
        {
            // A name or the like goes with what is mapped over it.
            let plain = state == PageState::Reserved && mark.is_plain();
            let committed = (!plain).then_some(pages);
            // SAFETY: no other code uses the memory, by this function's condition; one entry that
            // was just looked up under the lock has all of it.
            let freed = unsafe { self.free_piece(&mut held, pages, committed, way.known()) };
            if let Some(result) = freed {
                return result;
            }
            drop(held);
            held = self.lock();
        }
        let mut is_ours = false;
        for (_, record) in held.parts.entries(pages) {
            match record {
                Some(Record::Foreign) => {}
                Some(Record::Ours(PageState::Dual, _)) => return Err(ErrorKind::Taken.into()),
                None | Some(Record::Ours(..)) => is_ours = true,
            }
        }
        if !is_ours {
            drop(held);
            // SAFETY: no part is the allocator's, so that the range is the provider's below, and no
            // other code uses it, by this function's conditions.
            return unsafe { self.inner.release(range) };
        }
        let mut from = pages.0;
        while let Some(piece) = held.parts.own_piece(from, pages.1) {
            let committed = held.parts.committed_in(piece)?;
            // SAFETY: no other code uses the memory, by this function's condition; all of the piece
            // is the allocator's, and committed as was just looked up under the lock.
            match unsafe { self.free_piece(&mut held, piece, committed, None) } {
                Some(result) => result?,
                None => {
                    drop(held);
                    held = self.lock();
                    continue;
                }
            }
            from = piece.1;
        }
        Ok(())
    }

    /// Frees pages that are all the allocator's, and committed from where to where `committed`
    /// says. `None` says that this is a child which was forked meanwhile, and to look again.
    ///
    /// # Safety
    ///
    /// No other code uses the memory.
    unsafe fn free_piece(
        &self,
        held: &mut Held<'_, M, R>,
        piece: Pages,
        committed: Option<Pages>,
        path: Option<&Path>,
    ) -> Option<Result<(), Error>> {
        let parts = held.parts;
        if let Err(error) = parts.tree.prepare(&mut held.writer, &parts.arena, 1) {
            return Some(Err(error));
        }
        if !self.begin(held, Undo::Free, piece) {
            return None;
        }
        let mut done = Ok(());
        if let Some(committed) = committed {
            // SAFETY: all of it was adopted from the provider below and is in no view; no other
            // code uses it, by this function's condition.
            let result = unsafe { self.inner.decommit(self.range(committed)) };
            done = self.or_lost(held, committed, result);
        }
        let done = done.and_then(|()| self.record_at(held, piece, None, path));
        self.finish(held, Undo::Free, piece).then_some(done)
    }
}

impl<M: PageProvider + Copy, R: RawMutex> Parts<M, R> {
    /// Returns the first piece of a range of pages that is the allocator's, as long as it goes.
    fn own_piece(&self, from: u64, end: u64) -> Option<Pages> {
        let mut own = self
            .entries((from, end))
            .skip_while(|(_, r)| *r == Some(Record::Foreign));
        let ((start, mut last), _) = own.next()?;
        for ((_, end), _) in own.take_while(|(_, r)| *r != Some(Record::Foreign)) {
            last = end;
        }
        Some((start, last))
    }
}
