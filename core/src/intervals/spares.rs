//! Copies that are not in use: what a change takes, and what it leaves.

use super::{
    Interval, Intervals,
    piece::{Piece, Top},
};
use crate::{
    arena::Arena,
    atomic::{self, Ordering},
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::{NonNull, null_mut},
};

/// Slots of the first top.
pub(super) const FIRST: usize = if cfg!(all(test, loom)) { 2 } else { 8 };

/// Pieces that a change takes at most.
pub(super) const SPARE: usize = 2;

/// Copies that are not in use, for the one who may change the index.
pub(crate) struct Spares {
    piece: Option<NonNull<Piece>>,
    pub(super) pieces: usize,
    /// One at least, and no more than two, have room for the next change.
    top: Option<NonNull<Top>>,
}

// SAFETY: what it points to is made of atomics, in memory that stays as long as the arena.
unsafe impl Send for Spares {}

impl Spares {
    pub(crate) const fn new() -> Self {
        Self {
            piece: None,
            pieces: 0,
            top: None,
        }
    }

    pub(super) fn push(&mut self, piece: NonNull<Piece>) {
        let next = self.piece.map_or(null_mut(), NonNull::as_ptr);
        // SAFETY: a piece, which is there as long as the arena, and changed by its atomics only.
        unsafe { piece.as_ref() }
            .next
            .store(next, Ordering::Relaxed);
        self.piece = Some(piece);
        self.pieces += 1;
    }

    fn pop(&mut self) -> Option<NonNull<Piece>> {
        let piece = self.piece?;
        // SAFETY: a piece, which is there as long as the arena, and changed by its atomics only.
        let next = unsafe { piece.as_ref() }.next.load(Ordering::Relaxed);
        self.piece = NonNull::new(next);
        self.pieces -= 1;
        Some(piece)
    }

    /// Takes a piece, and fills it.
    pub(super) fn piece(&mut self, with: impl Iterator<Item = Interval>) -> Option<NonNull<Piece>> {
        let piece = self.pop()?;
        // SAFETY: a piece, which is there as long as the arena, and changed by its atomics only.
        unsafe { piece.as_ref() }.fill(with);
        Some(piece)
    }

    pub(super) fn push_top(&mut self, top: NonNull<Top>) {
        let next = self.top.map_or(null_mut(), NonNull::as_ptr);
        // SAFETY: a top, which is there as long as the arena, and changed by its atomics only.
        unsafe { top.as_ref() }.next.store(next, Ordering::Relaxed);
        self.top = Some(top);
    }

    /// Says whether the first top has room for `slots` slots. Those that have too little are
    /// forgotten: a late reader may be in them, and doubling bounds the waste.
    pub(super) fn has_top(&mut self, slots: usize) -> bool {
        while let Some(top) = self.top {
            // SAFETY: a top, which is there as long as the arena, and changed by its atomics only.
            let top = unsafe { top.as_ref() };
            if top.room() >= slots {
                return true;
            }
            self.top = NonNull::new(top.next.load(Ordering::Relaxed));
        }
        false
    }

    /// Takes a top with room for `slots` slots, and fills it.
    pub(super) fn top(
        &mut self,
        slots: usize,
        with: impl Iterator<Item = NonNull<Piece>>,
    ) -> Option<NonNull<Top>> {
        let top = if self.has_top(slots) {
            self.top?
        } else {
            return None;
        };
        // SAFETY: a top, which is there as long as the arena, and changed by its atomics only.
        let filled = unsafe { top.as_ref() };
        self.top = NonNull::new(filled.next.load(Ordering::Relaxed));
        filled.fill(with);
        Some(top)
    }

    /// Sees to it that a range can be added. Then one can also be changed or taken out afterwards,
    /// each time that it was.
    ///
    /// # Errors
    ///
    /// Where there is no metadata; nothing changes then.
    pub(crate) fn make_room<M: PageProvider + Copy, R: RawMutex>(
        &mut self,
        index: &Intervals,
        arena: &Arena<M, R>,
    ) -> Result<(), Error> {
        while self.pieces < SPARE {
            self.push(arena.alloc_value(Piece::new())?);
        }
        let slots = index.top().map_or(0, Top::len) + 1;
        if !self.has_top(slots) {
            let room = (2 * slots).max(FIRST);
            let (firsts, pieces) = (zeroed(arena, room)?, zeroed(arena, room)?);
            self.push_top(arena.alloc_value(Top::new(firsts, pieces))?);
        }
        Ok(())
    }
}

/// Allocates atomics, each zero.
fn zeroed<A: Default, M: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<M, R>,
    count: usize,
) -> Result<NonNull<[A]>, Error> {
    let layout = Layout::array::<A>(count).map_err(|_| ErrorKind::InvalidArgument)?;
    let first = arena.alloc(layout)?;
    // SAFETY: fresh memory of this layout.
    unsafe { first.write_bytes(0, layout.size()) };
    let first = first.cast::<A>();
    // SAFETY: zeroed just now, and no other code has its address yet.
    unsafe { atomic::init_zeroed(first, count) };
    Ok(NonNull::slice_from_raw_parts(first, count))
}
