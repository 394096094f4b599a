//! Words and groups of spans, and iteration over all of them while others allocate and release.

mod numbered;

use crate::{
    code::{Jit, allocator},
    common::{
        emulated,
        random::Random,
        threads::{Patience, Stop},
    },
};
use core::sync::atomic::{AtomicBool, Ordering};
use hostmem::{
    fork::ForkHooks,
    jit::{Fill, JitConfig, JitError, LiveSpan, Reset, Span, Words},
    page::AddressRange,
    provider::Placement,
};
use std::{collections::BTreeMap, thread};

fn tagged() -> JitConfig {
    JitConfig::new().words(Words::Bits64).groups(true)
}

/// What a span must be told as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    len: usize,
    word: u64,
    group: u32,
}

fn described(live: &LiveSpan) -> (usize, Expected) {
    let LiveSpan {
        span, word, group, ..
    } = *live;
    let (rx, len) = (span.rx.addr().get(), span.len);
    (rx, Expected { len, word, group })
}

/// Holds what the allocator says against what is live.
fn check(jit: &Jit, live: &[(Span, Expected)], random: &mut Random) {
    let oracle: BTreeMap<usize, Expected> = live
        .iter()
        .map(|(span, expected)| (span.rx().addr().get(), *expected))
        .collect();
    let told: Vec<_> = jit.spans().map(|live| described(&live)).collect();
    assert!(
        told.iter()
            .copied()
            .eq(oracle.iter().map(|(a, e)| (*a, *e))),
        "in order, once each"
    );
    for (span, expected) in live {
        let inside = span.rx().addr().get() + random.below(span.len_bytes());
        let found = jit.query_tagged(inside).expect("it is live");
        assert_eq!(found.span, span.info());
        assert_eq!(described(&found).1, *expected);
    }
    // By groups, by blocks, by any range.
    for group in 0..4 {
        let told = jit.spans().of_group(group).map(|live| described(&live));
        let right = oracle.iter().filter(|(_, e)| e.group == group);
        assert!(told.eq(right.map(|(a, e)| (*a, *e))), "group {group}");
    }
    let mut by_block = Vec::new();
    for block in jit.blocks() {
        by_block.extend(
            jit.spans()
                .within(block.rx.addresses())
                .map(|l| described(&l)),
        );
    }
    assert_eq!(by_block, told);
    if !told.is_empty() {
        let (a, b) = (random.below(told.len()), random.below(told.len()));
        let range = AddressRange::new(told[a.min(b)].0 + 1, told[a.max(b)].0);
        if let Some(range) = range {
            let inside = jit.spans().within(range).map(|live| described(&live).0);
            let right = oracle.range(range.start()..=range.last()).map(|(a, _)| *a);
            assert!(inside.eq(right), "{range:?}");
        }
    }
}

#[test]
fn spans_words_and_groups_agree_with_an_oracle() {
    let configs = [
        tagged(),
        tagged()
            .granularity(16)
            .pools(3)
            .block_size(64 << 10, 64 << 10),
        tagged().fill(Fill::Trap).immediate_release(true),
        tagged().granularity(4096).padding(false),
        tagged().words(Words::Bits32).rx(Placement::lowest(
            AddressRange::new(1 << 32, 1 << 46).expect("not empty"),
        )),
    ];
    for (n, config) in configs.into_iter().enumerate() {
        let jit = allocator(config);
        let mut random = Random(0x9e37_79b9_7f4a_7c15 + n as u64);
        let mut live: Vec<(Span, Expected)> = Vec::new();
        for step in 0..if emulated() { 500 } else { 3000 } {
            match random.below(100) {
                0..55 => {
                    let size = 1 + random.up_to([100, 1000, 20_000]);
                    let span = if random.below(10) == 0 {
                        let place = Placement {
                            align: 1 << random.below(12),
                            ..Placement::ANYWHERE
                        };
                        jit.alloc_with(size, place)
                    } else {
                        jit.alloc(size)
                    };
                    let span = span.expect("memory");
                    let fresh = jit
                        .query_tagged(span.rx().addr().get())
                        .expect("it is live");
                    assert_eq!(
                        (fresh.word, fresh.group),
                        (0, 0),
                        "nothing of an older span"
                    );
                    let mut expected = Expected {
                        len: span.len_bytes(),
                        word: 0,
                        group: 0,
                    };
                    if random.below(4) != 0 {
                        expected.word = random.0 >> 33;
                        expected.group = u32::try_from(random.below(4)).expect("small");
                        jit.set_word(&span, expected.word).expect("it has one");
                        // SAFETY: the span is live.
                        let set =
                            unsafe { jit.set_group_at(span.rx().addr().get(), expected.group) };
                        set.expect("it has one");
                    }
                    live.push((span, expected));
                }
                55..90 if !live.is_empty() => {
                    let at = random.below(live.len());
                    let (span, _) = live.swap_remove(at);
                    jit.release(span).expect("once");
                }
                90..95 if !live.is_empty() => {
                    let at = random.below(live.len());
                    let (span, expected) = &mut live[at];
                    jit.shrink(span, 1 + random.below(expected.len))
                        .expect("ours");
                    expected.len = span.len_bytes();
                }
                95 if random.below(5) == 0 => {
                    let group = u32::try_from(1 + random.below(3)).expect("small");
                    let before = live.len();
                    live.retain(|(_, expected)| expected.group != group);
                    // SAFETY: the tokens of the group were dropped just now.
                    let count = unsafe { jit.release_group(group) };
                    assert_eq!(count, Ok(before - live.len()));
                }
                96 if random.below(20) == 0 => {
                    let how = [Reset::Keep, Reset::Soft, Reset::Hard][random.below(3)];
                    live.clear();
                    // SAFETY: all tokens were dropped just now.
                    unsafe { jit.reset(how) };
                }
                97 if random.below(5) == 0 => {
                    jit.decommit_unused();
                    jit.fork_prepare().expect("memory for a copy");
                    // SAFETY: prepared just now.
                    unsafe { jit.fork_parent() };
                }
                _ => {}
            }
            if step % 100 == 0 {
                check(&jit, &live, &mut random);
            }
        }
        check(&jit, &live, &mut random);
        assert_ne!(jit.statistics().tags, 0, "counted apart");
    }
}

