//! What the highest level of hardening promises beside what it finds: keys, a quarantine, a budget
//! of mappings, and a hook for interfaces without errors.

use crate::{
    common::skip_emulated,
    system::{OS, OsHeap, bytes, heap},
};
use hostmem::{
    heap::{Hardening, HeapConfig, HeapError},
    provider::{PageProvider, Resource},
};
use hostmem_test_support::isolate::isolated;
use std::collections::BTreeSet;

fn full() -> HeapConfig {
    HeapConfig::new().hardening(Hardening::Full)
}

/// Reads the canary of a block of eight bytes, which has room for one more word.
fn canary(heap: &OsHeap) -> (usize, [u8; 8]) {
    let block = heap.alloc(bytes(8)).expect("memory");
    // SAFETY: in the block, which has 16 bytes.
    let behind = unsafe { block.add(8) };
    // SAFETY: in the block, which has 16 bytes.
    let canary = unsafe { behind.cast::<[u8; 8]>().read() };
    (block.addr().get(), canary)
}

#[test]
fn canaries_begin_with_zero_and_differ_by_block_and_by_heap() {
    let one = heap(full());
    let canaries: Vec<_> = (0..1000).map(|_| canary(&one)).collect();
    assert!(canaries.iter().all(|(_, canary)| canary[0] == 0));
    let all: BTreeSet<_> = canaries.iter().map(|(_, canary)| canary).collect();
    assert_eq!(all.len(), canaries.len(), "one a block");
    // Keys are random: the offsets of the first blocks in their granules differ between heaps, and
    // so do canaries of blocks at the same addresses.
    let order = || -> Vec<usize> {
        let heap = heap(full());
        (0..40).map(|_| canary(&heap).0 % (64 << 10)).collect()
    };
    assert_ne!(order(), order());
    let keyed = |key: u8| {
        let heap = heap(full().keys([key; 32]));
        (0..4000).map(|_| canary(&heap)).collect::<BTreeSet<_>>()
    };
    let (first, second) = (keyed(1), keyed(2));
    assert!(first.is_disjoint(&second), "by the key");
    let level_2 = heap(HeapConfig::new().hardening(Hardening::Canaries));
    let canaries: BTreeSet<_> = (0..1000).map(|_| canary(&level_2).1).collect();
    assert!(canaries.len() > 200 && canaries.iter().all(|canary| canary[0] == 0));
    let told = |key: u8| format!("{:?}", full().keys([key; 32]));
    assert_eq!(told(1), told(2), "keys are not told");
}

#[test]
fn freed_blocks_of_all_sizes_wait() {
    const BYTES: usize = 1 << 20;
    const ADDRESSES: usize = 16 << 20;
    for size in [16, 1000, 30_000, 200_000, 300_000, 1 << 20, 3_000_000] {
        let heap = heap(full().quarantine(BYTES).quarantine_addresses(ADDRESSES));
        let local = heap.local().expect("metadata");
        let block = heap.alloc(bytes(size)).expect("memory");
        // SAFETY: live, and used no more.
        unsafe { local.free(block) }.expect("a live block");
        let few = (BYTES / 2 / size).clamp(1, 1000);
        for _ in 0..few {
            let other = local.alloc(bytes(size)).expect("memory");
            assert_ne!(other, block, "{size}: it waits");
            // SAFETY: live, and used no more.
            unsafe { local.free(other) }.expect("a live block");
            // SAFETY: none: it was freed.
            let again = unsafe { local.free(block) };
            assert_eq!(again, Err(HeapError::NotLive), "{size}");
        }
        let many = (3 * ADDRESSES / size).min(20_000);
        for _ in 0..many {
            let other = local.alloc(bytes(size)).expect("memory");
            // SAFETY: live, and used no more.
            unsafe { heap.free(other) }.expect("a live block");
            let held = heap.statistics();
            assert!(held.quarantined <= BYTES, "{held:?}");
            assert!(held.quarantined_addresses <= ADDRESSES, "{held:?}");
            assert_eq!(held.used, 0, "{held:?}");
            if size < 4096 {
                break;
            }
        }
        let held = heap.statistics();
        assert!(
            held.quarantined + held.quarantined_addresses >= size,
            "{held:?}"
        );
        drop(local);
        heap.trim();
        let held = heap.statistics();
        assert_eq!((held.quarantined, held.quarantined_addresses), (0, 0));
        assert_eq!(held.reserved, 0, "{held:?}");
    }
}

