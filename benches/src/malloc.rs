//! The yardstick: the C library's malloc, which is not executable memory.

use crate::subject::{Piece, Subject};
use std::ptr::with_exposed_provenance_mut;

/// The C library's malloc.
#[derive(Debug)]
pub struct Malloc;

impl Subject for Malloc {
    const NAME: &'static str = "malloc";

    fn alloc(&self, size: usize) -> Piece {
        // SAFETY: malloc may be called with any size.
        let memory = unsafe { libc::malloc(size) };
        Piece::new(memory.expose_provenance()).expect("malloc has no memory")
    }

    unsafe fn release(&self, piece: Piece) {
        // SAFETY: by the caller's promise this came from malloc, and is not used any more.
        unsafe { libc::free(with_exposed_provenance_mut(piece.address())) }
    }
}
