//! The bugs, each by itself: what became of it.

use super::{
    FAULTS, FOUND, HARMLESS, MISSED, OsHeap, alloc, bytes, ends, free, read, refused, write,
};
use hostmem::heap::{Hardening, HeapConfig, HeapError};
use std::{
    collections::BTreeSet,
    ptr::{NonNull, with_exposed_provenance_mut},
    sync::Barrier,
    thread,
};

/// Says whether a corrupt block is found when it is handed out again.
pub(super) fn at_reuse(heap: &OsHeap, size: usize) -> &'static str {
    // Ends the quarantine.
    heap.trim();
    for _ in 0..8192 {
        match heap.alloc(bytes(size)) {
            Ok(_) => {}
            Err(HeapError::WriteAfterFree(_)) => return FOUND,
            Err(error) => panic!("{error}"),
        }
    }
    MISSED
}

pub(super) fn double_free(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    free(heap, block).expect("a live block");
    refused(free(heap, block))
}

pub(super) fn double_free_after_reuse(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    free(heap, block).expect("a live block");
    let other = alloc(heap, 100);
    let told = refused(free(heap, block));
    assert_eq!(told == FOUND, other != block, "it serves again");
    told
}

pub(super) fn free_inside(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    refused(free(
        heap,
        NonNull::new(block.as_ptr().wrapping_add(16)).expect("inside"),
    ))
}

pub(super) fn free_of_a_variable(heap: &OsHeap) -> &'static str {
    let mut variable = [0_u64; 4];
    refused(free(heap, NonNull::from(&mut variable).cast()))
}

pub(super) fn free_of_another_heaps(heap: &OsHeap) -> &'static str {
    let other = crate::system::heap(HeapConfig::new());
    refused(free(heap, alloc(&other, 100)))
}

pub(super) fn free_by_two_threads(heap: &OsHeap) -> &'static str {
    let barrier = Barrier::new(2);
    let twice = (0..200).any(|_| {
        let addr = alloc(heap, 100).expose_provenance().get();
        let by_one = || {
            let local = heap.local().expect("metadata");
            let block = NonNull::new(with_exposed_provenance_mut(addr)).expect("a block");
            barrier.wait();
            // SAFETY: none: this is the fault.
            unsafe { local.free(block) }.is_ok()
        };
        thread::scope(|scope| {
            let other = scope.spawn(by_one);
            let own = by_one();
            own == other.join().expect("no panic")
        })
    });
    if twice { MISSED } else { FOUND }
}

pub(super) fn overflow_by_one(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    write(block, 100, 1);
    refused(free(heap, block))
}

pub(super) fn overflow_by_eight(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    write(block, 100, 8);
    refused(free(heap, block))
}

pub(super) fn overflow_into_the_neighbour(heap: &OsHeap) -> &'static str {
    // The first of two that lie side by side.
    let blocks: BTreeSet<_> = (0..2000).map(|_| alloc(heap, 100)).collect();
    let next = |block: &&NonNull<u8>| {
        let next = block.as_ptr().wrapping_add(112);
        blocks.contains(&NonNull::new(next).expect("not null"))
    };
    let block = *blocks.iter().find(next).expect("neighbours");
    write(block, 0, 150);
    refused(free(heap, block))
}

pub(super) fn underflow(heap: &OsHeap) -> &'static str {
    let blocks: BTreeSet<_> = (0..2000).map(|_| alloc(heap, 100)).collect();
    let before = |block: &NonNull<u8>| {
        let before = NonNull::new(block.as_ptr().wrapping_sub(112)).expect("not null");
        blocks.get(&before).copied()
    };
    let (block, before) = blocks
        .iter()
        .find_map(|block| Some((*block, before(block)?)))
        .expect("neighbours");
    write(block, -8, 8);
    refused(free(heap, before))
}

pub(super) fn overflow_of_a_large_block(heap: &OsHeap) -> &'static str {
    let _neighbours = [(); 4].map(|()| alloc(heap, 300_000));
    let block = alloc(heap, 300_000);
    // What lies behind may be nothing at any level; in the rest of the last granule nothing faults.
    if ends(block, 300_000_usize.next_multiple_of(65_536))
        && heap.config().level() == Hardening::Full
    {
        return FAULTS;
    }
    MISSED
}

