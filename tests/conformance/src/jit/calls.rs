//! Single calls.

use super::{make, model::Model, need_jit};
use crate::{Outcome, SplitMix64, code};
use alloc::vec::Vec;
use hostmem_core::{jit::JitConfig, provider::Provider};

pub(super) const GRANULE: usize = 64;

/// Makes an allocator with four spans of four granules, the second of them released, and returns
/// the address of that one.
pub(super) fn with_spans<P: Provider + Copy>(p: P) -> (Model<P>, usize) {
    let jit = make(p, JitConfig::new().granularity(GRANULE));
    let mut model = Model::new(jit.expect("an allocator can be made"));
    for seed in 1..=4 {
        model
            .alloc(4 * GRANULE, seed)
            .expect("a small span can be had");
    }
    let freed = model.live[1].rx();
    model.release(1);
    (model, freed)
}

pub(super) fn queries_find_whole_spans_and_nothing_else<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let empty = make(p, JitConfig::new()).expect("an allocator can be made");
    assert_eq!(empty.query(0), None, "an empty allocator knows no address");
    let (mut model, freed) = with_spans(p);
    model.shrink(0, GRANULE + 1);
    let around = freed.saturating_sub(8 * GRANULE)..freed + 32 * GRANULE;
    around.for_each(|addr| model.expect_query(addr));
    model
        .alloc(3 << 20, 5)
        .expect("a span of its own block can be had");
    let large = model.live.last().expect("just allocated");
    let (start, end) = (large.rx(), large.rx() + large.len());
    for addr in [
        start - 1,
        start,
        start + 1,
        (start + end) / 2,
        end - 1,
        end,
        end + 1,
    ] {
        model.expect_query(addr);
    }
    let local = 0_u8;
    for addr in [0, 1, usize::MAX, (&raw const local).addr()] {
        model.expect_query(addr);
    }
    for live in &model.live {
        model.expect_query(live.span.rw().addr().get());
    }
    let mut random = SplitMix64::new(0x0e51);
    for _ in 0..10_000 {
        model.expect_query(random.next_usize());
        model.expect_query(freed.wrapping_add(random.below(4 << 20)));
    }
    Outcome::Passed
}

pub(super) fn shrinking_returns_the_tail<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (mut model, _) = with_spans(p);
    model.alloc(64 * GRANULE, 9).expect("a span can be had");
    let at = model.live.len() - 1;
    let rx = model.live[at].rx();
    let before = model.jit.statistics();
    for len in [
        64 * GRANULE,
        64 * GRANULE - 1,
        63 * GRANULE,
        32 * GRANULE,
        GRANULE + 1,
        2,
        1,
    ] {
        model.shrink(at, len);
        assert_eq!(model.live[at].rx(), rx, "a span shrinks in place");
    }
    assert_eq!(
        before.used - model.jit.statistics().used,
        63 * GRANULE,
        "the tail came back"
    );
    // It is the lowest run that holds this many granules, so it must be given out again.
    model.alloc(50 * GRANULE, 10).expect("a span can be had");
    assert_eq!(
        model.live[at + 1].rx(),
        rx + GRANULE,
        "the tail serves again"
    );
    model.expect_all_intact();
    model.release_all();
    Outcome::Passed
}

pub(super) fn written_code_runs<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let jit = make(p, JitConfig::new()).expect("an allocator can be made");
    let mut spans = Vec::new();
    for round in 0..3_u16 {
        for n in 0..200_u16 {
            let value = n + 1000 * round;
            let Some(function) = code::returning(value) else {
                return Outcome::Skipped("no code is known for this CPU");
            };
            let mut span = jit
                .alloc(function.bytes().len())
                .expect("a small span can be had");
            jit.write(&mut span, 0, function.bytes())
                .expect("it can be written");
            spans.push((span, value));
        }
        for (span, value) in &spans {
            // SAFETY: the allocator published the code of `returning` at the start of the span.
            let returned = unsafe { code::call(span.rx()) };
            assert_eq!(
                returned,
                u32::from(*value),
                "round {round}: each span runs its own code"
            );
        }
        // Half goes, so that the next round reuses memory that was executed.
        for (span, _) in spans.drain(..100) {
            jit.release(span).expect("an owned span is taken back");
        }
    }
    let (mut span, _) = spans.pop().expect("spans are left");
    for value in [7, 8, 9] {
        let function = code::returning(value).expect("known above");
        jit.write(&mut span, 0, function.bytes())
            .expect("code can be replaced");
        // SAFETY: the allocator published the code of `returning` at the start of the span.
        let returned = unsafe { code::call(span.rx()) };
        assert_eq!(returned, u32::from(value), "the newest code runs");
    }
    Outcome::Passed
}
