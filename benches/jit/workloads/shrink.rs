//! Code whose length is not known before: a page is allocated, and shrunk to what was needed.

use hostmem_bench::{
    clock::CpuTime,
    lane::Lane,
    random::Random,
    subject::{Jit, Piece},
};
use std::time::Duration;

/// What is allocated, in bytes.
const SIZE: usize = 4096;

/// Pieces that are allocated before they are released.
const PIECES: usize = 2048;

/// Allocates and shrinks.
pub struct Shrinks<'a, S: Jit> {
    subject: &'a S,
    lengths: Vec<usize>,
    pieces: Vec<Piece>,
}

impl<'a, S: Jit> Shrinks<'a, S> {
    /// Draws the lengths that pieces are shrunk to.
    pub fn new(subject: &'a S, random: &mut Random) -> Self {
        let lengths = (0..PIECES).map(|_| random.within(&(16..=1024)));
        Self {
            subject,
            lengths: lengths.collect(),
            pieces: Vec::new(),
        }
    }
}

impl<S: Jit> Lane for Shrinks<'_, S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    /// Times `steps` allocations with their shrinking, and not that they are released.
    fn run(&mut self, steps: usize) -> Duration {
        self.pieces.reserve(steps);
        let start = CpuTime::now();
        for &keep in self.lengths.iter().cycle().take(steps) {
            self.pieces.push(self.subject.alloc_and_shrink(SIZE, keep));
        }
        let took = start.elapsed();
        for piece in self.pieces.drain(..) {
            // SAFETY: allocated from this subject above; no other code uses its memory.
            unsafe { self.subject.release(piece) };
        }
        took
    }
    fn batch(&self) -> Option<usize> {
        Some(PIECES)
    }
}
