//! Giving memory back and keeping the pages.

use super::super::{
    PageState, RegionAllocator,
    record::{Notes, Record},
};
use crate::{
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider, Purged},
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Gives the memory of committed pages back and keeps the pages; see [`PageProvider::purge`].
    /// Where large pages were wished for, whole ones are given back only: what is left at the ends
    /// of a range keeps its contents, which [`Purged::ZeroOrOld`] says. As a provider the region
    /// gives back what its user says.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] and [`ErrorKind::OutsideRange`] where a page is not committed
    /// or not the region's; what the provider below says.
    ///
    /// # Safety
    ///
    /// The range is the caller's and committed, and its contents are not needed.
    pub unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: purge_pages asks what this function asks: the range is committed, and its
        // contents are not needed.
        unsafe { self.purge_pages(range, true) }
    }

    /// Gives the memory of committed pages back, of large ones as a whole only where that is asked
    /// for.
    ///
    /// # Safety
    ///
    /// The range is the caller's and committed, and its contents are not needed.
    pub(in crate::region) unsafe fn purge_pages(
        &self,
        range: PageRange,
        whole: bool,
    ) -> Result<Purged, Error> {
        if self.is_foreign(range)? {
            // SAFETY: no part is the allocator's, so that the range came from the provider below;
            // it is committed and its contents are not needed, by this function's condition.
            return unsafe { self.inner.purge(range) };
        }
        let pages = self.pages(range)?;
        let held = self.lock();
        let mut pieces = false;
        for (_, record) in held.parts.entries(pages) {
            match record {
                Some(Record::Ours(PageState::Committed(_), mark)) => {
                    pieces |= mark.notes.contains(Notes::PLACED)
                        || whole && mark.notes.contains(Notes::LARGE);
                }
                Some(Record::Ours(..)) => return Err(ErrorKind::InvalidArgument.into()),
                Some(Record::Foreign) | None => return Err(ErrorKind::OutsideRange.into()),
            }
        }
        if !pieces {
            // SAFETY: all of it was seen committed under the lock, which is held; its contents are
            // not needed, by this function's condition.
            return unsafe { self.inner.purge(range) };
        }
        let mut shown = None;
        for (piece, record) in held.parts.entries(pages) {
            let mut part = piece;
            if let Some(Record::Ours(_, mark)) = record {
                if mark.notes.contains(Notes::PLACED) {
                    // Whoever mapped it knows what giving its memory back would show.
                    part = (piece.0, piece.0);
                } else if whole && mark.notes.contains(Notes::LARGE) {
                    let unit = self.page_of(LARGE).max(1);
                    part = (piece.0.next_multiple_of(unit), piece.1 / unit * unit);
                }
            }
            let mut one = Purged::Kept;
            if part.0 < part.1 {
                // SAFETY: a part of a piece that was seen committed under the lock, which is held;
                // its contents are not needed, by this function's condition.
                one = unsafe { self.inner.purge(self.range(part))? };
            }
            if part != piece {
                shown = Some(shown.map_or(Purged::Kept, |all| weaker(all, Purged::Kept)));
            }
            shown = Some(shown.map_or(one, |all| weaker(all, one)));
        }
        Ok(shown.unwrap_or(Purged::Kept))
    }
}

/// Usual large pages: what is given back as a whole where they were wished for.
const LARGE: usize = 2 << 20;

/// Returns what pages show of which some show one thing, and some another.
const fn weaker(a: Purged, b: Purged) -> Purged {
    match (a, b) {
        (Purged::Zero, Purged::Zero) => Purged::Zero,
        (Purged::Kept, Purged::Kept) => Purged::Kept,
        _ => Purged::ZeroOrOld,
    }
}
