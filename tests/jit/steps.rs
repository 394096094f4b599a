//! What calls of the JIT allocator cost, in instructions, which do not depend on the load of the
//! machine; and queries in a signal handler after every single instruction of the other calls.

use crate::{
    code::{Jit, allocator},
    common::at_length,
};
use hostmem::{
    jit::{JitConfig, Reset, Span},
    provider::Placement,
};
use hostmem_test_support::{
    isolate::{isolated, or_skip},
    steps,
};

/// Allocates, with room for the token made before.
fn push(jit: &Jit, spans: &mut Vec<Span>, size: usize) {
    spans.push(jit.alloc(size).expect("memory"));
}

/// Counts the instructions of `body`; `None`, aloud, where that cannot be done.
fn count(body: impl FnOnce()) -> Option<u64> {
    or_skip(steps::count(body))
}

/// Counts the instructions of `rounds` allocations of `size` bytes.
fn count_allocations(jit: &Jit, rounds: usize, size: usize) -> Option<u64> {
    let mut spans = Vec::with_capacity(rounds + 1);
    // The first may map a block.
    push(jit, &mut spans, size);
    count(|| (0..rounds).for_each(|_| push(jit, &mut spans, size)))
}

#[test]
fn j3_queries_are_exact_after_every_instruction_of_every_call() {
    let test = "j3_queries_are_exact_after_every_instruction_of_every_call";
    // A process of its own, as signals are handled there.
    isolated!(test, || {
        let jit = allocator(JitConfig::new().block_size(64 << 10, 64 << 10).pools(2));
        // Spans that stay, with holes between them that come and go: bits of the same words.
        let spans: Vec<Span> = (0..24).map(|_| jit.alloc(192).expect("memory")).collect();
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for (n, span) in spans.into_iter().enumerate() {
            if n % 2 == 0 {
                kept.push(span);
            } else {
                gone.push(span);
            }
        }
        for span in gone {
            jit.release(span).expect("once");
        }
        let asked: Vec<_> = kept.iter().map(Span::info).collect();
        let (mut rounds, mut wrong) = (0_usize, 0_usize);
        let mut between = || {
            let n = rounds % asked.len();
            let inside = rounds % asked[n].len;
            let found = jit.query(asked[n].rx.addr().get() + inside);
            wrong += usize::from(found != Some(asked[n]));
            wrong += usize::from(jit.query(rounds).is_some());
            rounds += 1;
        };
        let mut tokens = Vec::with_capacity(8);
        let body = || {
            push(&jit, &mut tokens, 64);
            push(&jit, &mut tokens, 128);
            tokens.push(
                jit.alloc_with(64, Placement::near(kept[0].rx().addr().get(), 1 << 30))
                    .expect("memory"),
            );
            // Blocks come and go, and with them entries of the index.
            push(&jit, &mut tokens, 70_000);
            push(&jit, &mut tokens, 60_000);
            let last = tokens.last_mut().expect("pushed just now");
            jit.shrink(last, 100).expect("ours");
            let written = jit.write_with(last, |writer| writer.shrink_to(10));
            written.expect("ours");
            jit.write(last, 0, &[0xcc; 64]).expect("ours");
            while let Some(span) = tokens.pop() {
                jit.release(span).expect("once");
            }
            jit.statistics();
            jit.decommit_unused();
        };
        let Some(steps) = or_skip(steps::between_all(body, &mut between)) else {
            return;
        };
        assert!(steps > 5000, "only {steps} instructions");
        assert_eq!(wrong, 0, "wrong answers between {steps} instructions");
        // A reset, at whose every step nothing outside is found, and before which all was.
        let rx = kept[0].rx().addr().get();
        let mut found = Vec::with_capacity(8);
        let mut between = || {
            let now = jit.query(rx).map(|info| info.len);
            if found.last() != Some(&now) && found.len() < found.capacity() {
                found.push(now);
            }
        };
        // SAFETY: no other code uses the spans any more.
        let body = || unsafe { jit.reset(Reset::Hard) };
        let steps = or_skip(steps::between_all(body, &mut between));
        assert!(steps.is_none_or(|n| n > 100), "{steps:?} instructions");
        assert_eq!(found, [Some(192), None], "there, and then gone");
    });
}

