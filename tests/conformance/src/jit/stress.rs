//! The peer's stress test: fill and free in several orders, with patterns checked all along.

use super::{JitProvider, adapted, model::Model};
use crate::SplitMix64;
use alloc::collections::VecDeque;
use hostmem_core::jit::{JitAllocator, JitConfig, JitError};

/// Runs the phases with `count` spans each, from `seed`. `what` names the run.
///
/// - fill with random sizes, free first in, first out;
/// - fill, shuffle, free half, refill, free last in, first out;
/// - half as many spans of 256 bytes, each shrunk to one byte, then as many of 64 bytes; free first
///   in, first out;
/// - fill with 256 bytes, shuffle, free half, refill, free last in, first out.
///
/// # Panics
///
/// On a violation, and where `provider` cannot give enough memory. At the limit of the
/// configuration a phase goes on with the spans that there are.
pub fn stress<P: JitProvider>(provider: P, config: JitConfig, count: usize, seed: u64, what: &str) {
    let jit = JitAllocator::on(provider, provider, adapted(provider, config));
    let jit: JitAllocator<P> = jit.unwrap_or_else(|e| panic!("{what}: no allocator: {e}"));
    let mut run = Run {
        model: Model::new(jit),
        random: SplitMix64::new(seed),
        seed,
    };
    run.fill(count, None);
    run.free_first_in_first_out();
    run.fill(count, None);
    run.free_half();
    run.fill(count / 2, None);
    run.free_last_in_first_out();
    run.fill(count / 2, Some(256));
    for n in 0..run.model.live.len() {
        run.model.shrink(n, 1);
    }
    run.fill(count / 2, Some(64));
    run.free_first_in_first_out();
    run.fill(count, Some(256));
    run.free_half();
    run.fill(count / 2, Some(256));
    run.free_last_in_first_out();
}

struct Run<P: JitProvider> {
    model: Model<P>,
    random: SplitMix64,
    seed: u64,
}

impl<P: JitProvider> Run<P> {
    fn fill(&mut self, count: usize, size: Option<usize>) {
        for _ in 0..count {
            let size = size.unwrap_or_else(|| self.random.below(1024) + 8);
            match self.model.alloc(size, self.random.next_u64()) {
                Ok(()) => {}
                Err(JitError::Limit) if self.model.jit.config().limit_bytes() != usize::MAX => {
                    break;
                }
                Err(e) => panic!("seed {:#x}: alloc({size}): {e}", self.seed),
            }
        }
    }

    fn free_half(&mut self) {
        self.random.shuffle(&mut self.model.live);
        self.model.expect_all_intact();
        self.model.expect_blocks();
        for _ in 0..self.model.live.len() / 2 {
            self.free_last();
        }
    }

    fn free_last(&mut self) {
        if let Some(last) = self.model.live.pop() {
            self.model.release_taken(last);
        }
    }

    fn free_last_in_first_out(&mut self) {
        while !self.model.live.is_empty() {
            self.free_last();
        }
        self.expect_empty();
    }

    fn free_first_in_first_out(&mut self) {
        let mut queue: VecDeque<_> = core::mem::take(&mut self.model.live).into();
        while let Some(first) = queue.pop_front() {
            self.model.release_taken(first);
        }
        self.expect_empty();
    }

    fn expect_empty(&self) {
        let left = self.model.jit.statistics();
        assert_eq!(
            (left.spans, left.used),
            (0, 0),
            "seed {:#x}: nothing is live",
            self.seed
        );
        self.model.expect_blocks();
        assert!(
            left.blocks <= self.model.most_empty(),
            "seed {:#x}: empty blocks are kept: {left:?}",
            self.seed
        );
    }
}
