//! What each call promises.

use super::{bytes, config, heap};
use crate::Outcome;
use alloc::vec::Vec;
use core::{alloc::Layout, ptr::NonNull};
use hostmem_core::{
    counted::{Counted, Limits},
    heap::{Heap, HeapError},
    provider::{PageProvider, Provider},
};

pub(super) fn blocks_are_aligned_and_apart<P: Provider + Copy>(p: P) -> Outcome {
    aligned_and_apart(&heap(p, config()));
    Outcome::Passed
}

pub(super) fn aligned_and_apart<P: PageProvider + Copy>(heap: &Heap<P>) {
    let local = heap.local().expect("metadata");
    for align in 0..=23 {
        let align = 1_usize << align;
        for size in [
            0, 1, 15, 16, 17, 1000, 1024, 1025, 5000, 33_000, 70_000, 300_000,
        ] {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            let one = local.alloc(layout).expect("memory");
            let other = heap.alloc(layout).expect("memory");
            let (a, b) = (one.addr().get(), other.addr().get());
            assert!(a.is_multiple_of(align) && b.is_multiple_of(align));
            assert!(a.abs_diff(b) >= size.max(1), "{layout:?}");
            for block in [one, other] {
                // SAFETY: a live block of this many bytes.
                unsafe { block.write_bytes(0xa5, size) };
                // SAFETY: live, and used no more.
                unsafe { local.free_sized(block, layout) }.expect("a live block");
            }
        }
    }
}

pub(super) fn fresh_and_used_memory_reads_zero_when_asked_to<P: Provider + Copy>(p: P) -> Outcome {
    zeroed_when_asked_to(&heap(p, config()));
    Outcome::Passed
}

pub(super) fn zeroed_when_asked_to<P: PageProvider + Copy>(heap: &Heap<P>) {
    let local = heap.local().expect("metadata");
    for size in [1, 16, 100, 4000, 40_000, 200_000, 500_000, 1_500_000] {
        for _ in 0..3 {
            let mut blocks = Vec::new();
            for n in 0..3 {
                let block = match n {
                    0 => heap.alloc_zeroed(bytes(size)),
                    _ => local.alloc_zeroed(bytes(size)),
                };
                let block = block.expect("memory");
                // SAFETY: a live block of this many bytes, which the heap says are initialised.
                let contents = unsafe { NonNull::slice_from_raw_parts(block, size).as_mut() };
                assert!(contents.iter().all(|byte| *byte == 0), "{size} bytes");
                contents.fill(0xff);
                blocks.push(block);
            }
            for block in blocks {
                // SAFETY: live, and used no more.
                unsafe { local.free(block) }.expect("a live block");
            }
        }
        heap.trim();
    }
}

pub(super) fn bad_frees_are_refused_and_change_nothing<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config());
    let local = heap.local().expect("metadata");
    for size in [16, 100, 5000, 100_000, 600_000, 3_000_000] {
        let kept = local.alloc(bytes(size)).expect("memory");
        let block = local.alloc(bytes(size)).expect("memory");
        let mut own = 0_u64;
        // SAFETY: within the block.
        let inside = unsafe { block.add(size / 2) };
        let stack = NonNull::from(&mut own).cast::<u8>();
        let wild = NonNull::without_provenance(core::num::NonZeroUsize::MAX);
        for (bad, why) in [
            (inside, HeapError::Interior),
            (stack, HeapError::NotOwned),
            (wild, HeapError::NotOwned),
        ] {
            // SAFETY: none is the start of a block.
            assert_eq!(unsafe { local.free(bad) }, Err(why), "{size} bytes");
            // SAFETY: none is the start of a block: it is refused.
            assert_eq!(unsafe { heap.free(bad) }, Err(why), "{size} bytes");
            // SAFETY: none is the start of a block: it is refused.
            let grown = unsafe { local.realloc(bad, bytes(1), 9) };
            assert_eq!(grown, Err(why), "{size} bytes");
        }
        let before = heap.statistics();
        // SAFETY: live, and used no more.
        unsafe { local.free(block) }.expect("a live block");
        let after = heap.statistics();
        assert!(after.used + size <= before.used, "{before:?} {after:?}");
        for _ in 0..2 {
            // SAFETY: not live any more.
            let again = unsafe { local.free(block) };
            assert_eq!(again, Err(HeapError::NotLive), "{size} bytes");
            // SAFETY: not live any more.
            let again = unsafe { heap.free(block) };
            assert_eq!(again, Err(HeapError::NotLive), "{size} bytes");
        }
        assert_eq!(heap.statistics(), after, "a refused free changes nothing");
        let next = local.alloc(bytes(size)).expect("memory");
        let other = local.alloc(bytes(size)).expect("memory");
        assert!(next != other && next != kept && other != kept);
    }
    Outcome::Passed
}

pub(super) fn addresses_are_told_apart<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config());
    for size in [48, 3000, 200_000, 700_000, 4_000_000] {
        let block = heap.alloc(bytes(size)).expect("memory");
        let addr = block.addr().get();
        for inside in [0, 1, size / 2, size - 1] {
            let found = heap.block_of(addr + inside).expect("a live block");
            assert_eq!(found.addr, addr);
            assert!(found.len >= size && heap.owns(addr + inside));
        }
        let behind = addr + heap.usable_size(block).expect("live");
        let other = heap.block_of(behind);
        assert!(other.is_none_or(|other| other.addr == behind), "{other:?}");
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
        assert_eq!(heap.block_of(addr), None, "a freed block");
        assert_eq!(heap.usable_size(block), None, "a freed block");
        assert!(heap.owns(addr), "freed memory is still the heap's");
    }
    let own = 0_u64;
    let stack = (&raw const own).addr();
    for foreign in [
        0,
        1,
        stack,
        usize::MAX,
        usize::MAX / 2 + 1,
        1 << (usize::BITS - 8),
    ] {
        assert!(!heap.owns(foreign), "{foreign:#x}");
        assert_eq!(heap.block_of(foreign), None, "{foreign:#x}");
    }
    Outcome::Passed
}

