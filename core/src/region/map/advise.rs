//! Names, core files and large pages: advice about pages, and the notes that it leaves.

use super::super::{
    PageState, RegionAllocator,
    record::{Colour, Mark, Notes, Record},
};
use crate::{
    page::PageRange,
    provider::{Dump, PageProvider, PageWish},
    sync::RawMutex,
};
use core::ffi::CStr;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Names pages in the process map, and says whether they belong in core files; see
    /// [`PageProvider::describe`]. Pages that are free or not the allocator's are passed by, and so
    /// are views of dual mappings. A name goes with the mapping; what was left out of core files
    /// stays so.
    ///
    /// # Safety
    ///
    /// The range is the caller's.
    pub unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        let number = name.map(|name| self.names.number(name));
        let remark = |mark: Mark, colour: &dyn Fn() -> Colour| mark.described(number, dump, colour);
        self.advise(range, remark, |part| {
            // SAFETY: a part of the caller's range, by this function's condition; it was adopted
            // from the provider below, or came from it.
            unsafe { self.inner.describe(part, name, dump) }
        });
    }

    /// Changes whether large pages are welcome in committed memory: [`PageWish::Never`] says that
    /// they are not, [`PageWish::Transparent`] that they are. It is advice, and others change
    /// nothing; see [`PageProvider::avoid_large_pages`] and [`PageProvider::wish_large_pages`].
    /// Pages that are not committed, or that the caller mapped itself, are passed by.
    ///
    /// # Safety
    ///
    /// The range is the caller's.
    pub unsafe fn wish_pages(&self, range: PageRange, wish: PageWish) {
        match wish {
            PageWish::Never => self.advise(
                range,
                |mark, _| mark.wished(Notes::NEVER),
                // SAFETY: a part of the caller's range, by this function's condition; it was
                // adopted from the provider below, or came from it.
                |part| unsafe { self.inner.avoid_large_pages(part) },
            ),
            PageWish::Transparent => self.advise(
                range,
                |mark, _| mark.wished(Notes::LARGE),
                // SAFETY: a part of the caller's range, by this function's condition; it was
                // adopted from the provider below, or came from it.
                |part| unsafe { self.inner.wish_large_pages(part) },
            ),
            PageWish::Base | PageWish::Large { .. } => {}
        }
    }

    /// Gives advice of pages, and notes what it leaves, where `remark` changes their mark.
    fn advise(
        &self,
        range: PageRange,
        remark: impl Fn(Mark, &dyn Fn() -> Colour) -> Mark,
        call: impl Fn(PageRange),
    ) {
        let Ok(pages) = self.pages(range) else {
            return;
        };
        if self.is_foreign(range).unwrap_or(true) {
            return call(range);
        }
        let mut held = self.lock();
        let mut at = pages.0;
        while at < pages.1 {
            let parts = held.parts;
            let Some((piece, record)) = parts.entries((at, pages.1)).next() else {
                return;
            };
            at = piece.1;
            let Some(Record::Ours(state, mark)) = record else {
                continue;
            };
            let becomes = remark(mark, &|| parts.colour_beside(piece));
            let takes = match state {
                PageState::Committed(_) => true,
                PageState::Reserved => becomes.notes & Notes::WISHES == mark.notes & Notes::WISHES,
                _ => false,
            };
            let wishes = becomes.notes & Notes::WISHES != mark.notes & Notes::WISHES;
            if !takes || wishes && mark.notes.contains(Notes::PLACED) {
                continue;
            }
            // Advice that could not be noted is not given.
            if parts
                .tree
                .prepare(&mut held.writer, &parts.arena, 1)
                .is_err()
            {
                return;
            }
            call(self.range(piece));
            if becomes != mark {
                let (recent, record) = (held.recent, Record::Ours(state, becomes));
                let _ = self.record(&mut held, piece, Some(record));
                held.recent = recent;
            }
            if !self.parts.is_current(parts) {
                // A child that was forked meanwhile, and may not have it.
                drop(held);
                held = self.lock();
                at = piece.0;
            }
        }
    }
}
