//! Operations as data, and the one function that runs them against the oracle.

use super::{
    JitProvider, adapted,
    model::{Model, cause},
};
use crate::SplitMix64;
use alloc::vec::Vec;
use hostmem_core::{
    jit::{JitAllocator, JitConfig, JitError, Reset},
    page::AddressRange,
    provider::{Capabilities, ErrorKind, Place, Placement},
};

/// An operation. Numbers that choose a live span or a byte of one are taken modulo what there is,
/// so that every sequence means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Allocates that many bytes and fills them.
    Alloc(usize),
    /// Allocates where it is told to.
    AllocWith {
        /// How much.
        size: usize,
        /// The alignment, as a power of two modulo 22.
        align: usize,
        /// One of several places around a live span.
        place: usize,
    },
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
    /// Fills a span in place, and keeps so much of it, modulo one and a half of its length; all of
    /// it without a word if that is a multiple of four.
    WriteWith {
        /// Which span.
        span: usize,
        /// How much stays.
        keep: usize,
    },
    /// Writes to some spans in one batch, to 90 at most.
    Batch {
        /// The first span.
        span: usize,
        /// How many.
        count: usize,
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
    /// Releases everything at once.
    Reset {
        /// Whether all blocks go too.
        hard: bool,
    },
    /// Gives unused pages back.
    Decommit,
    /// Compares the contents of all spans, and all blocks with the statistics.
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
    let any = random.next_usize();
    let most = [64, 1000, 5000][random.below(3)];
    match random.below(1000) {
        0..280 => Op::Alloc(random.between(1, most)),
        280..300 => Op::Alloc(random.between(1, 200_000)),
        300..330 => Op::AllocWith {
            size: random.between(1, most),
            align: random.below(14),
            place: any,
        },
        330..335 => Op::AllocWith {
            size: random.between(1, 20_000),
            align: any,
            place: random.next_usize(),
        },
        335..470 => Op::Write {
            span,
            offset: any,
            len: random.next_usize(),
        },
        470..530 => Op::WriteWith { span, keep: any },
        530..540 => Op::Batch { span, count: any },
        540..610 => Op::Shrink { span, len: any },
        610..880 => Op::Release(span),
        880..930 => Op::Query { span, offset: any },
        930..983 => Op::QueryAny(any),
        983..990 => Op::Decommit,
        990..992 => Op::Reset {
            hard: any.is_multiple_of(2),
        },
        _ => Op::CheckAll,
    }
}

/// Runs `ops` on an allocator of code and metadata from `provider`, against an oracle: no overlap,
/// alignment, placement, contents intact in both views, unused memory as the configuration fills
/// it, queries, statistics and blocks exact. `what` names the run.
///
/// An allocation may fail for want of memory or at the limit, and must then have changed nothing.
///
/// # Panics
///
/// On a violation, and where `provider` cannot give the least that an allocator needs.
pub fn check<P: JitProvider>(provider: P, config: JitConfig, ops: &[Op], what: &str) {
    let jit = JitAllocator::on(provider, provider, adapted(provider, config));
    let jit: JitAllocator<P> = jit.unwrap_or_else(|e| panic!("{what}: no allocator: {e}"));
    let mut model = Model::new(jit);
    let able = provider.capabilities();
    for (n, &op) in ops.iter().enumerate() {
        step(&mut model, able, op, n as u64);
    }
    model.expect_all_intact();
    model.expect_blocks();
    model.release_all();
    model.expect_blocks();
    let left = model.jit.statistics();
    assert!(
        left.blocks <= model.most_empty(),
        "{what}: too many empty blocks are kept: {left:?}"
    );
    assert_eq!((left.spans, left.used), (0, 0), "{what}: nothing is live");
}

fn step<P: JitProvider>(model: &mut Model<P>, able: Capabilities, op: Op, seed: u64) {
    let count = model.live.len();
    match op {
        Op::Alloc(size) => match model.alloc(size, seed ^ 0x9e37_79b9_7f4a_7c15) {
            Ok(()) => {}
            Err(e) => assert!(is_for_want(model, size, e), "alloc({size}): {e}"),
        },
        Op::AllocWith { size, align, place } => {
            let placement = placement(model, size, align, place);
            match model.alloc_with(size, placement, seed) {
                Ok(()) => {}
                Err(JitError::InvalidPlacement) => assert!(
                    matches!(placement.place, Place::Exact(_)),
                    "{placement:?} is a valid one"
                ),
                Err(e) => assert!(
                    is_for_want(model, size, e),
                    "{size} bytes, {placement:?}: {e}"
                ),
            }
        }
        Op::QueryAny(addr) => model.expect_query(addr),
        Op::Reset { hard } => model.reset(if hard { Reset::Hard } else { Reset::Soft }),
        Op::Decommit => model.decommit(able),
        Op::CheckAll => {
            model.expect_all_intact();
            model.expect_blocks();
        }
        _ if count == 0 => {}
        Op::Write { span, offset, len } => {
            let span = span % count;
            let most = model.live[span].len() + 1;
            model.write(span, offset % most, len % most, seed);
        }
        Op::WriteWith { span, keep } => {
            let span = span % count;
            let most = model.live[span].len() * 3 / 2;
            let keep = (!keep.is_multiple_of(4)).then_some(keep % most);
            model.write_with(span, keep, seed);
        }
        Op::Batch { span, count: some } => model.batch(span % count, some % 90 + 1, seed),
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

/// Says whether an allocation may fail so: for want of memory, of addresses, at the limit, or for a
/// size that no host has.
fn is_for_want<P: JitProvider>(model: &Model<P>, size: usize, error: JitError) -> bool {
    let limited = model.jit.config().limit_bytes() != usize::MAX;
    if size == 0 || size > isize::MAX.unsigned_abs() / 4 {
        return error == JitError::InvalidSize;
    }
    matches!(
        cause(error),
        Some(ErrorKind::Exhausted | ErrorKind::OutsideRange)
    ) || (limited && error == JitError::Limit)
}

/// Makes a placement around a live span, if there is one: most can be had, some cannot.
fn placement<P: JitProvider>(
    model: &Model<P>,
    size: usize,
    align: usize,
    place: usize,
) -> Placement {
    let count = model.live.len().max(1);
    let anchor = model
        .live
        .get(place / 8 % count)
        .map_or(1 << 30, |l| l.rx());
    let placement = match place % 8 {
        0 | 1 => Placement::ANYWHERE,
        2 => Placement::near(anchor, 1 << 30),
        3 => Placement::near(anchor, 100_000),
        // What is free close by, or nothing.
        4 | 5 => Placement::within(AddressRange::around(anchor, size.saturating_mul(2))),
        6 => Placement::within(AddressRange::around(0, 1000)),
        _ => Placement {
            place: Place::Exact(anchor),
            ..Placement::ANYWHERE
        },
    };
    Placement {
        align: 1 << (align % 22),
        ..placement
    }
}
