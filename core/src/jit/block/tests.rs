//! Blocks, held against what their bits say.

extern crate std;
use super::*;
use crate::jit::class;
use crate::{jit::views::Views, page::PageRange};
use core::ops::Range;
use std::{boxed::Box, vec, vec::Vec};

/// Granules of the block under test: several words, the last one in part.
const COUNT: usize = 1000;

fn leak<T>(values: Vec<T>) -> NonNull<[T]> {
    NonNull::from(Box::leak(values.into_boxed_slice()))
}

fn block() -> NonNull<Block> {
    let (words, bytes) = Block::metadata_for(COUNT);
    let words = leak((0..words).map(|_| AtomicU64::new(0)).collect());
    let tree = leak(vec![0; bytes]);
    let pages = leak(vec![0; Block::page_words_for(COUNT, 6, PageSize::KIB_4)]);
    let block = Block::unmapped(
        Home {
            shard: 0,
            pool: 0,
            shift: 6,
            lone: false,
        },
        words,
        tree,
        pages,
        COUNT,
    );
    NonNull::from(Box::leak(Box::new(block)))
}

/// Asserts that the tree knows the longest run of every word, but for those left apart.
fn expect_tree(held: &mut Held<'_>, apart: &[Range<usize>]) {
    let active = held.guarded.active.clone();
    for word in 0..words_for(COUNT) {
        let runs: Vec<_> = held.bits().free_runs_from(word).collect();
        let known = |run: &&Range<usize>| **run != active && !apart.contains(run);
        let least = runs.iter().filter(known).map(|r| r.len()).max();
        let most = runs.iter().filter(|r| **r != active).map(|r| r.len()).max();
        let [least, most] = [least, most].map(|len| len.map_or(class::NONE, class::of_run));
        let found = held.tree().class(word);
        assert!(
            (least..=most).contains(&found),
            "word {word}: class {found} of {runs:?}, active {active:?}, apart {apart:?}"
        );
    }
}

#[test]
fn purged_pages_are_counted_and_found() {
    // SAFETY: the block is leaked, and this thread alone has it.
    let mut held = unsafe { Block::held(block()) };
    let all = 0..COUNT * 64 / 4096;
    assert_eq!(held.purged_among(all.clone()), None);
    held.note_purged(2..5, true);
    held.note_purged(4..9, true);
    assert_eq!(held.guarded.purged, 7, "no page counts twice");
    assert_eq!(held.purged_among(all.clone()), Some(2..9));
    assert_eq!(held.purged_among(0..2), None);
    assert_eq!(held.purged_among(8..all.end), Some(8..9));
    held.note_purged(3..4, false);
    held.note_purged(0..1, false);
    assert_eq!(held.guarded.purged, 6);
    assert_eq!(held.purged_among(all.clone()), Some(2..3));
    assert_eq!(held.purged_among(3..all.end), Some(4..9));
    held.note_purged(all.clone(), true);
    assert_eq!(held.guarded.purged, all.len());
    held.forget_purged();
    assert_eq!((held.guarded.purged, held.purged_among(all)), (0, None));
}

/// Makes a mapping for the block under test.
fn views() -> Views {
    #[derive(Clone)]
    #[repr(align(4096))]
    struct Page(#[expect(dead_code, reason = "only its address matters")] [u8; 4096]);
    let page = PageSize::KIB_4;
    let start = leak(vec![Page([0; 4096]); COUNT * 64 / 4096]).cast::<u8>();
    let range = PageRange::new(start, (COUNT * 64 / 4096) * 4096, page);
    Views::Single(range.expect("whole pages"), page)
}

/// Frees all spans and joins all runs, and asserts that one run is left.
fn expect_one_run(mut held: Held<'_>, live: Vec<Range<usize>>, apart: Vec<Range<usize>>) {
    for span in live {
        assert_eq!(held.bits().span_around(span.start), Some(span.clone()));
        held.free_tail(span, 0);
    }
    apart.into_iter().for_each(|run| held.join(run));
    held.settle_active();
    let mut runs = held.free_runs();
    assert_eq!(runs.next(), Some(0..held.count()), "one run again");
    assert_eq!(runs.next(), None, "and no other");
    drop(runs);
    expect_tree(&mut held, &[]);
}

#[test]
fn the_tree_knows_what_the_bits_say() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).expect("31 bits") % n
    };
    // SAFETY: the block is leaked, and this thread alone has it.
    let mut held = unsafe { Block::held(block()) };
    held.map(views(), 0);
    let (mut live, mut apart): (Vec<Range<usize>>, Vec<Range<usize>>) = Default::default();
    for _ in 0..20_000 {
        let most = [3, 20, 150][below(3)];
        let need = 1 + below(most);
        match below(10) {
            0..5 => {
                let class = class::that_fits(need).expect("short");
                let found = held.first_word(class);
                let start = match found {
                    _ if below(3) == 0 => held.allocate_active(need),
                    Some(word) => held
                        .allocate_in(word, need)
                        .or_else(|| held.allocate_active(need)),
                    None => held.allocate_by_trial(need).map(|span| span.start),
                };
                live.extend(start.map(|start| start..start + need));
            }
            5..7 if !live.is_empty() => {
                let span = live.swap_remove(below(live.len()));
                held.free_apart(span.clone());
                apart.push(span);
            }
            7 if !apart.is_empty() => {
                let run = apart.swap_remove(below(apart.len()));
                if below(2) == 0 {
                    held.join(run);
                } else if held.take_run(run.clone()) {
                    live.push(run);
                }
            }
            8 if !live.is_empty() => {
                let n = below(live.len());
                let span = live[n].clone();
                let keep = below(span.len());
                held.free_tail(span.clone(), keep);
                live[n].end = span.start + keep;
                if keep == 0 {
                    live.swap_remove(n);
                }
            }
            9 if below(20) == 0 => held.settle_active(),
            _ => {}
        }
        apart.retain(|run| held.bits().is_free_run(run));
        expect_tree(&mut held, &apart);
        assert_eq!(held.guarded.spans, live.len());
        let used = live.iter().map(Range::len).sum::<usize>();
        assert_eq!(held.guarded.used, used);
    }
    expect_one_run(held, live, apart);
}
