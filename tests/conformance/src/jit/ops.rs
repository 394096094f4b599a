//! Operations as data, and the one function that runs them against the oracle.

use super::{
    JitProvider, adapted,
    model::{Model, cause},
};
use crate::SplitMix64;
use alloc::vec::Vec;
use hostmem_core::{
    jit::{JitAllocator, JitConfig},
    provider::ErrorKind,
};

/// An operation. Numbers that choose a live span or a byte of one are taken modulo what there is,
/// so that every sequence means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Allocates so many bytes and fills them.
    Alloc(usize),
    /// Writes `len` bytes at `offset` of a span; both are taken modulo one more than its length, so
    /// that some leave it.
    Write {
        /// Which span.
        span: usize,
        /// Where in it.
        offset: usize,
        /// How much.
        len: usize,
    },
    /// Shrinks a span to a length modulo one and a half of its own.
    Shrink {
        /// Which span.
        span: usize,
        /// To how much.
        len: usize,
    },
    /// Releases a span.
    Release(usize),
    /// Queries a byte of a span.
    Query {
        /// Which span.
        span: usize,
        /// Which byte.
        offset: usize,
    },
    /// Queries any address.
    QueryAny(usize),
    /// Compares the contents of all spans.
    CheckAll,
}

/// Makes `count` operations from `seed`, with sizes from one byte to a few blocks.
#[must_use]
pub fn random_ops(seed: u64, count: usize) -> Vec<Op> {
    let mut random = SplitMix64::new(seed);
    (0..count).map(|_| random_op(&mut random)).collect()
}

fn random_op(random: &mut SplitMix64) -> Op {
    let span = random.next_usize();
    let most = [64, 1000, 5000][random.below(3)];
    match random.below(100) {
        0..30 => Op::Alloc(random.between(1, most)),
        30..32 => Op::Alloc(random.between(1, 200_000)),
        32..50 => Op::Write {
            span,
            offset: random.next_usize(),
            len: random.next_usize(),
        },
        50..60 => Op::Shrink {
            span,
            len: random.next_usize(),
        },
        60..88 => Op::Release(span),
        88..94 => Op::Query {
            span,
            offset: random.next_usize(),
        },
        94..99 => Op::QueryAny(random.next_usize()),
        _ => Op::CheckAll,
    }
}

/// Runs `ops` on an allocator of code and metadata from `provider`, against an oracle: no overlap,
/// alignment, contents intact in both views, queries and statistics exact. `what` names the run.
///
/// An allocation may fail for want of memory, and must then have changed nothing.
///
/// # Panics
///
/// On a violation, and where `provider` cannot give the least that an allocator needs.
pub fn check<P: JitProvider>(provider: P, config: JitConfig, ops: &[Op], what: &str) {
    let jit = JitAllocator::new(provider, provider, adapted(provider, config));
    let jit: JitAllocator<P> = jit.unwrap_or_else(|e| panic!("{what}: no allocator: {e}"));
    let mut model = Model::new(jit);
    for (n, &op) in ops.iter().enumerate() {
        step(&mut model, op, n as u64);
    }
    model.expect_all_intact();
    model.release_all();
    let left = model.jit.statistics();
    assert!(
        left.blocks <= 1,
        "{what}: more than one empty block is kept: {left:?}"
    );
    assert_eq!((left.spans, left.used), (0, 0), "{what}: nothing is live");
}

fn step<P: JitProvider>(model: &mut Model<P>, op: Op, seed: u64) {
    let count = model.live.len();
    match op {
        Op::Alloc(size) => match model.alloc(size, seed ^ 0x9e37_79b9_7f4a_7c15) {
            Ok(()) => {}
            Err(e) => assert_eq!(cause(e), Some(ErrorKind::Exhausted), "alloc({size}): {e}"),
        },
        Op::QueryAny(addr) => model.expect_query(addr),
        Op::CheckAll => model.expect_all_intact(),
        _ if count == 0 => {}
        Op::Write { span, offset, len } => {
            let span = span % count;
            let most = model.live[span].len() + 1;
            model.write(span, offset % most, len % most, seed);
        }
        Op::Shrink { span, len } => {
            let span = span % count;
            let most = model.live[span].len() * 3 / 2;
            model.shrink(span, len % most);
        }
        Op::Release(span) => model.release(span % count),
        Op::Query { span, offset } => {
            let live = &model.live[span % count];
            model.expect_query(live.rx() + offset % live.len());
        }
    }
}
