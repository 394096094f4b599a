//! Pieces: the reservations that an arena consists of.

use super::class;
use crate::{
    page::{PageRange, PageSize},
    provider::{Commit, Error, ErrorKind, PageProvider, PageWish, Request},
};
use core::{
    ffi::CStr,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
};

/// Bytes that a piece's header takes, so that what follows it is aligned to a cache line.
pub(super) const HEADER: usize = 64;

/// What process maps call the pieces behind the first one.
const NAME: &CStr = c"hostmem: metadata";

/// What stands at the start of a piece.
///
/// The arena's lock guards all of it, but for the range, which never changes.
pub(super) struct Piece {
    /// The next older piece.
    pub(super) next: Option<NonNull<Piece>>,
    /// The whole reservation.
    pub(super) range: PageRange,
    /// How many bytes of it are committed, from the start.
    pub(super) committed: usize,
    /// How many bytes of it were handed out, from the start, the header among them. What lies
    /// behind has never been written, and reads zero.
    pub(super) used: usize,
    /// Whether the object that the piece was made for was freed, and the range could not be
    /// released.
    pub(super) idle: bool,
}

const _: () = assert!(size_of::<Piece>() <= HEADER);

/// How to commit more of a piece.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Bytes at a time, at least.
    pub(super) len: usize,
    /// Whether to ask for large pages.
    pub(super) large: bool,
}

impl Step {
    fn commit(self) -> Commit {
        Commit {
            pages: if self.large {
                PageWish::Transparent
            } else {
                PageWish::Base
            },
            ..Commit::READ_WRITE
        }
    }
}

/// Reserves a piece as asked for or, where there is no room for that, half as many bytes and so on
/// down to `least`, and commits `needed` bytes of it or more.
///
/// # Errors
///
/// What the provider says; nothing is reserved then.
pub(super) fn make<P: PageProvider>(
    provider: &P,
    request: Request<'_>,
    (least, needed): (usize, usize),
    step: Step,
    page: PageSize,
) -> Result<NonNull<Piece>, Error> {
    let mut request = request;
    let (range, is_committed) = loop {
        // One call where one step commits all of it.
        let in_one = !step.large && request.len <= step.len;
        let made = if in_one {
            provider.reserve_committed(&request, step.commit())
        } else {
            provider.reserve(&request)
        };
        match made {
            Err(e) if e.kind() == ErrorKind::Exhausted && request.len > least => {
                request.len = page.round_down(request.len / 2).max(least);
                // Only what is longer than need be is aligned for its own sake.
                request.placement.align = 1;
            }
            result => break (result?, in_one),
        }
    };
    let committed = if is_committed {
        Ok(range.len_bytes())
    } else {
        commit(provider, range, 0, needed, step, page)
    };
    let committed = match committed {
        Ok(committed) => committed,
        Err(error) => {
            // SAFETY: reserved just now, and no other code has its address yet. A failure wastes
            // addresses.
            let _ = unsafe { provider.release(range) };
            return Err(error);
        }
    };
    let piece = range.start().cast::<Piece>();
    let header = Piece {
        next: None,
        range,
        committed,
        used: HEADER,
        idle: false,
    };
    // SAFETY: the first page is committed, aligned for a header and larger, and no other code's.
    unsafe { piece.write(header) };
    Ok(piece)
}

