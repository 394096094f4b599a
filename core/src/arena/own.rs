//! Objects that have a piece of their own, which is released when they are freed.

use super::{
    Arena, Found,
    piece::{self, HEADER, Piece},
};
use crate::{
    provider::{Error, ErrorKind, PageProvider, Request},
    sync::RawMutex,
};
use core::{alloc::Layout, ptr::NonNull};

impl<P: PageProvider + Copy, R: RawMutex> Arena<P, R> {
    /// Returns where an object lies in a piece of its own.
    fn offset_in_own(layout: Layout) -> usize {
        layout.align().max(HEADER)
    }

    pub(super) fn find_own(&self, layout: Layout) -> Result<Found, Error> {
        let offset = Self::offset_in_own(layout);
        let len = layout.size().checked_add(offset);
        let len = len.and_then(|len| self.page.round_up(len));
        let len = len.ok_or(ErrorKind::Exhausted)?;
        let mut state = self.lock()?;
        let idle = self.chain.find(|piece| {
            let fits = piece.idle && piece.range.len_bytes() >= len;
            fits && (piece.range.addr() + offset).is_multiple_of(layout.align())
        });
        let (piece, fresh) = match idle {
            Some(piece) => (piece, false),
            None if len > self.max - state.reserved => return Err(ErrorKind::Exhausted.into()),
            None => {
                let request = piece::named(Request::bytes(len).align(layout.align()));
                let step = self.step(0);
                let piece = piece::make(&self.provider, request, (len, len), step, self.page)?;
                state.link(&self.chain, piece);
                (piece, true)
            }
        };
        let mut at = piece;
        // SAFETY: a piece in the chain has a header, which is the lock holder's alone.
        let header = unsafe { at.as_mut() };
        (header.idle, header.used) = (false, header.range.len_bytes());
        state.used += layout.size();
        // SAFETY: the piece is longer than the offset.
        Ok((unsafe { header.range.start().add(offset) }, fresh))
    }

    /// Frees an object that has a piece of its own.
    ///
    /// # Safety
    ///
    /// That of [`Arena::free`]; [`Arena::find_own`] found `memory` for this `layout`.
    pub(super) unsafe fn free_own(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: find_own put the object that far behind the start of its piece.
        let mut piece = unsafe { memory.sub(Self::offset_in_own(layout)) }.cast::<Piece>();
        let Ok(mut state) = self.lock() else {
            return;
        };
        state.used -= layout.size();
        self.chain.unlink(piece);
        // SAFETY: the header is there as long as the piece, and the lock holder's alone.
        let header = unsafe { piece.as_ref() };
        let range = header.range;
        state.reserved -= range.len_bytes();
        state.committed -= header.committed;
        // SAFETY: release asks for a range of ours that no other code uses: reserved in find_own
        // for this object alone, whose user gives it up, and no longer in the chain.
        if unsafe { self.provider.release(range) }.is_err() {
            // It serves again, or goes when the arena does.
            // SAFETY: the provider did not release the range, so that its header is there still,
            // and the lock holder's alone.
            unsafe { piece.as_mut() }.idle = true;
            state.link(&self.chain, piece);
        }
    }
}
