//! The limit of the configuration, and holes when there are no more blocks to be had.

use super::{make, model::Model, need_jit};
use crate::{Outcome, SplitMix64};
use hostmem_core::{
    jit::{JitConfig, JitError},
    provider::{Placement, Provider},
};

pub(super) fn the_limit_is_a_typed_error<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    const LIMIT: usize = 300 << 10;
    for pools in [1, 3] {
        let config = JitConfig::new().limit(LIMIT).pools(pools);
        let mut model = Model::new(make(p, config).expect("an allocator can be made"));
        let mut random = SplitMix64::new(0x11a1);
        let mut refusals = 0;
        for step in 0..4000 {
            let size = random.between(1, 4000);
            match model.alloc(size, step) {
                Ok(()) => {}
                Err(JitError::Limit) => {
                    refusals += 1;
                    let placed = model.alloc_with(200_000, Placement::ANYWHERE, 1);
                    assert_eq!(placed, Err(JitError::Limit), "wherever it would go");
                    model.expect_all_intact();
                    for _ in 0..model.live.len() / 2 {
                        model.release(random.below(model.live.len()));
                    }
                }
                Err(other) => panic!("{size} bytes: {other}"),
            }
            let found = model.jit.statistics();
            assert!(found.reserved <= LIMIT, "more than the limit: {found:?}");
        }
        assert!(refusals > 3, "the limit was met {refusals} times");
        model.expect_blocks();
        model.release_all();
        let too_large = model.alloc(LIMIT + 1, 1);
        assert_eq!(too_large, Err(JitError::Limit), "no block may be so large");
        model
            .alloc(100_000, 1)
            .expect("below the limit there is room");
    }
    Outcome::Passed
}

pub(super) fn a_limit_below_a_block_makes_small_blocks<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let page = p.page_size().bytes();
    let jit = make(p, JitConfig::new().limit(page)).expect("an allocator can be made");
    let span = jit.alloc(100).expect("one page is allowed");
    assert_eq!(jit.statistics().reserved, page, "and no more is taken");
    assert!(
        matches!(jit.alloc(page), Err(JitError::Limit)),
        "two are not"
    );
    jit.release(span).expect("an owned span is taken back");
    let nothing = make(p, JitConfig::new().limit(page - 1)).expect("an allocator can be made");
    let before = nothing.statistics();
    assert!(
        matches!(nothing.alloc(1), Err(JitError::Limit)),
        "less than a page is nothing"
    );
    assert_eq!(
        nothing.statistics(),
        before,
        "a refused call changed something"
    );
    Outcome::Passed
}

/// Makes an allocator whose one block of 64 KiB has 40 holes of 17 granules and behind them one
/// that `last` granules in a row make, released as two spans; nothing else.
fn with_holes<P: Provider + Copy>(p: P, config: JitConfig, short: usize, last: usize) -> Model<P> {
    const GRANULE: usize = 64;
    let mut model = Model::new(make(p, config).expect("an allocator can be made"));
    let mut holes = alloc::vec::Vec::new();
    let mut take = |model: &mut Model<P>, granules: usize, freed: bool| {
        model
            .alloc(granules * GRANULE, 1)
            .expect("there is room in the block");
        if freed {
            holes.push(model.live.last().expect("just allocated").rx());
        }
    };
    for _ in 0..40 {
        take(&mut model, short, true);
        take(&mut model, 1, false);
    }
    take(&mut model, last / 2, true);
    take(&mut model, last - last / 2, true);
    // The rest of the block is one span more.
    let block = model.jit.blocks().next().expect("there is one");
    let rest = block.rx.len_bytes() - block.used - GRANULE;
    take(&mut model, rest / GRANULE, false);
    assert_eq!(
        model.jit.statistics().blocks,
        1,
        "all of it fits in a block"
    );
    for rx in holes {
        let n = model.live.iter().position(|l| l.rx() == rx);
        model.release(n.expect("it is live"));
    }
    model
}

pub(super) fn every_hole_serves_at_the_limit<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    // Lengths of a class that the request has too: only a look at each tells which is long enough.
    let config = JitConfig::new().block_size(1 << 20, 1 << 20).limit(1 << 20);
    let mut model = with_holes(p, config, 130, 159);
    model
        .alloc(150 * 64, 2)
        .expect("the last hole is long enough, and there is no other block");
    model.expect_all_intact();
    model.expect_blocks();
    Outcome::Passed
}

pub(super) fn released_neighbours_serve_before_a_new_block<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new().block_size(1 << 20, 1 << 20);
    // Short enough to be put aside for requests of their own lengths.
    let mut model = with_holes(p, config, 130, 250);
    model.alloc(150 * 64, 2).expect("a span can be had");
    assert_eq!(
        model.jit.statistics().blocks,
        1,
        "together they are long enough, so no block is mapped"
    );
    Outcome::Passed
}
