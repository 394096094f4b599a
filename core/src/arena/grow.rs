//! How an arena grows: which piece has room, when more of it is committed, and how long the next
//! one is.

use super::{
    Arena, State,
    piece::{self, HEADER, Piece, Step},
};
use crate::{
    provider::{Error, ErrorKind, PageProvider, Request, Resource, reserve_ahead},
    sync::RawMutex,
};
use core::ptr::NonNull;

/// Bytes of the first piece, if the arena may have that many. The host is not asked for its limits
/// before that: it would cost system calls.
pub(super) const FIRST: usize = 64 << 10;

/// Bytes of a piece that pieces double up to; behind that they are an eighth of what there is.
const CAP: usize = 4 << 20;

/// Bytes committed at a time, at least: few system calls, little waste.
const GROWTH: usize = 64 << 10;

/// Bytes committed at a time where more than [`FEW_LARGE`] are: usual large pages, which are asked
/// for. What is read at random in megabytes is read through few entries of the address cache.
const LARGE: usize = 2 << 20;

/// Below this many committed bytes large pages would waste more than they help.
const FEW_LARGE: usize = 2 * LARGE;

impl<P: PageProvider + Copy, R: RawMutex> Arena<P, R> {
    /// Returns a piece whose committed part holds `size` more bytes, and makes one if need be.
    #[inline]
    pub(super) fn piece_for(
        &self,
        state: &mut State,
        size: usize,
        align: usize,
    ) -> Result<NonNull<Piece>, Error> {
        if let Some(piece) = state.current {
            // SAFETY: a piece in the chain has a header, which is the lock holder's alone.
            if unsafe { piece.as_ref() }.holds(size, align) {
                return Ok(piece);
            }
        }
        let piece = self.grown_for(state, size, align)?;
        state.current = Some(piece);
        Ok(piece)
    }

    #[cold]
    fn grown_for(
        &self,
        state: &mut State,
        size: usize,
        align: usize,
    ) -> Result<NonNull<Piece>, Error> {
        // Pieces are few, and what follows costs a system call more often than not.
        if let Some(piece) = self.chain.find(|piece| piece.holds(size, align)) {
            return Ok(piece);
        }
        let Some(piece) = self.chain.find(|piece| piece.could_hold(size, align)) else {
            return self.new_piece(state, size, align);
        };
        let step = self.step(state.committed);
        let mut at = piece;
        // SAFETY: a piece in the chain has a header, which is the lock holder's alone.
        let header = unsafe { at.as_mut() };
        state.committed += header.grow(&self.provider, size, align, step, self.page)?;
        Ok(piece)
    }

    /// Returns how to commit where `committed` bytes are.
    pub(super) fn step(&self, committed: usize) -> Step {
        // What is locked becomes resident as a whole, so that steps stay small there.
        if committed < FEW_LARGE || self.provider.left(Resource::Locked).is_some() {
            Step {
                len: GROWTH,
                large: false,
            }
        } else {
            Step {
                len: LARGE,
                large: true,
            }
        }
    }

    /// Makes a piece whose committed part holds `size` bytes.
    fn new_piece(
        &self,
        state: &mut State,
        size: usize,
        align: usize,
    ) -> Result<NonNull<Piece>, Error> {
        let before = if align <= self.page.bytes() {
            align.max(HEADER)
        } else {
            // The piece may begin at any page.
            align.saturating_add(HEADER)
        };
        let needed = size.checked_add(before);
        let needed = needed.and_then(|needed| self.page.round_up(needed));
        let left = self.max - state.reserved;
        let needed = needed.filter(|needed| *needed <= left);
        let needed = needed.ok_or(ErrorKind::Exhausted)?;
        let next = self.page.round_up(state.next_len);
        let wanted = next.map_or(needed, |next| next.max(needed)).min(left);
        let len = if self.chain.is_empty() {
            wanted
        } else {
            let ahead = reserve_ahead(&self.provider, needed, wanted);
            self.page.round_down(ahead).max(needed)
        };
        let mut request = Request::bytes(len);
        if len >= 2 * LARGE {
            request = request.align(LARGE);
        }
        if !self.chain.is_empty() {
            request = piece::named(request);
        }
        let step = self.step(state.committed);
        let piece = piece::make(&self.provider, request, (needed, needed), step, self.page)?;
        state.link(&self.chain, piece);
        // SAFETY: linked just now, and its header is the lock holder's alone.
        let got = unsafe { piece.as_ref() }.range.len_bytes();
        state.next_len = if got < wanted {
            // There was no room for more, or it is not to be taken.
            got.max(FIRST)
        } else {
            (2 * state.next_len).min((state.reserved / 8).max(CAP))
        };
        Ok(piece)
    }
}
