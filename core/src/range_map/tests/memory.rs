//! Changes without memory, and what was prepared for them.

extern crate std;
use super::super::{change::Pages, node::Entry, pool::Writer, tree::Tree};
use super::{Layout, Random, Slab, oracle::Oracle, scaled};
use crate::provider::{Error, ErrorKind};
use std::vec::Vec;

/// Changes that were prepared succeed when there is no memory left.
fn prepared<const W: usize>(layout: Layout, seed: u64) {
    let slab = Slab::<W>::new(60_000);
    slab.sparing.set(true);
    let Layout { base, step, slots } = layout;
    let (low, high) = (base, base + slots * step);
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<u32, W> = unsafe { Tree::new(&slab, low, high) };
    let mut writer = Writer::new();
    let mut random = Random(seed);
    let any = |random: &mut Random, longest: u64| {
        let slot = random.below(slots);
        let count = 1 + random.below(longest.min(slots - slot));
        let value = u32::try_from(random.below(3)).ok().filter(|n| *n < 2);
        (
            ((base + slot * step), (base + (slot + count) * step)),
            value,
        )
    };
    for round in 0..scaled(60) {
        // From an empty tree, a full one, and one that is a single range.
        let pages = (low, high);
        slab.exhausted.set(false);
        let filled = [None, Some(7)][round % 2];
        let set = |writer: &mut _, (pages, value): (Pages, Option<u32>)| {
            tree.set_at(writer, &slab, pages, value, None)
        };
        set(&mut writer, (pages, filled)).expect("nodes");
        for _ in 0..random.below(3000) {
            let change = any(&mut random, 3);
            set(&mut writer, change).expect("nodes");
        }
        let changes = 1 + random.below(400);
        let number = usize::try_from(changes).expect("few");
        tree.prepare(&mut writer, &slab, number).expect("nodes");
        slab.exhausted.set(true);
        let (in_order, longest) = (random.below(3), 1 + random.below(5));
        for n in 0..changes {
            let mut change = any(&mut random, longest);
            if in_order == 0 {
                // Every second page of a long range.
                let start = base + 2 * n % slots * step;
                change = ((start, start + step), Some(2));
            } else if random.below(64) == 0 {
                change.0.1 = high;
            }
            set(&mut writer, change).unwrap_or_else(|error| {
                panic!("change {n} of {changes} in round {round}: {error}")
            });
        }
        tree.check(&writer);
    }
}

#[test]
fn what_was_prepared_cannot_fail() {
    for (step, slots) in [(1, 4000), (2, 3000), (1 << 33, 2000)] {
        let layout = Layout {
            base: 16,
            step,
            slots,
        };
        prepared::<48>(layout, 0x1234_5678 + step);
        prepared::<24>(layout, 0x1234_5679 + step);
        prepared::<96>(layout, 0x1234_567a + step);
    }
}

/// Tries a change without memory; if it needs some, nothing may have changed. Then makes it.
fn fails_or_works<const W: usize, N: PartialEq + core::fmt::Debug>(
    tree: &Tree<u32, W>,
    writer: &mut Writer<W>,
    slab: &Slab<W>,
    change: impl Fn(&mut Writer<W>) -> Result<N, Error>,
) -> (N, bool) {
    let (before, counts) = (tree.all(), (writer.used(), writer.ranges, writer.pages));
    slab.exhausted.set(true);
    let tried = change(writer);
    slab.exhausted.set(false);
    match tried {
        Ok(n) => (n, false),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Exhausted);
            assert_eq!(tree.all(), before);
            assert_eq!((writer.used(), writer.ranges, writer.pages), counts);
            tree.check(writer);
            let done = change(writer).expect("there is memory again");
            (done, true)
        }
    }
}

#[test]
fn without_memory_a_change_changes_nothing() {
    let slab = Slab::<12>::new(20_000);
    slab.sparing.set(true);
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<u32, 12> = unsafe { Tree::new(&slab, 0, 4000) };
    let mut writer = Writer::new();
    let mut oracle = Oracle {
        joins: true,
        ..Oracle::default()
    };
    let mut random = Random(0x0bad_cafe_0bad_cafe);
    let mut failures = [0; 3];
    for n in 0..6000 {
        let start = random.below(3990);
        let many = if random.below(50) == 0 { 400 } else { 5 };
        let pages = (start, (start + 1 + random.below(many)).min(4000));
        let bits = u32::try_from(random.below(5)).expect("small");
        let kind = usize::try_from(random.below(if n < 2000 { 5 } else { 8 })).expect("small");
        let (had, kind, failed) = match kind {
            0..4 => {
                let change = |writer: &mut Writer<12>| tree.insert(writer, &slab, pages, bits);
                let (had, failed) = fails_or_works(&tree, &mut writer, &slab, change);
                (had == oracle.insert(pages, bits), 0, failed)
            }
            4..7 => {
                let change = |writer: &mut Writer<12>| tree.remove(writer, &slab, pages);
                let (had, failed) = fails_or_works(&tree, &mut writer, &slab, change);
                (had == oracle.remove(pages), 1, failed)
            }
            _ => {
                let change = |writer: &mut Writer<12>| {
                    tree.update(writer, &slab, pages, |bits: u32| bits / 2)
                };
                let (had, failed) = fails_or_works(&tree, &mut writer, &slab, change);
                (had == oracle.update(pages, |bits| bits / 2), 2, failed)
            }
        };
        assert!(had, "as many pages as the plain map says");
        failures[kind] += usize::from(failed);
        let plain = oracle.map.iter();
        let plain: Vec<_> = plain
            .map(|(&s, &(e, v))| Entry::new(s, e, v.into()))
            .collect();
        assert_eq!(tree.all(), plain);
    }
    assert!(failures.iter().all(|&n| n > 5), "all failed: {failures:?}");
}
