//! Code that is allocated, written and published, beside memory that is allocated and written.
//!
//! Both in memory where no code was before, so that neither needs a system call, and whose pages
//! are there, so that neither waits for the kernel.

use crate::ours::{BATCH, Ours};
use hostmem::jit::JitError;
use hostmem_bench::{
    clock::CpuTime,
    lane::Lane,
    subject::{Piece, Subject},
};
use std::time::Duration;

/// The code: it is never executed.
static CODE: [u8; 128] = [0xcc; 128];

/// Room for what one allocator is asked for, as often as that.
const FIRST_BLOCK: usize = 4 << 20;

/// Pieces from one allocator, a multiple of [`BATCH`].
const PIECES: usize = 8192;

/// How code gets into memory.
#[derive(Clone, Copy)]
pub enum How {
    /// `alloc` and `write`, piece by piece.
    Single,
    /// `alloc` and a copy through the writable view, piece by piece.
    SingleCopy,
    /// As `Single`, by batches.
    Batch,
    /// As `SingleCopy`, by batches.
    BatchCopy,
}

/// Writes code into memory that never held code.
pub struct Fresh {
    how: How,
}

impl Fresh {
    pub const fn new(how: How) -> Self {
        Self { how }
    }
}

impl Lane for Fresh {
    fn name(&self) -> &'static str {
        match self.how {
            How::Single | How::Batch => "alloc+write",
            How::SingleCopy | How::BatchCopy => "alloc+memcpy",
        }
    }

    /// Times `steps` pieces in an allocator of their own.
    fn run(&mut self, steps: usize) -> Duration {
        let ours = populated(steps).expect("hostmem has no memory");
        let mut pieces = Vec::with_capacity(steps + BATCH);
        let took = write(&ours, self.how, steps, &mut pieces);
        release_all(&ours, pieces);
        took
    }

    fn batch(&self) -> Option<usize> {
        Some(PIECES)
    }
}

/// Writes code into memory that held code before, again and again.
pub struct Reused {
    how: How,
    ours: Ours,
}

impl Reused {
    /// Makes an allocator.
    ///
    /// # Errors
    ///
    /// Where the host gives no memory.
    pub fn new(how: How) -> Result<Self, JitError> {
        let ours = populated(PIECES)?;
        Ok(Self { how, ours })
    }
}

impl Lane for Reused {
    fn name(&self) -> &'static str {
        Fresh::new(self.how).name()
    }

    fn run(&mut self, steps: usize) -> Duration {
        let mut pieces = Vec::with_capacity(steps + BATCH);
        let took = write(&self.ours, self.how, steps, &mut pieces);
        release_all(&self.ours, pieces);
        took
    }

    fn batch(&self) -> Option<usize> {
        Some(PIECES)
    }
}

/// Makes an allocator whose pages were written, but not published, for `count` pieces.
fn populated(count: usize) -> Result<Ours, JitError> {
    let ours = Ours::with_first_block(FIRST_BLOCK)?;
    let pieces = (0..count).map(|_| ours.alloc_and_copy(&CODE));
    release_all(&ours, pieces.collect());
    Ok(ours)
}

fn write(ours: &Ours, how: How, count: usize, pieces: &mut Vec<Piece>) -> Duration {
    let start = CpuTime::now();
    while pieces.len() < count {
        match how {
            How::Single => pieces.push(ours.alloc_and_write(&CODE)),
            How::SingleCopy => pieces.push(ours.alloc_and_copy(&CODE)),
            How::Batch => ours.alloc_and_write_batch(&CODE, pieces),
            How::BatchCopy => ours.alloc_and_copy_batch(&CODE, pieces),
        }
    }
    start.elapsed()
}

fn release_all(ours: &Ours, pieces: Vec<Piece>) {
    for piece in pieces {
        // SAFETY: allocated from ours; no other code uses its memory.
        unsafe { ours.release(piece) };
    }
}
