//! Huge blocks that are kept for the next one.

use super::{MIB, OS, bytes, free, heap, knows_sim};
use core::ptr::NonNull;
use hostmem::{
    OsLock, OsProvider,
    heap::{Heap, HeapConfig, Return},
    page::PageSize,
    sim::{Policy, Sim},
};
use std::collections::BTreeMap;

/// What is kept follows what is in use, and goes when it was not used for a while.
#[test]
fn what_is_kept_follows_what_is_in_use_and_goes_by_ticks() {
    let heap = heap(OS, HeapConfig::new().memory_return(Return::After(1000)));
    let size = 12 * MIB;
    let blocks: Vec<_> = (0..30)
        .map(|_| heap.alloc(bytes(size)).expect("memory"))
        .collect();
    let (gone, stay) = blocks.split_at(20);
    let reserves = |heap: &Heap<OsProvider, OsProvider, OsLock>| heap.statistics().calls.reserve;
    for block in gone {
        free(&heap, *block);
    }
    let held = heap.statistics();
    assert_eq!(held.huge, 10 * size);
    let kept = held.committed - held.huge;
    assert!(kept >= 3 * size && kept <= 10 * size, "{kept} bytes");
    // They serve again without a call.
    let before = reserves(&heap);
    let again: Vec<_> = (0..3)
        .map(|_| heap.alloc(bytes(size - 100_000)).expect("memory"))
        .collect();
    assert_eq!(reserves(&heap), before, "no new addresses");
    for block in again {
        free(&heap, block);
    }
    heap.tick(1000);
    assert!(heap.statistics().committed > held.huge, "not at once");
    heap.tick(2000);
    heap.tick(3000);
    let held = heap.statistics();
    assert_eq!((held.committed, held.reserved), (held.huge, held.huge));
    for block in stay {
        free(&heap, *block);
    }
    let held = heap.statistics();
    assert!(
        held.committed <= 64 * MIB,
        "little where little is in use: {held:?}"
    );
    heap.tick(9000);
    heap.tick(10_000);
    assert_eq!(heap.statistics().committed, 0);
}

/// A program that asks for as much again and again, between two ticks, has its pages back each
/// time.
#[test]
fn more_is_kept_where_much_is_asked_for_between_two_ticks() {
    let heap = heap(OS, HeapConfig::new().memory_return(Return::After(1000)));
    let size = 12 * MIB;
    let turn = || {
        let blocks: Vec<_> = (0..30)
            .map(|_| heap.alloc(bytes(size)).expect("memory"))
            .collect();
        for block in blocks {
            free(&heap, block);
        }
    };
    heap.tick(1000);
    (0..6).for_each(|_| turn());
    let held = heap.statistics();
    assert!(held.committed >= 29 * size, "all is kept: {held:?}");
    let before = held.calls.reserve;
    turn();
    assert_eq!(heap.statistics().calls.reserve, before, "no new addresses");
    // Once that does not happen any more, it goes as all does.
    heap.tick(2000);
    heap.tick(3000);
    assert_eq!(heap.statistics().committed, 0);
    turn();
    let held = heap.statistics();
    assert!(held.committed <= 3 * 30 * size / 2, "{held:?}");
    heap.tick(4000);
    heap.tick(5000);
    turn();
    let held = heap.statistics();
    assert!(
        held.committed <= 15 * size,
        "little where it is seldom: {held:?}"
    );
}

/// Blocks of other lengths take the pages that are kept along.
#[test]
fn kept_blocks_serve_for_longer_and_shorter_ones() {
    let sim = Sim::new(OS, Policy::new(PageSize::KIB_4)).expect("addresses");
    let heap = heap(&sim, HeapConfig::new());
    let layout = |mib: usize| bytes(mib * MIB);
    let mut live = BTreeMap::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for step in 0..400 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = usize::try_from(random >> 40).expect("24 bits");
        let mib = 2 + number % 9;
        let block = heap.alloc(layout(mib)).expect("memory");
        for at in [0, mib * MIB - 1] {
            // SAFETY: inside the live block.
            let byte = unsafe { block.add(at) };
            // SAFETY: inside the live block.
            unsafe { byte.write(7) };
        }
        live.insert(number << 9 | step, (block, mib));
        if live.len() > 12
            && let Some((_, (block, mib))) = live.pop_first()
        {
            knows_sim(&heap, block, mib * MIB);
            free(&heap, block);
        }
        let used = live.values().map(|(_, mib)| mib * MIB).sum::<usize>();
        assert_eq!(heap.statistics().huge, used);
    }
    let calls = heap.statistics().calls;
    assert!(calls.reserve < 200, "{calls:?}");
    for (block, _) in live.into_values() {
        free(&heap, block);
    }
    // What reads zero does, whatever was there.
    let block = heap.alloc_zeroed(layout(7)).expect("memory");
    // SAFETY: live, and this test's alone.
    let all = unsafe { NonNull::slice_from_raw_parts(block, 7 * MIB).as_ref() };
    assert!(all.iter().all(|byte| *byte == 0));
    free(&heap, block);
    heap.trim();
    assert_eq!(heap.statistics().reserved, 0);
    drop(heap);
    assert_eq!((sim.take_misuse(), sim.pages_in_use()), (None, 0));
}
