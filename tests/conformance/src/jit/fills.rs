//! What unused memory reads as.

use super::{live::first_unlike, make, model::Model, need_jit, unable};
use crate::Outcome;
use hostmem_core::{
    arch,
    jit::{Fill, JitConfig, Mapping, Reset},
    provider::Provider,
};

/// Yields configurations with a pattern: of all kinds of mappings, granules and blocks.
fn filled() -> impl Iterator<Item = JitConfig> {
    let fills = [Fill::Trap, Fill::Pattern(0x0bad_f00d)];
    let shapes = [
        JitConfig::new(),
        JitConfig::new().granularity(16).padding(false),
        JitConfig::new().granularity(4096).pools(3),
        JitConfig::new().pools(3).immediate_release(true),
    ];
    let mappings = [Mapping::Dual, Mapping::Toggle, super::configs::RWX];
    let shaped = shapes.into_iter().flat_map(move |shape| {
        let shape = shape.block_size(64 << 10, 256 << 10);
        fills.map(|fill| shape.fill(fill))
    });
    shaped.flat_map(move |shape| mappings.map(|mapping| shape.mapping(mapping)))
}

pub(super) fn unused_memory_reads_as_the_pattern<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for config in filled().filter(|config| unable(p, config).is_none()) {
        let mut model = Model::new(make(p, config).expect("an allocator can be made"));
        // New blocks, of all pools and larger than usual.
        for granules in [1, 2, 4, 7, 33] {
            model
                .alloc(granules * config.granularity_bytes(), granules as u64)
                .expect("spans can be had");
            model.expect_blocks();
        }
        model.alloc(700_000, 1).expect("a span of its own block");
        model.expect_blocks();
        for seed in 0..150 {
            model
                .alloc(3 * config.granularity_bytes() + 1, seed)
                .expect("spans can be had");
        }
        // Releases and shrinks, each of which is looked at by itself.
        for n in 0..60 {
            model.release(n);
            model.shrink(n, 1);
            model.write_with(n + 1, Some(config.granularity_bytes()), 5);
        }
        model.batch(0, 70, 6);
        model.expect_blocks();
        model.expect_all_intact();
        model.reset(Reset::Soft);
        model.alloc(1, 9).expect("spans can be had");
        model.expect_blocks();
        model.release_all();
        model.expect_blocks();
    }
    Outcome::Passed
}

pub(super) fn padding_reads_as_the_pattern_too<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for pools in 1..=3 {
        let config = JitConfig::new().fill(Fill::Trap).pools(pools);
        let jit = make(p, config).expect("an allocator can be made");
        let span = jit.alloc(64 << (pools - 1)).expect("a span can be had");
        let block = jit.blocks().next().expect("it lies in a block");
        let padding = span.rx().addr().get() - block.rx.addr();
        assert_eq!(padding, block.granularity, "the first granule is padding");
        for view in [block.rx, block.rw] {
            // SAFETY: the views are readable, and no other code writes to the padding.
            let wrong = unsafe { first_unlike(view.start(), padding, arch::TRAP) };
            assert_eq!(wrong, None, "the padding of {block:?} is not filled");
        }
        jit.release(span).expect("an owned span is taken back");
    }
    Outcome::Passed
}

pub(super) fn without_a_pattern_nothing_is_written<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let mut model = Model::new(make(p, JitConfig::new()).expect("an allocator can be made"));
    model.alloc(64, 1).expect("a small span can be had");
    model
        .alloc(512, 0x1111_1111_1111_1111)
        .expect("a small span can be had");
    let info = model.live[1].info();
    model.release(1);
    // SAFETY: the block is mapped as long as its first span lives, and no other code writes there.
    let wrong = unsafe { first_unlike(info.rx, info.len, 0x1111_1111) };
    assert_eq!(wrong, None, "what was there stays");
    model.release_all();
    Outcome::Passed
}