#[test]
fn j7_holes_that_are_too_short_cost_an_allocation_nothing() {
    let test = "j7_holes_that_are_too_short_cost_an_allocation_nothing";
    const ROUNDS: usize = 40;
    isolated!(test, || {
        let count_of_holes = if at_length() { 1_000_000 } else { 100_000 };
        let config = JitConfig::new().granularity(16);
        let Some(plain) = count_allocations(&allocator(config), ROUNDS, 32) else {
            return;
        };
        let jit = allocator(config);
        let spans: Vec<Span> = (0..2 * count_of_holes)
            .map(|_| jit.alloc(16).expect("memory"))
            .collect();
        let (mut kept, mut holes) = (Vec::new(), 0);
        for (n, span) in spans.into_iter().enumerate() {
            if n % 2 == 0 {
                kept.push(span);
            } else {
                jit.release(span).expect("once");
                holes += 1;
            }
        }
        assert_eq!((holes, jit.statistics().spans), (kept.len(), holes));
        let among = count_allocations(&jit, ROUNDS, 32).expect("it was counted before");
        assert!(
            among <= 4 * plain,
            "{} instructions each instead of {}",
            among / ROUNDS as u64,
            plain / ROUNDS as u64
        );
        // Nor does a request that no block can serve: at the limit, and not a byte is left.
        let limit = 2 << 20;
        let full = allocator(config.limit(limit));
        let mut spans: Vec<Span> = std::iter::from_fn(|| full.alloc(16).ok()).collect();
        let refuse = || assert!(full.alloc(32).is_err(), "it is full");
        let few = count(refuse).expect("it was counted before");
        for n in (0..spans.len()).rev().step_by(2) {
            full.release(spans.swap_remove(n)).expect("once");
        }
        assert!(spans.len() > 60_000, "{} holes", spans.len());
        refuse(); // What was released is joined, once.
        let many = count(refuse).expect("it was counted before");
        assert!(many <= 4 * few, "{many} instructions instead of {few}");
    });
}

/// Counts the instructions of a release and an allocation in an allocator of `live` spans of 16 to
/// 1024 bytes, on average over many.
fn count_churn(live: usize) -> Option<u64> {
    const ROUNDS: usize = 40;
    let jit = allocator(JitConfig::new());
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 32).expect("32 bits")
    };
    let size = |draw: usize| 16 + draw % 1009;
    let mut spans: Vec<Span> = Vec::with_capacity(live);
    for _ in 0..live {
        push(&jit, &mut spans, size(next()));
    }
    let mut churn = |rounds| {
        for _ in 0..rounds {
            let old = spans.swap_remove(next() % spans.len());
            jit.release(old).expect("once");
            push(&jit, &mut spans, size(next()));
        }
    };
    churn(live); // A steady state.
    count(|| churn(ROUNDS)).map(|all| all / ROUNDS as u64)
}

#[test]
fn churn_takes_no_more_instructions_among_many_spans_than_among_few() {
    isolated!(
        "churn_takes_no_more_instructions_among_many_spans_than_among_few",
        || {
            let many = if at_length() { 1_000_000 } else { 100_000 };
            let (Some(few), Some(many)) = (count_churn(10_000), count_churn(many)) else {
                return;
            };
            assert!(
                2 * many <= 3 * few,
                "{many} instructions a pair instead of {few}"
            );
        },
    );
}

#[test]
fn j12_a_query_inside_512_mib_looks_at_a_few_words_more_than_inside_64_bytes() {
    isolated!(
        "j12_a_query_inside_512_mib_looks_at_a_few_words_more_than_inside_64_bytes",
        || {
            let jit = allocator(JitConfig::new());
            let (small, large) = (jit.alloc(64), jit.alloc(512 << 20));
            let (small, large) = (small.expect("memory"), large.expect("addresses"));
            let start = large.rx().addr().get();
            assert_eq!(
                jit.query(start + (256 << 20)),
                Some(large.info()),
                "it is found whole"
            );
            let query = |addr| {
                count(|| {
                    std::hint::black_box(jit.query(std::hint::black_box(addr)));
                })
            };
            let Some(short) = query(small.rx().addr().get() + 32) else {
                return;
            };
            for part in [1, 3, 8, 13, 15] {
                let addr = start + part * (32 << 20) + 1000;
                let long = query(addr).expect("it was counted before");
                // Two levels of summaries, up and down, instead of eight million granules.
                assert!(
                    long <= 3 * short,
                    "{long} instead of {short}, {part}/16 inside"
                );
            }
            jit.release(large).expect("once");
            jit.release(small).expect("once");
        },
    );
}
