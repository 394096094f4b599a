//! Holes one granule long: a request of two granules fits none of them, however many there are.

use hostmem_bench::{
    clock::CpuTime,
    lane::Lane,
    subject::{Piece, Subject},
};
use std::time::Duration;

/// Pieces that are allocated before they are released.
const GUESTS: usize = 64;

/// A board of live pieces one granule long, beside which two granules are allocated.
pub struct Checkerboard<'a, S: Subject> {
    name: &'static str,
    subject: &'a S,
    granule: usize,
    board: Vec<Piece>,
    guests: Vec<Piece>,
}

impl<'a, S: Subject> Checkerboard<'a, S> {
    /// Allocates twice `live` pieces, and releases every second by address.
    pub fn with_holes(subject: &'a S, granule: usize, live: usize) -> Self {
        let mut all: Vec<Piece> = (0..2 * live).map(|_| subject.alloc(granule)).collect();
        all.sort_unstable_by_key(Piece::address);
        let mut board = Vec::with_capacity(live);
        for (at, piece) in all.into_iter().enumerate() {
            if at % 2 == 0 {
                board.push(piece);
            } else {
                // SAFETY: allocated from this subject above; no other code uses its memory.
                unsafe { subject.release(piece) };
            }
        }
        Self::of(S::NAME, subject, granule, board)
    }

    /// Allocates `live` pieces.
    pub fn without_holes(subject: &'a S, granule: usize, live: usize) -> Self {
        let board = (0..live).map(|_| subject.alloc(granule)).collect();
        Self::of("no-holes", subject, granule, board)
    }

    fn of(name: &'static str, subject: &'a S, granule: usize, board: Vec<Piece>) -> Self {
        Self {
            name,
            subject,
            granule,
            board,
            guests: Vec::new(),
        }
    }

    /// Counts the holes that are exactly one granule long, between two live pieces.
    pub fn holes(&self) -> usize {
        let pairs = self.board.windows(2);
        let apart = pairs.map(|pair| pair[1].address() - pair[0].address());
        apart.filter(|&bytes| bytes == 2 * self.granule).count()
    }
}

impl<S: Subject> Lane for Checkerboard<'_, S> {
    fn name(&self) -> &'static str {
        self.name
    }

    /// Times `steps` allocations, and not that they are released.
    fn run(&mut self, steps: usize) -> Duration {
        self.guests.reserve(steps);
        let start = CpuTime::now();
        for _ in 0..steps {
            self.guests.push(self.subject.alloc(2 * self.granule));
        }
        let took = start.elapsed();
        release_all(self.subject, &mut self.guests);
        took
    }

    fn batch(&self) -> Option<usize> {
        Some(GUESTS)
    }
}

impl<S: Subject> Drop for Checkerboard<'_, S> {
    fn drop(&mut self) {
        release_all(self.subject, &mut self.guests);
        release_all(self.subject, &mut self.board);
    }
}

fn release_all<S: Subject>(subject: &S, pieces: &mut Vec<Piece>) {
    for piece in pieces.drain(..) {
        // SAFETY: allocated from this subject; no other code uses its memory.
        unsafe { subject.release(piece) };
    }
}
