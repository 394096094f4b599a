//! Starting over.

use super::{JitProvider, adapted, configurations, make, model::Model, need_jit, unable};
use crate::{Outcome, SplitMix64};
use alloc::vec::Vec;
use hostmem_core::{
    counted::{Counted, Limits},
    jit::{JitAllocator, JitConfig, JitStatistics, Reset},
    provider::Provider,
};

/// Allocates and releases by `seed`; returns where each span was put in its block, and what the
/// statistics were.
fn script<P: JitProvider>(model: &mut Model<P>, seed: u64) -> Vec<(usize, usize, JitStatistics)> {
    let mut random = SplitMix64::new(seed);
    let mut trace = Vec::new();
    for step in 0..150 {
        if random.below(3) > 0 || model.live.is_empty() {
            if model.alloc(random.between(1, 3000), step).is_err() {
                continue; // At the limit.
            }
        } else {
            model.release(random.below(model.live.len()));
        }
        let last = model.live.last();
        let (place, len) = last.map_or((0, 0), |live| {
            let block = model.block_at(live.span.rx());
            let start = block.expect("a span lies in a block").rx.addr();
            (live.rx() - start, live.len())
        });
        let mut statistics = model.jit.statistics();
        statistics.metadata = 0; // What was committed stays.
        trace.push((place, len, statistics));
    }
    trace
}

pub(super) fn a_reset_allocator_behaves_as_a_new_one<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for setup in configurations() {
        if unable(p, &setup.config).is_some() {
            continue;
        }
        let fresh = || Model::new(make(p, setup.config).expect("an allocator can be made"));
        let expected = script(&mut fresh(), 7);
        for how in [Reset::Hard, Reset::Soft] {
            let mut model = fresh();
            for seed in 1..3 {
                script(&mut model, seed);
                model.reset(how);
            }
            let mut found = script(&mut model, 7);
            let mut expected = expected.clone();
            if how == Reset::Soft && setup.config.pool_count() > 1 {
                // A block of a pool that is not needed yet may be kept, and counts.
                let uncounted = |trace: &mut [(usize, usize, JitStatistics)]| {
                    for (_, _, statistics) in trace {
                        (statistics.blocks, statistics.reserved) = (0, 0);
                    }
                };
                uncounted(&mut found);
                uncounted(&mut expected);
            }
            let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
            assert!(
                found == expected,
                "{}: {how:?} leaves a trace: step {differs:?}: {:?} instead of {:?}",
                setup.name,
                differs.map(|n| found[n]),
                differs.map(|n| expected[n]),
            );
            model.expect_blocks();
            model.release_all();
        }
    }
    Outcome::Passed
}

pub(super) fn a_hard_reset_unmaps_and_a_soft_one_keeps_a_block<P: Provider + Copy>(
    p: P,
) -> Outcome {
    need_jit!(p);
    for immediate in [false, true] {
        let code = Counted::<P>::new(p, "code", Limits::NONE).expect("a small arena");
        let config = adapted(p, JitConfig::new().immediate_release(immediate));
        let jit = JitAllocator::<_, P>::on(&code, p, config);
        let mut model = Model::new(jit.expect("an allocator can be made"));
        for how in [Reset::Soft, Reset::Hard, Reset::Soft] {
            for seed in 0..500 {
                model.alloc(1000, seed).expect("small spans can be had");
            }
            model.reset(how);
            let left = model.jit.statistics();
            let kept = usize::from(how == Reset::Soft && !immediate);
            assert_eq!(left.blocks, kept, "{how:?}: {left:?}");
            assert_eq!(
                code.counters().dual.now,
                left.reserved,
                "the others are unmapped"
            );
            let again = model.jit.statistics();
            model.reset(how);
            assert_eq!(
                model.jit.statistics(),
                again,
                "a second {how:?} reset has nothing to do"
            );
        }
        drop(model);
        assert_eq!(
            code.counters().dual.now,
            0,
            "a dropped allocator keeps nothing"
        );
    }
    Outcome::Passed
}

pub(super) fn a_reset_does_not_end_the_keeping_of_blocks<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for how in [Reset::Soft, Reset::Hard] {
        let code = Counted::<P>::new(p, "code", Limits::NONE).expect("a small arena");
        let jit = JitAllocator::<_, P>::on(&code, p, adapted(p, JitConfig::new()));
        let jit = jit.expect("an allocator can be made");
        for _ in 0..3 {
            let _lost = jit.alloc(100).expect("a small span can be had");
            // SAFETY: no other code uses the span, and no other call is under way.
            unsafe { jit.reset(how) };
            super::retention::come_and_go(&jit);
            let calls = code.calls();
            (0..50).for_each(|_| super::retention::come_and_go(&jit));
            assert_eq!(code.calls(), calls, "after {how:?}: a block is kept again");
        }
    }
    Outcome::Passed
}