pub(super) fn write_after_free(heap: &OsHeap) -> &'static str {
    let (_kept, block) = (alloc(heap, 100), alloc(heap, 100));
    free(heap, block).expect("a live block");
    write(block, 8, 8);
    at_reuse(heap, 100)
}

pub(super) fn write_deep_into_a_freed_block(heap: &OsHeap) -> &'static str {
    let (_kept, block) = (alloc(heap, 100), alloc(heap, 100));
    free(heap, block).expect("a live block");
    write(block, 64, 8);
    at_reuse(heap, 100)
}

pub(super) fn read_after_free(heap: &OsHeap) -> &'static str {
    let (_kept, block) = (alloc(heap, 100), alloc(heap, 100));
    write(block, 0, 100);
    free(heap, block).expect("a live block");
    if (0..100).any(|offset| read(block, offset) == 0xa5) {
        MISSED
    } else {
        HARMLESS
    }
}

pub(super) fn use_of_a_freed_large_block(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 300_000);
    write(block, 0, 8);
    free(heap, block).expect("a live block");
    if ends(block, 0) { FAULTS } else { MISSED }
}

pub(super) fn read_before_write(heap: &OsHeap) -> &'static str {
    let secrets: Vec<_> = (0..100).map(|_| alloc(heap, 100)).collect();
    for block in &secrets {
        write(*block, 0, 100);
    }
    // Every second one, so that the memory stays.
    for block in secrets.into_iter().step_by(2) {
        free(heap, block).expect("a live block");
    }
    heap.trim();
    let mut blocks = (0..600).map(|_| alloc(heap, 100));
    if blocks.any(|block| read(block, 50) == 0xa5) {
        MISSED
    } else {
        HARMLESS
    }
}

pub(super) fn free_by_a_wrong_size(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    // SAFETY: none, as the size is another one: this is the fault.
    refused(unsafe { heap.free_sized(block, bytes(16)) })
}

pub(super) fn resize_after_free(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    free(heap, block).expect("a live block");
    // SAFETY: none: this is the fault.
    refused(unsafe { heap.realloc(block, bytes(100), 200) })
}

pub(super) fn resize_by_a_wrong_layout(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    // SAFETY: none, as the size is another one: this is the fault.
    refused(unsafe { heap.realloc(block, bytes(16), 200) })
}

pub(super) fn forged_links(heap: &OsHeap) -> &'static str {
    let blocks: Vec<_> = (0..100).map(|_| alloc(heap, 100)).collect();
    let target = alloc(heap, 100);
    for block in &blocks {
        free(heap, *block).expect("a live block");
        // As a list through free blocks would have them.
        // SAFETY: none: this is the fault.
        unsafe { block.cast::<[NonNull<u8>; 2]>().write_volatile([target; 2]) };
    }
    if at_reuse(heap, 100) == FOUND {
        return FOUND;
    }
    let reached = (0..1000).any(|_| alloc(heap, 100) == target);
    if reached { MISSED } else { HARMLESS }
}

pub(super) fn overwritten_metadata(heap: &OsHeap) -> &'static str {
    // All of a granule of blocks, from the first one on.
    let blocks: BTreeSet<_> = (0..600).map(|_| alloc(heap, 100)).collect();
    let granule = |block: &NonNull<u8>| block.addr().get() >> 16;
    let of = granule(blocks.first().expect("a block"));
    let victims: Vec<_> = blocks.iter().filter(|block| granule(block) == of).collect();
    for block in &victims {
        write(**block, 0, 112);
    }
    let found = victims.iter().filter(|block| free(heap, ***block).is_err());
    let found = found.count() != 0;
    // Whatever was written, the heap knows its blocks.
    for block in blocks.iter().filter(|block| granule(block) != of) {
        free(heap, *block).expect("a live block");
    }
    let held = heap.statistics();
    assert_eq!(held.used, held.corrupt_blocks * 112, "{held:?}");
    if found { FOUND } else { HARMLESS }
}
