//! Takes the place of AsmJit where it is not installed.

use crate::subject::{Jit, Piece, Subject, Usage};

/// AsmJit's `JitAllocator`, of which there is none here.
#[derive(Debug)]
pub enum AsmJit {}

impl AsmJit {
    /// Would make an allocator.
    #[must_use]
    pub fn dual() -> Option<Self> {
        None
    }

    /// Would make an allocator that has not mapped anything yet.
    #[must_use]
    pub fn bare() -> Option<Self> {
        None
    }

    /// Would allocate and write.
    pub fn alloc_written(&self, _: usize, _: &[u8]) -> Piece {
        match *self {}
    }

    /// Would return the version of the library.
    #[must_use]
    pub fn version() -> Option<u32> {
        None
    }
}

impl Subject for AsmJit {
    const NAME: &'static str = "asmjit";

    fn alloc(&self, _: usize) -> Piece {
        match *self {}
    }

    unsafe fn release(&self, _: Piece) {
        match *self {}
    }
}

impl Jit for AsmJit {
    fn query(&self, _: usize) -> Option<(usize, usize)> {
        match *self {}
    }

    fn alloc_and_shrink(&self, _: usize, _: usize) -> Piece {
        match *self {}
    }

    fn usage(&self) -> Usage {
        match *self {}
    }
}
