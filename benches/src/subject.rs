//! What is measured: memory that is handed out in pieces.

use std::{hint::black_box, num::NonZero};

/// A live piece of memory: where it starts. Given back by [`Subject::release`].
///
/// One word for every subject, so that the harness touches as much memory for one as for another.
#[derive(Debug)]
#[must_use = "a piece that is dropped stays live"]
pub struct Piece(NonZero<usize>);

impl Piece {
    /// Makes the token of the piece that starts at `address`; `None` at null.
    #[must_use]
    pub const fn new(address: usize) -> Option<Self> {
        match NonZero::new(address) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }

    /// Returns where the piece starts.
    #[must_use]
    pub const fn address(&self) -> usize {
        self.0.get()
    }
}

/// Memory that is handed out in pieces.
pub trait Subject: Sync {
    /// What rows and notes call it.
    const NAME: &'static str;

    /// Allocates at least `size` bytes.
    ///
    /// # Panics
    ///
    /// If there is no memory: nothing can be measured then.
    fn alloc(&self, size: usize) -> Piece;

    /// Gives a piece back.
    ///
    /// # Safety
    ///
    /// The piece came from this subject's `alloc`, and no other code uses its memory.
    unsafe fn release(&self, piece: Piece);
}

/// What a subject holds, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Live pieces, in whole granules.
    pub used: usize,
    /// Mapped for pieces, once for both views.
    pub reserved: usize,
    /// Held for book-keeping.
    pub metadata: usize,
}

/// Executable memory that is handed out in pieces.
pub trait Jit: Subject {
    /// Finds the live piece around `pc`: its start and its length in bytes.
    fn query(&self, pc: usize) -> Option<(usize, usize)>;

    /// Allocates `size` bytes and shrinks the piece to `keep` bytes, as who does not know how long
    /// code will be.
    ///
    /// # Panics
    ///
    /// If there is no memory, or `keep` is more than `size`.
    fn alloc_and_shrink(&self, size: usize, keep: usize) -> Piece;

    /// Returns what the subject holds.
    fn usage(&self) -> Usage;
}

/// Nothing at all: measures what the harness itself costs.
#[derive(Debug)]
pub struct Nothing;

impl Subject for Nothing {
    const NAME: &'static str = "harness";

    #[inline(never)]
    fn alloc(&self, size: usize) -> Piece {
        Piece(NonZero::<usize>::MIN.saturating_add(black_box(size)))
    }

    #[inline(never)]
    unsafe fn release(&self, piece: Piece) {
        black_box(piece.address());
    }
}