#[test]
fn layouts_are_compared() {
    for size in [100, 30_000, 300_000, 3_000_000] {
        let heap = heap(full());
        let local = heap.local().expect("metadata");
        let block = heap.alloc(bytes(size)).expect("memory");
        let wrong = |result: Result<(), HeapError>| {
            let Err(HeapError::WrongLayout(at)) = result else {
                panic!("{size}: {result:?}");
            };
            assert_eq!(at.addr(), block.addr().get(), "{size}");
        };
        for other in [size - 1, size + 1, 16] {
            // SAFETY: none, as the layout is another one; each is refused.
            wrong(unsafe { heap.free_sized(block, bytes(other)) });
            // SAFETY: none, as the layout is another one; each is refused.
            wrong(unsafe { local.free_sized(block, bytes(other)) });
            // SAFETY: none, as the layout is another one; each is refused.
            wrong(unsafe { heap.realloc(block, bytes(other), 200) }.map(|_| ()));
            // SAFETY: none, as the layout is another one; each is refused.
            wrong(unsafe { local.realloc(block, bytes(other), 200) }.map(|_| ()));
            // SAFETY: none, as the layout is another one; each is refused.
            wrong(unsafe { heap.try_realloc(block, bytes(other), 200) }.map(|_| ()));
        }
        // SAFETY: live, of this layout, and no other is used.
        let block = unsafe { local.realloc(block, bytes(size), size + 100) }.expect("memory");
        // SAFETY: live, of this layout, and used no more.
        unsafe { local.free_sized(block, bytes(size + 100)) }.expect("its layout");
    }
}

/// Guards of this many blocks would be all the mappings that a process can have.
#[test]
fn guards_are_given_up_before_mappings_are_used_up() {
    if skip_emulated("has mappings of its own") {
        return;
    }
    isolated!("guards_are_given_up_before_mappings_are_used_up", || {
        let left = || OS.left(Resource::Mappings).expect("a limit");
        let before = left();
        let heap = heap(full());
        let blocks: Vec<_> = (0..32_735)
            .map(|_| heap.alloc(bytes(300_000)).expect("memory"))
            .collect();
        let held = heap.statistics();
        assert!(held.unguarded_blocks > 0, "{held:?}");
        assert!(held.unguarded_blocks < blocks.len(), "{held:?}");
        assert!(left() > before / 3, "{} of {before} are left", left());
        for block in blocks.iter().step_by(2) {
            // SAFETY: live, and used no more.
            unsafe { heap.free(*block) }.expect("a live block");
        }
        assert!(left() > before / 3, "{} of {before} are left", left());
        for block in blocks.iter().skip(1).step_by(2) {
            // SAFETY: live, and used no more.
            unsafe { heap.free(*block) }.expect("a live block");
        }
        assert_eq!(heap.statistics().unguarded_blocks, 0);
        heap.trim();
        assert_eq!(heap.statistics().reserved, 0);
    });
}

#[test]
fn a_budget_of_mappings_is_kept_for_blocks_of_all_kinds() {
    const BUDGET: usize = 300;
    let heap = heap(full().mappings(BUDGET));
    let sizes = [300_000, 2_000_000, 1 << 20, 5_000_000];
    let blocks: Vec<_> = (0..400)
        .map(|n| heap.alloc(bytes(sizes[n % 4])).expect("memory"))
        .collect();
    let held = heap.statistics();
    assert!((200..400).contains(&held.unguarded_blocks), "{held:?}");
    for block in blocks {
        let size = heap.usable_size(block).expect("a live block");
        // SAFETY: a live block of this many bytes.
        unsafe { block.write_bytes(1, size) };
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    }
    heap.trim();
    let held = heap.statistics();
    assert_eq!((held.reserved, held.unguarded_blocks), (0, 0), "{held:?}");
}

#[cfg(feature = "allocator-api2")]
mod collections {
    use super::*;
    use allocator_api2::{alloc::Allocator, vec::Vec as Collection};
    use hostmem_test_support::isolate::{is_isolated, isolated_command, run, test_path};
    use std::sync::Mutex;

    static TOLD: Mutex<Vec<(usize, HeapError)>> = Mutex::new(Vec::new());

    #[test]
    fn a_hook_is_told_of_frees_that_are_refused() {
        let hook = |block: *mut u8, error| {
            TOLD.lock().expect("no panic").push((block.addr(), error));
        };
        let heap = heap(full().on_invalid_free(hook));
        let told = || TOLD.lock().expect("no panic").pop();
        let block: core::ptr::NonNull<u8> = (&heap).allocate(bytes(100)).expect("memory").cast();
        // SAFETY: none, as the layout is another one.
        unsafe { (&heap).deallocate(block, bytes(50)) };
        assert!(matches!(told(), Some((_, HeapError::WrongLayout(_)))));
        // SAFETY: live, and used no more.
        unsafe { (&heap).deallocate(block, bytes(100)) };
        assert_eq!(told(), None);
        // SAFETY: none: it was freed.
        unsafe { (&heap).deallocate(block, bytes(100)) };
        assert_eq!(told(), Some((block.addr().get(), HeapError::NotLive)));
        // SAFETY: none: it was freed.
        assert!(unsafe { (&heap).grow(block, bytes(100), bytes(200)) }.is_err());
        assert_eq!(told(), Some((block.addr().get(), HeapError::NotLive)));
    }

    #[test]
    fn without_a_hook_the_program_ends() {
        let name = &test_path!("without_a_hook_the_program_ends");
        if is_isolated(name) {
            let heap = heap(full());
            let mut list = Collection::new_in(&heap);
            list.extend([1_u8; 100]);
            list.shrink_to_fit();
            let end = list.as_mut_ptr().wrapping_add(100);
            // SAFETY: none: this is the fault. The byte is the canary's.
            unsafe { end.write_volatile(0xff) };
            drop(list);
            return;
        }
        let output = run(&mut isolated_command(name));
        assert!(!output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("was written beyond its end"), "{said}");
    }
}
