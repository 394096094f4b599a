//! Blocks that grow into memory that was kept, and what they have ahead.

use super::{Growing, MIB, OS, heap};
use hostmem::{
    heap::{HeapConfig, HeapStatistics},
    page::PageSize,
    provider::{Capabilities, PageProvider},
    sim::{Policy, Sim},
};

/// A block that grows takes the memory of one that was freed, and what it has not grown into by
/// then goes back as other free memory does.
fn grows_into_kept<P: PageProvider + Copy>(p: P, what: &str) {
    let heap = heap(p, HeapConfig::new());
    let grown = |len| {
        let mut block = Growing::new(&heap, MIB / 2);
        block.grow_to(len, 50_000);
        block
    };
    drop(grown(8 * MIB));
    let before = heap.statistics();
    // As far as it did, twice, by the same memory.
    for _ in 0..2 {
        let block = grown(8 * MIB - 100_000);
        let after = heap.statistics();
        let calls = |held: &HeapStatistics| (held.calls.reserve, held.calls.commit);
        assert_eq!(calls(&after), calls(&before), "{what}");
        assert!(after.committed <= before.committed, "{what}: {after:?}");
        assert!(after.used <= 9 * MIB, "{what}: {after:?}");
        assert_eq!(
            heap.block_of(block.block.addr().get())
                .map(|found| found.len),
            { heap.usable_size(block.block) }
        );
    }
    for way in 0..3 {
        let mut block = grown(2 * MIB);
        assert_eq!(heap.statistics().huge_blocks, 1);
        match way {
            0 => (1..4).for_each(|n| heap.tick(n * 1000)),
            1 => heap.trim(),
            _ => assert!(heap.trim_to(0) < 5 * MIB),
        }
        let held = heap.statistics();
        assert!(held.committed < 5 * MIB, "{what}, {way}: {held:?}");
        block.check();
        // Others come to lie where it was, and it has memory again.
        block.grow_to(9 * MIB, 300_000);
        // One that becomes shorter gives all of it back.
        let before = heap.statistics().committed;
        block.resize(3 * MIB).expect("less");
        block.check();
        let held = heap.statistics();
        let least = before - 6 * MIB;
        assert!(held.committed <= least, "{what}, {way}: {held:?}");
        drop(block);
        drop(grown(8 * MIB));
    }
    heap.trim();
    let held = heap.statistics();
    assert_eq!((held.used, held.huge_blocks, held.large_blocks), (0, 0, 0));
    assert_eq!((held.reserved, held.committed), (0, 0), "{what}: {held:?}");
}

#[test]
fn blocks_grow_into_memory_that_was_kept() {
    grows_into_kept(OS, "the system");
    for without in [Capabilities::empty(), Capabilities::MOVE_PAGES] {
        for page in [PageSize::KIB_4, PageSize::KIB_64] {
            let sim = Sim::new(OS, Policy::new(page).without(without)).expect("addresses");
            grows_into_kept(&sim, &format!("{page:?} without {without:?}"));
            assert_eq!((sim.take_misuse(), sim.pages_in_use()), (None, 0));
        }
    }
}

/// Blocks that take what was kept one after the other, and go on with little of it, have no more
/// together than may be kept.
#[test]
fn what_growing_blocks_have_ahead_is_bounded() {
    let heap = heap(OS, HeapConfig::new());
    let mut blocks = Vec::new();
    for _ in 0..8 {
        let mut long = Growing::new(&heap, MIB);
        long.resize(50 * MIB).expect("memory");
        drop(long);
        let mut block = Growing::new(&heap, MIB);
        block.resize(MIB + 1).expect("memory");
        blocks.push(block);
        let held = heap.statistics();
        assert!(held.committed <= held.used + 80 * MIB, "{held:?}");
    }
    for block in &blocks {
        block.check();
    }
}
