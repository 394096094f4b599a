//! The highest level of hardening: each fault is found, and no correct use is taken for one.

use super::{calls, config, counted, faults, heap, op, ops};
use crate::Outcome;
use alloc::{collections::BTreeSet, vec::Vec};
use core::{alloc::Layout, ptr::NonNull};
use hostmem_core::{
    heap::{Hardening, Heap, HeapConfig, HeapError, Level, RangeKind},
    provider::{PageProvider, Provider},
};

/// Calls of a case: each costs more than at other levels.
const STEPS: usize = 2500;

/// Sizes of each kind of block.
const SIZES: [usize; 9] = [0, 1, 24, 100, 3000, 30_000, 200_001, 500_001, 2_000_001];

fn full() -> HeapConfig {
    config().hardening(Hardening::Full).seed(0x5eed)
}

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

/// Changes a byte that a heap has given memory for.
fn spoil(block: NonNull<u8>, offset: usize) {
    let place = block.as_ptr().wrapping_add(offset);
    // SAFETY: in granules that have memory and that are a test's heap's alone. This is the fault.
    let byte = unsafe { place.read_volatile() };
    // SAFETY: in memory of the test's own heap. This is the fault.
    unsafe { place.write_volatile(!byte) };
}

fn overflows(result: Result<(), HeapError>, block: NonNull<u8>) -> bool {
    matches!(result, Err(HeapError::Overflow(at)) if at.addr() == block.addr().get())
}

/// Asserts that new blocks of a size are another one than `corrupt`.
fn never_again<P: PageProvider + Copy>(heap: &Heap<P>, size: usize, corrupt: NonNull<u8>) {
    let (addr, mut blocks) = (corrupt.addr().get(), Vec::new());
    for _ in 0..(2 << 20) / size.max(2000) {
        let block = heap.alloc(bytes(size)).expect("memory");
        assert_ne!(block, corrupt, "handed out again");
        blocks.push(block);
    }
    assert_eq!(heap.block_of(addr), None, "it is not live");
    for block in blocks {
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    }
}

pub(super) fn what_is_written_behind_a_block_is_found<P: Provider + Copy>(p: P) -> Outcome {
    for (by_handle, size) in [false, true]
        .into_iter()
        .flat_map(|by| SIZES.map(|size| (by, size)))
    {
        let heap = heap(p, full());
        let local = heap.local().expect("metadata");
        let block = heap.alloc(bytes(size)).expect("memory");
        let neighbour = heap.alloc(bytes(size)).expect("memory");
        assert_eq!(heap.usable_size(block), Some(size), "what was asked for");
        // SAFETY: the block has this many bytes that may be used.
        unsafe { block.write_bytes(0xff, size) };
        spoil(block, size);
        // SAFETY: live, of that layout, and no other is returned.
        let resized = unsafe { heap.realloc(block, bytes(size), size + 1) };
        assert!(overflows(resized.map(|_| ()), block), "{size}: {resized:?}");
        assert_eq!(heap.usable_size(block), Some(size), "it is still live");
        let freed = if by_handle {
            // SAFETY: live, and used no more.
            unsafe { local.free(block) }
        } else {
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }
        };
        assert!(overflows(freed, block), "{size}: {freed:?}");
        assert_eq!(heap.statistics().corrupt_blocks, 1);
        // SAFETY: not live any more.
        let again = unsafe { heap.free(block) };
        assert_eq!(again, Err(HeapError::NotLive));
        never_again(&heap, size, block);
        // SAFETY: live, and used no more.
        unsafe { heap.free(neighbour) }.expect("a live block");
    }
    Outcome::Passed
}

pub(super) fn what_is_written_after_a_free_is_found<P: Provider + Copy>(p: P) -> Outcome {
    for size in SIZES.into_iter().filter(|size| *size <= 30_000) {
        // Freed blocks serve again at once.
        let heap = heap(p, full().quarantine(0));
        // So that the slab stays.
        let kept = heap.alloc(bytes(size)).expect("memory");
        for offset in [0, size / 2, size.saturating_sub(1)] {
            let before = heap.statistics().corrupt_blocks;
            let block = heap.alloc(bytes(size)).expect("memory");
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("a live block");
            spoil(block, offset);
            let mut others = Vec::new();
            let error = loop {
                match heap.alloc_zeroed(bytes(size)) {
                    Ok(other) => others.push(other),
                    Err(error) => break error,
                }
                assert!(others.len() < 10_000, "{size}: every block of the slab");
            };
            let HeapError::WriteAfterFree(at) = error else {
                panic!("{error}");
            };
            assert_eq!(at.addr(), block.addr().get(), "{size}");
            assert!(!others.contains(&block), "{size}");
            assert_eq!(heap.statistics().corrupt_blocks, before + 1);
            for other in others {
                // SAFETY: live, and used no more.
                unsafe { heap.free(other) }.expect("a live block");
            }
            never_again(&heap, size, block);
        }
        // SAFETY: live, and used no more.
        unsafe { heap.free(kept) }.expect("a live block");
    }
    Outcome::Passed
}

pub(super) fn what_is_written_where_no_block_ever_was_is_found<P: Provider + Copy>(
    p: P,
) -> Outcome {
    let heap = heap(p, full());
    let block = heap.alloc(bytes(40)).expect("memory");
    // Farther than the canary: into one of the neighbours, none of which was ever handed out.
    let start = block.addr().get();
    let (offset, wild) = match start % (64 << 10) {
        0 => (48_usize, start + 48),
        _ => (48_usize.wrapping_neg(), start - 48),
    };
    spoil(block, offset);
    let found = (0..2000).find_map(|_| heap.alloc(bytes(40)).err());
    let Some(HeapError::WriteAfterFree(at)) = found else {
        panic!("{found:?}");
    };
    assert_eq!(at.addr(), wild);
    // SAFETY: live, and used no more.
    unsafe { heap.free(block) }.expect("its own canary is intact");
    Outcome::Passed
}

