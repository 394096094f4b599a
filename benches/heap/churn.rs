//! Blocks that come and go at random.

use crate::{sizes::Mix, subject::Subject};
use hostmem_bench::{clock::CpuTime, lane::Lane, random::Random};
use std::{alloc::Layout, ptr::NonNull, time::Duration};

/// What every block is aligned to, as `malloc` does by itself.
const ALIGN: usize = 16;

struct Block {
    start: NonNull<u8>,
    size: u32,
}

/// So many live blocks of a subject; a step frees one of them and allocates another.
pub struct Churn<S: Subject> {
    subject: S,
    mix: Mix,
    random: Random,
    live: Vec<Block>,
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, ALIGN).expect("sizes are small")
}

impl<S: Subject> Churn<S> {
    /// Allocates the live blocks.
    pub fn new(subject: S, mix: Mix, count: usize, seed: u64) -> Self {
        let mut churn = Self {
            subject,
            mix,
            random: Random::new(seed),
            live: Vec::with_capacity(count),
        };
        for _ in 0..count {
            let block = churn.alloc();
            churn.live.push(block);
        }
        churn
    }

    /// Allocates a block and writes its beginning, as everybody does.
    #[inline]
    fn alloc(&mut self) -> Block {
        let size = self.mix.draw(&mut self.random);
        let start = self.subject.alloc(layout(size));
        // SAFETY: a live block of eight bytes or more, aligned to sixteen.
        unsafe { start.cast::<u64>().write(size as u64) };
        let size = u32::try_from(size).expect("sizes are small");
        Block { start, size }
    }
}

impl<S: Subject> Lane for Churn<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    #[inline(never)]
    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            let at = self.random.below(self.live.len());
            let Block { start, size } = self.live[at];
            // SAFETY: a live block, which is replaced below.
            unsafe { self.subject.free(start, layout(size as usize)) };
            self.live[at] = self.alloc();
        }
        start.elapsed()
    }
}

impl<S: Subject> Drop for Churn<S> {
    fn drop(&mut self) {
        for Block { start, size } in self.live.drain(..) {
            // SAFETY: a live block, used no more.
            unsafe { self.subject.free(start, layout(size as usize)) };
        }
    }
}