#[test]
fn what_spans_do_not_carry_is_refused() {
    let plain = allocator(JitConfig::new());
    let span = plain.alloc(64).expect("memory");
    assert_eq!(plain.set_word(&span, 1), Err(JitError::Untagged));
    assert_eq!(plain.set_group(&span, 1), Err(JitError::Untagged));
    // SAFETY: no span is in a group.
    assert_eq!(unsafe { plain.release_group(0) }, Err(JitError::Untagged));
    let found = plain
        .query_tagged(span.rx().addr().get())
        .expect("it is live");
    assert_eq!((found.word, found.group), (0, 0));
    assert_eq!(plain.statistics().tags, 0, "and nothing is kept for it");
    let short = allocator(JitConfig::new().words(Words::Bits32));
    let other = short.alloc(64).expect("memory");
    assert_eq!(short.set_word(&other, u64::from(u32::MAX)), Ok(()));
    assert_eq!(short.set_word(&other, 1 << 32), Err(JitError::Untagged));
    assert_eq!(short.set_word(&span, 1), Err(JitError::NotOwned));
    // SAFETY: the span is live.
    let inside = unsafe { short.set_word_at(other.rx().addr().get() + 1, 1) };
    assert_eq!(inside, Err(JitError::Interior));
    plain.release(span).expect("once");
    short.release(other).expect("once");
}

#[test]
fn spans_that_stay_are_told_once_while_others_come_and_go() {
    const THREADS: u64 = 4;
    let rounds = if emulated() { 20 } else { 100 };
    let jit = &allocator(tagged().block_size(64 << 10, 128 << 10));
    // Among all that comes and goes, in blocks that do not, and in some that do.
    let mut random = Random(77);
    let mut all: Vec<Span> = (0..3000)
        .map(|_| jit.alloc(1 + random.below(900)).expect("memory"))
        .collect();
    let mut kept = BTreeMap::new();
    let mut tokens = Vec::new();
    for n in 0..all.len() / 4 {
        let span = all.swap_remove(random.below(all.len()));
        jit.set_word(&span, n as u64 + 1).expect("it has one");
        jit.set_group(&span, u32::try_from(1 + n % 3).expect("small"))
            .expect("it has one");
        kept.insert(
            span.rx().addr().get(),
            (span.len_bytes(), n as u64 + 1, 1 + n % 3),
        );
        tokens.push(span);
    }
    for span in all {
        jit.release(span).expect("once");
    }
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..THREADS {
            scope.spawn(move || {
                let mut random = Random(1000 + seed);
                let mut live = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    if live.len() < 400 && random.below(2) == 0 {
                        let size = 1 + random.up_to([200, 2000, 100_000]);
                        let span = jit.alloc(size).expect("memory");
                        // Words that no span has that stays.
                        jit.set_word(&span, u64::MAX).expect("it has one");
                        live.push(span);
                    } else if !live.is_empty() {
                        let span = live.swap_remove(random.below(live.len()));
                        jit.release(span).expect("once");
                    }
                }
                live.into_iter()
                    .for_each(|span| jit.release(span).expect("once"));
            });
        }
        let _stop = Stop(stop);
        let patience = Patience::new();
        for round in 0..rounds {
            let mut found = BTreeMap::new();
            let mut before = 0;
            for live in jit.spans() {
                let (rx, expected) = described(&live);
                assert!(rx > before, "in order");
                before = rx;
                if expected.word != 0 && expected.word != u64::MAX {
                    let told = (expected.len, expected.word, expected.group as usize);
                    assert_eq!(found.insert(rx, told), None, "once");
                }
            }
            assert!(
                found == kept,
                "round {round}: {} of {}",
                found.len(),
                kept.len()
            );
            let of_group: Vec<usize> = jit.spans().of_group(2).map(|l| described(&l).0).collect();
            let right = kept
                .iter()
                .filter(|(_, told)| told.2 == 2)
                .map(|(rx, _)| *rx);
            assert!(of_group.into_iter().eq(right), "those of a group");
            patience.check("rounds");
        }
    });
    tokens
        .into_iter()
        .for_each(|span| jit.release(span).expect("once"));
}