pub(super) fn impossible_sizes_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config());
    let local = heap.local().expect("metadata");
    let most = isize::MAX.unsigned_abs();
    for (size, align) in [
        (most, 1),
        (most - (1 << 16) + 1, 1 << 16),
        (1, 1 << (usize::BITS - 2)),
    ] {
        let layout = Layout::from_size_align(size, align).expect("a layout");
        for got in [local.alloc(layout), heap.alloc_zeroed(layout)] {
            let refused = matches!(got, Err(HeapError::InvalidSize | HeapError::Memory(_)));
            assert!(refused, "{layout:?}: {got:?}");
        }
    }
    let block = local.alloc(bytes(10)).expect("memory still");
    // SAFETY: a live block of this layout.
    let got = unsafe { local.realloc(block, bytes(10), usize::MAX) };
    assert_eq!(got, Err(HeapError::InvalidSize));
    assert!(heap.usable_size(block).is_some(), "it stays");
    Outcome::Passed
}

pub(super) fn large_blocks_grow_where_they_lie<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config().segment(4 << 20));
    let mut layout = bytes(300_000);
    let block = heap.alloc(layout).expect("memory");
    // SAFETY: a live block of this many bytes.
    unsafe { block.write_bytes(3, layout.size()) };
    for size in [400_000, 1_000_000, 500_000, 700_000] {
        // SAFETY: a live block of this layout.
        let grown = unsafe { heap.realloc(block, layout, size) };
        assert_eq!(grown, Ok(block), "the granules behind are free");
        layout = bytes(size);
        assert!(heap.usable_size(block).is_some_and(|usable| usable >= size));
        assert_eq!(
            heap.block_of(block.addr().get() + size - 1).map(|b| b.addr),
            Some(block.addr().get())
        );
    }
    let behind = heap.alloc(bytes(300_000)).expect("memory");
    // SAFETY: a live block of this layout.
    let moved = unsafe { heap.realloc(block, layout, 1_000_000) }.expect("memory");
    assert_ne!(moved, block, "another block lies behind");
    for n in 0..300_000 {
        // SAFETY: within the block, and written above.
        let byte = unsafe { moved.add(n) };
        // SAFETY: within the block, and written above.
        assert_eq!(unsafe { byte.read() }, 3, "contents move along");
    }
    for block in [moved, behind] {
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    }
    Outcome::Passed
}

pub(super) fn a_dropped_handle_leaves_its_blocks_to_others<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config().shards(1));
    let mut first = None;
    for round in 0..200 {
        let local = heap.local().expect("metadata");
        let blocks: Vec<_> = (0..100)
            .map(|n| local.alloc(bytes(n * 20)).expect("memory"))
            .collect();
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { local.free(block) }.expect("a live block");
        }
        drop(local);
        let mut held = heap.statistics();
        assert_eq!((held.used, held.cached), (0, 0), "{held:?}");
        let asked: u64 = (0..100).map(|n| n * 20).sum();
        assert_eq!(held.requested, (round + 1) * asked);
        held.requested = 0;
        // Handles find the room that others had; it grows for some rounds.
        if round >= 20 {
            let first = *first.get_or_insert(held);
            assert_eq!(held, first, "round {round}: nothing is left behind");
        }
    }
    Outcome::Passed
}

pub(super) fn a_full_host_is_exhausted_and_serves_again<P: Provider + Copy>(p: P) -> Outcome {
    let limits = Limits {
        reserved: usize::MAX,
        memory: 8 << 20,
    };
    let limited: Counted<P> = Counted::new(p, "heap", limits).expect("a small arena");
    let heap = Heap::<_, _>::on(&limited, p, config()).expect("metadata");
    let local = heap.local().expect("metadata");
    for size in [100, 9000, 200_000, 700_000, 2_000_000] {
        let mut blocks = Vec::new();
        let error = loop {
            match local.alloc(bytes(size)) {
                Ok(block) => blocks.push(block),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, HeapError::Memory(_)), "{error}");
        let got = blocks.len() * size;
        assert!(got > 5 << 20, "{got} bytes of {size}");
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { local.free(block) }.expect("a live block");
        }
    }
    Outcome::Passed
}

pub(super) fn two_heaps_know_their_own<P: Provider + Copy>(p: P) -> Outcome {
    let (one, other) = (heap(p, config()), heap(p, config()));
    for size in [10, 2000, 100_000, 600_000, 2_000_000] {
        let (a, b) = (
            one.alloc(bytes(size)).expect("memory"),
            other.alloc(bytes(size)).expect("memory"),
        );
        assert!(one.owns(a.addr().get()) && !one.owns(b.addr().get()));
        assert!(other.owns(b.addr().get()) && !other.owns(a.addr().get()));
        // SAFETY: not a block of that heap.
        assert_eq!(unsafe { other.free(a) }, Err(HeapError::NotOwned));
        // SAFETY: live, and used no more.
        unsafe { one.free(a) }.expect("its own");
    }
    drop(other);
    let block = one.alloc(bytes(100)).expect("memory");
    // SAFETY: a live block of this many bytes.
    unsafe { block.write_bytes(9, 100) };
    Outcome::Passed
}