pub(super) fn large_and_huge_blocks_lie_between_guards<P: Provider + Copy>(p: P) -> Outcome {
    // In segments that would ask for large pages, too.
    for segment in [1 << 20, 32 << 20] {
        between_guards(p, full().segment(segment));
    }
    Outcome::Passed
}

fn between_guards<P: Provider + Copy>(p: P, config: HeapConfig) {
    const GUARD: usize = 64 << 10;
    let counted = counted(p);
    let heap = Heap::<_, _>::on(&counted, p, config).expect("metadata");
    for (size, count) in [(300_000, 20), (1 << 20, 10), (3 << 20, 4), (5_000_001, 2)] {
        let blocks: Vec<_> = (0..count)
            .map(|_| heap.alloc(bytes(size)).expect("memory"))
            .collect();
        let held = heap.statistics();
        assert_eq!(held.committed, counted.counters().committed.now);
        // Nothing but blocks has memory: nothing before, between and behind them.
        assert_eq!(held.committed, held.large + held.huge, "{held:?}");
        let addrs: BTreeSet<_> = blocks.iter().map(|block| block.addr().get()).collect();
        for (below, above) in addrs.iter().zip(addrs.iter().skip(1)) {
            assert!(above - below >= size + GUARD, "{below:#x} {above:#x}");
        }
        for addr in addrs {
            for guard in [addr - 1, addr - GUARD, addr + size.next_multiple_of(GUARD)] {
                assert!(heap.owns(guard), "no one else's: {guard:#x}");
                assert_eq!(heap.block_of(guard), None, "{guard:#x}");
            }
            let around = heap.ranges().find(|range| range.addresses.contains(addr));
            let around = around.expect("a range");
            assert_eq!(around.kind == RangeKind::Huge, size > 1 << 20);
            assert!(around.addresses.contains(addr - GUARD));
            assert!(around.addresses.contains(addr + size + GUARD - 1));
        }
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("a live block");
        }
        assert_eq!(
            heap.statistics().committed,
            0,
            "freed ones are inaccessible"
        );
    }
    heap.trim();
    assert_eq!(heap.statistics().reserved, 0);
    drop(heap);
    assert_eq!(counted.counters().reserved.now, 0, "all goes back");
}

pub(super) fn blocks_come_in_an_order_that_a_seed_repeats<P: Provider + Copy>(p: P) -> Outcome {
    let order = |config: HeapConfig| -> Vec<usize> {
        let heap = heap(p, config);
        let blocks = (0..200).map(|_| heap.alloc(bytes(50)).expect("memory").addr().get());
        let blocks: Vec<_> = blocks.collect();
        // In the slab.
        blocks.iter().map(|addr| addr % (64 << 10)).collect()
    };
    let one = order(full());
    assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), one.len());
    let rises = one.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((60..140).contains(&rises), "{rises} of 199 steps rise");
    assert_eq!(one, order(full()), "the same seed");
    assert_ne!(one, order(full().seed(7)), "another seed");
    assert!(order(config()).is_sorted(), "the lowest first");
    Outcome::Passed
}

pub(super) fn blocks_are_aligned_apart_and_zeroed<P: Provider + Copy>(p: P) -> Outcome {
    calls::aligned_and_apart(&heap(p, full()));
    calls::zeroed_when_asked_to(&heap(p, full()));
    Outcome::Passed
}

pub(super) fn frees_by_calls_that_do_not_wait_are_checked<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, full());
    for size in [20, 3000, 300_001] {
        let (one, other) = (heap.alloc(bytes(size)), heap.alloc(bytes(size)));
        let (one, other) = (one.expect("memory"), other.expect("memory"));
        spoil(other, size);
        // SAFETY: live, and used no more.
        unsafe { heap.try_free(one) }.expect("a live block");
        // SAFETY: live, and used no more.
        let refused = unsafe { heap.try_free(other) };
        assert!(overflows(refused, other), "{refused:?}");
        match heap.try_alloc_zeroed(bytes(size)) {
            Ok(block) => {
                assert_eq!(heap.usable_size(block), Some(size));
                // SAFETY: as long as the heap says, whose bytes are initialised.
                let contents = unsafe { NonNull::slice_from_raw_parts(block, size).as_ref() };
                assert!(contents.iter().all(|byte| *byte == 0));
                // SAFETY: live, and used no more.
                unsafe { heap.free(block) }.expect("a live block");
            }
            Err(error) => assert_eq!(error, HeapError::Busy),
        }
    }
    heap.collect(Level::Deep);
    assert_eq!(heap.statistics().corrupt_blocks, 3);
    Outcome::Passed
}

pub(super) fn random_calls_keep_every_hardened_block_intact<P: Provider + Copy>(p: P) -> Outcome {
    let tally = ops::check(p, p, full(), op::random_ops(0xfa11).take(STEPS));
    assert_eq!(tally.exhausted, 0, "there is memory");
    assert!(tally.refused > 40 && tally.in_place > 3, "{tally:?}");
    Outcome::Passed
}

pub(super) fn any_call_of_the_provider_may_fail_a_hardened_heap<P: Provider + Copy>(
    p: P,
) -> Outcome {
    faults::any_call_may_fail(p, full());
    faults::random_calls_may_fail(p, full(), STEPS);
    Outcome::Passed
}
