//! Empty blocks: which are kept, and how many.

use super::{JitProvider, adapted, make, need_jit};
use crate::Outcome;
use alloc::vec::Vec;
use hostmem_core::{
    counted::{Counted, Limits},
    jit::{JitAllocator, JitConfig, JitError, JitStatistics, Reset, Span},
    provider::Provider,
};

/// Spans that several small blocks are needed for.
const MANY: usize = 3000;

/// Allocates `count` spans, or as many as the limit of the configuration allows.
fn fill<P: JitProvider>(jit: &JitAllocator<P>, count: usize, what: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for n in 0..count {
        match jit.alloc(8 + n % 500) {
            Ok(span) => spans.push(span),
            Err(JitError::Limit) if jit.config().limit_bytes() != usize::MAX => break,
            Err(e) => panic!("{what}: span {n}: {e}"),
        }
    }
    spans
}

fn release_last_first<P: JitProvider>(jit: &JitAllocator<P>, mut spans: Vec<Span>) {
    while let Some(span) = spans.pop() {
        jit.release(span).expect("an owned span is taken back");
    }
}

/// Asserts that nothing is live, and that each granularity has at most one empty block, none with
/// immediate release.
#[track_caller]
fn expect_empty<P: JitProvider>(jit: &JitAllocator<P>, what: &str) {
    let left = jit.statistics();
    assert_eq!((left.spans, left.used), (0, 0), "{what}: nothing is live");
    let config = jit.config();
    let mut most = usize::from(!config.releases_immediately());
    for pool in 0..config.pool_count() {
        let granule = config.granularity_bytes() << pool;
        let kept = jit.blocks().filter(|b| b.granularity == granule).count();
        assert!(
            kept <= most,
            "{what}: {kept} blocks of granules of {granule} are kept empty"
        );
    }
    most *= config.pool_count();
    assert!(left.blocks <= most, "{what}: {left:?}");
}

/// Releases `count` spans, last in, first out, several times, and resets in between: at most one
/// empty block a granularity is left each time, none with immediate release and after a hard reset.
///
/// # Panics
///
/// On a violation, and where `provider` cannot give enough memory.
pub fn last_in_first_out<P: JitProvider>(provider: P, config: JitConfig, count: usize, what: &str) {
    let jit = JitAllocator::on(provider, provider, adapted(provider, config));
    let jit: JitAllocator<P> = jit.unwrap_or_else(|e| panic!("{what}: no allocator: {e}"));
    for how in [None, Some(Reset::Soft), None, Some(Reset::Hard), None] {
        let spans = fill(&jit, count, what);
        release_last_first(&jit, spans);
        expect_empty(&jit, what);
        if let Some(how) = how {
            // What the reset forgets: the tokens are dropped, which says so.
            drop(fill(&jit, count, what));
            // SAFETY: no other code uses the spans, and no other call is under way.
            unsafe { jit.reset(how) };
            expect_empty(&jit, what);
        }
        if how == Some(Reset::Hard) {
            assert_eq!(jit.statistics().reserved, 0, "{what}: nothing is mapped");
        }
    }
}

pub(super) fn immediate_release_keeps_nothing<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for pools in 1..=3 {
        let code = Counted::<P>::new(p, "code", Limits::NONE).expect("a small arena");
        let config = JitConfig::new()
            .pools(pools)
            .block_size(64 << 10, 64 << 10)
            .immediate_release(true);
        let jit = JitAllocator::<_>::on(&code, &code, adapted(p, config));
        let jit = jit.expect("an allocator can be made");
        for _ in 0..3 {
            let spans = fill(&jit, MANY, "immediate release");
            assert!(jit.statistics().blocks > 1, "they need several blocks");
            release_last_first(&jit, spans);
            let JitStatistics {
                blocks, reserved, ..
            } = jit.statistics();
            assert_eq!((blocks, reserved), (0, 0), "no block is left");
            assert_eq!(code.counters().dual.now, 0, "and none is mapped");
        }
    }
    Outcome::Passed
}

pub(super) fn one_empty_block_a_pool_is_kept<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let config = JitConfig::new().pools(3).block_size(64 << 10, 64 << 10);
    last_in_first_out(p, config, MANY, "three pools");
    let jit = make(p, config).expect("an allocator can be made");
    // One span a pool, several times over: what is kept serves, whichever pool it is of.
    let mut most = 0;
    for _ in 0..100 {
        for granules in [1, 2, 4] {
            let span = jit.alloc(64 * granules).expect("a small span can be had");
            jit.release(span).expect("an owned span is taken back");
        }
        most = most.max(jit.statistics().blocks);
    }
    assert_eq!(most, 3, "each pool keeps a block");
    Outcome::Passed
}

pub(super) fn a_kept_block_saves_mapping<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let code = Counted::<P>::new(p, "code", Limits::NONE).expect("a small arena");
    let jit = JitAllocator::<_, P>::on(&code, p, adapted(p, JitConfig::new()));
    let jit = jit.expect("an allocator can be made");
    come_and_go(&jit);
    let calls = code.calls();
    for _ in 0..100 {
        come_and_go(&jit);
    }
    assert_eq!(
        code.calls(),
        calls,
        "a span that comes and goes costs no call"
    );
    // One that was made larger for its only span is not worth keeping.
    let large = jit.alloc(128 << 20);
    if let Ok(span) = large {
        jit.release(span).expect("an owned span is taken back");
    }
    let left = jit.statistics();
    assert!(left.reserved <= 64 << 20, "the large block went: {left:?}");
    Outcome::Passed
}

/// Allocates a span and releases it.
#[track_caller]
pub(super) fn come_and_go<P: JitProvider, M: hostmem_core::provider::PageProvider + Copy>(
    jit: &JitAllocator<P, M>,
) {
    let span = jit.alloc(100).expect("a small span can be had");
    jit.release(span).expect("an owned span is taken back");
}