/// Names a piece, which costs a system call.
pub(super) const fn named(request: Request<'_>) -> Request<'_> {
    request.name(NAME)
}

/// Commits a range from `from`, where its committed part ends, so that it reaches `to` or more;
/// returns where it ends now. Where there is no memory for a whole step, it takes what is needed.
fn commit<P: PageProvider>(
    provider: &P,
    range: PageRange,
    from: usize,
    to: usize,
    step: Step,
    page: PageSize,
) -> Result<usize, Error> {
    let least = page.round_up(to).ok_or(ErrorKind::Exhausted)?;
    let mut end = least.max(from.saturating_add(page.round_down(step.len)));
    if step.large {
        // Up to where a large page ends.
        let large = step.len.max(page.bytes());
        end = (range.addr() + end).next_multiple_of(large) - range.addr();
    }
    end = end.min(range.len_bytes());
    loop {
        let part = range.part(from, end - from, page);
        let part = part.ok_or(ErrorKind::Exhausted)?;
        // SAFETY: the part lies in the arena's reservation, behind all of it that was ever
        // committed, and whoever calls this holds the arena's lock, or the only way to the range.
        match unsafe { provider.commit(part, step.commit()) } {
            Ok(_) => return Ok(end),
            Err(e) if e.kind() == ErrorKind::Exhausted && end > least => end = least,
            Err(error) => return Err(error),
        }
    }
}

impl Piece {
    /// Returns where an object that is aligned to `align` would begin in the piece.
    #[inline]
    fn offset(&self, align: usize) -> usize {
        let start = self.range.addr();
        (start + self.used).next_multiple_of(align) - start
    }

    /// Says whether `size` bytes fit into the committed part.
    #[inline]
    pub(super) fn holds(&self, size: usize, align: usize) -> bool {
        let end = self.offset(align).checked_add(size);
        end.is_some_and(|end| end <= self.committed)
    }

    /// Says whether `size` bytes fit if more is committed.
    pub(super) fn could_hold(&self, size: usize, align: usize) -> bool {
        let end = self.offset(align).checked_add(size);
        end.is_some_and(|end| end <= self.range.len_bytes())
    }

    /// Commits enough for `size` more bytes, which [`Piece::could_hold`]; returns by how much.
    ///
    /// # Errors
    ///
    /// What the provider says; nothing changes then.
    pub(super) fn grow<P: PageProvider>(
        &mut self,
        provider: &P,
        size: usize,
        align: usize,
        step: Step,
        page: PageSize,
    ) -> Result<usize, Error> {
        let to = self.offset(align) + size;
        let end = commit(provider, self.range, self.committed, to, step, page)?;
        Ok(end - core::mem::replace(&mut self.committed, end))
    }

    /// Takes `size` fresh bytes, which the committed part [holds](Piece::holds); returns them, and
    /// what aligning left in front of them. Sizes are multiples of [`class::STEP`].
    #[inline]
    pub(super) fn take(&mut self, size: usize, align: usize) -> (NonNull<u8>, Option<Gap>) {
        debug_assert!(size.is_multiple_of(class::STEP), "sizes are rounded up");
        let (from, at) = (self.used, self.offset(align));
        assert!(at + size <= self.committed, "memory is committed first");
        self.used = at + size;
        // SAFETY: both lie in the piece, by the assertion.
        let start = unsafe { self.range.start().add(at) };
        let gap = (at > from).then(|| Gap {
            // SAFETY: from < at, which lies in the piece.
            start: unsafe { self.range.start().add(from) },
            len: at - from,
        });
        (start, gap)
    }

    /// Returns how many bytes the committed part holds behind what is used, aligned.
    pub(super) fn room(&self, align: usize) -> usize {
        self.committed.saturating_sub(self.offset(align))
    }
}

/// Fresh memory between two objects.
pub(super) struct Gap {
    pub(super) start: NonNull<u8>,
    pub(super) len: usize,
}

/// All pieces of an arena, the newest first.
///
/// The arena's lock guards the chain; it stands beside what the lock holds, since an arena is
/// dropped without knowing what kind of lock that is.
pub(super) struct Chain(AtomicPtr<Piece>);

impl Chain {
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    fn first(&self) -> Option<NonNull<Piece>> {
        NonNull::new(self.0.load(Relaxed))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// Adds a piece. The lock is held.
    pub(super) fn link(&self, mut piece: NonNull<Piece>) {
        // SAFETY: the header was written, and is the lock holder's alone.
        unsafe { piece.as_mut() }.next = self.first();
        self.0.store(piece.as_ptr(), Relaxed);
    }

    /// Takes a piece out. The lock is held.
    pub(super) fn unlink(&self, piece: NonNull<Piece>) {
        // SAFETY: the piece is in the chain, so that its header is there, the lock holder's alone.
        let next = unsafe { piece.as_ref() }.next;
        match self.find(|before| before.next == Some(piece)) {
            // SAFETY: the piece before is in the chain too, and its header the lock holder's alone.
            Some(mut before) => unsafe { before.as_mut() }.next = next,
            None => self
                .0
                .store(next.map_or(null_mut(), NonNull::as_ptr), Relaxed),
        }
    }

    /// Calls `visit` with each piece. The lock is held.
    pub(super) fn visit(&self, mut visit: impl FnMut(&Piece)) {
        let mut next = self.first();
        while let Some(piece) = next {
            // SAFETY: pieces in the chain have headers, which are the lock holder's alone.
            let header = unsafe { piece.as_ref() };
            visit(header);
            next = header.next;
        }
    }

    /// Returns the newest piece that `wanted` says yes to. The lock is held.
    pub(super) fn find(&self, wanted: impl Fn(&Piece) -> bool) -> Option<NonNull<Piece>> {
        let mut next = self.first();
        while let Some(piece) = next {
            // SAFETY: pieces in the chain have headers, which are the lock holder's alone.
            let header = unsafe { piece.as_ref() };
            if wanted(header) {
                return Some(piece);
            }
            next = header.next;
        }
        None
    }

    /// Takes the newest piece out, to be released.
    pub(super) fn pop(&mut self) -> Option<PageRange> {
        let piece = self.first()?;
        // SAFETY: a piece in the chain has a header until it is released.
        let header = unsafe { piece.as_ref() };
        let (next, range) = (header.next, header.range);
        *self.0.get_mut() = next.map_or(null_mut(), NonNull::as_ptr);
        Some(range)
    }
}
