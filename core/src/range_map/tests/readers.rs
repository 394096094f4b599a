//! Readers without a lock, while a writer changes the tree.

extern crate std;
use super::super::{change::Pages, node::Entry, pool::Writer, tree::Tree};
use super::{Apart, Random, Slab};
use crate::provider::ErrorKind;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

/// Pages of a cell; ranges of the threads' test begin and end in one cell, or are whole cells.
const CELL: u64 = 16;
/// Cells of a block; the first range of each stays.
const BLOCK: u64 = 32;
const BLOCKS: u64 = 64;

/// A value that says what range it belongs to.
fn named((start, end): Pages) -> Apart {
    Apart(u32::try_from(start << 12 | (end - start)).expect("small"))
}

fn is_named(entry: Entry) -> bool {
    entry.value::<Apart>() == named((entry.start, entry.end()))
}

fn readers_see_only_what_was_there<const W: usize>(changes: usize) {
    let slab = Slab::<W>::new(20_000);
    let block = CELL * BLOCK;
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<Apart, W> = unsafe { Tree::new(&slab, 0, block * BLOCKS) };
    let mut writer = Writer::new();
    for n in 0..BLOCKS {
        let stays = (n * block, n * block + 3);
        let inserted = tree.insert_new(&mut writer, &slab, stays, named(stays));
        assert_eq!(inserted, Ok(()));
    }
    let (done, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let readers = [0x1234_5678_9abc_def1, 0x7777_5678_9abc_def1].map(|seed| {
            let (tree, done, answers) = (&tree, &done, &answers);
            scope.spawn(move || {
                let mut random = Random(seed);
                while !done.load(Relaxed) {
                    let page = random.below(block * BLOCKS);
                    let stays = page / block * block;
                    assert_eq!(tree.query(stays + 1).map(|e| e.len), Some(3));
                    if let Some(entry) = tree.query(page) {
                        assert!(is_named(entry) && entry.start <= page && page < entry.end());
                    }
                    let next = tree.next_from(page);
                    assert!(next.is_none_or(is_named));
                    let latest = stays + if page < stays + 3 { 0 } else { block };
                    if latest < block * BLOCKS {
                        assert!(next.is_some_and(|e| e.start <= latest && e.end() > page));
                    }
                    answers.fetch_add(1, Relaxed);
                }
            })
        });
        let mut random = Random(0x5555_5678_9abc_def1);
        for n in 0..changes {
            let base = random.below(BLOCKS) * block;
            let cell = base + CELL * (1 + random.below(BLOCK - 1));
            let cells = 1 + random.below((base + block - cell) / CELL);
            let start = cell + random.below(CELL);
            let inside = (start, start + 1 + random.below(cell + CELL - start));
            // Whole ranges only: what is left of one would have the wrong name.
            let last = cell + CELL * cells - 1;
            let whole = (
                tree.query(cell).map_or(cell, |e| e.start.min(cell)),
                tree.query(last).map_or(last + 1, |e| e.end().max(last + 1)),
            );
            let result = match random.below(if n % 8192 < 4096 { 40 } else { 20 }) {
                0 => tree
                    .insert(&mut writer, &slab, whole, named(whole))
                    .map(drop),
                1..6 => tree.remove(&mut writer, &slab, whole).map(drop),
                _ => tree.insert_new(&mut writer, &slab, inside, named(inside)),
            };
            assert!(result.is_ok() || result == Err(ErrorKind::Taken.into()));
            // The rest changes while the readers run.
            while answers.load(Relaxed) < 100 && readers.iter().any(|one| !one.is_finished()) {
                thread::yield_now();
            }
        }
        done.store(true, Relaxed);
    });
    tree.check(&writer);
}

#[test]
fn readers_without_a_lock_see_only_what_was_there() {
    readers_see_only_what_was_there::<12>(200_000);
    readers_see_only_what_was_there::<96>(200_000);
}
