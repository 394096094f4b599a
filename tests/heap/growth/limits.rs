//! Blocks that grow at limits of the host, and where calls fail.

use super::{Growing, MIB, MOVES, OS, grows, heap};
use crate::common::{limits::set_limit, skip_emulated};
use core::ptr::null_mut;
use hostmem::{
    heap::{HeapConfig, HeapError},
    page::PageSize,
    provider::{Capabilities, PageProvider},
    sim::{Faulty, Policy, Sim},
};
use hostmem_test_support::isolate::{isolated, skip};

#[test]
fn blocks_grow_under_a_limit_of_addresses() {
    if skip_emulated("has no limit of addresses") {
        return;
    }
    isolated!("blocks_grow_under_a_limit_of_addresses", || {
        let status = std::fs::read_to_string("/proc/self/statm").expect("a map");
        let pages = status
            .split(' ')
            .next()
            .and_then(|n| n.parse::<usize>().ok());
        let used = pages.expect("a number") * OS.page_size().bytes();
        set_limit(libc::RLIMIT_AS, used + 256 * MIB);
        grows(OS, 32 * MIB, "256 MiB are left");
        let heap = heap(OS, HeapConfig::new());
        let mut block = Growing::new(&heap, MIB);
        while block.resize(block.len + 300_000).is_ok() {}
        block.check();
        assert!(block.len >= 80 * MIB, "{} bytes", block.len);
        // In the end there are addresses for a few steps at a time only.
        assert!(block.moves <= 2 * MOVES, "{} moves", block.moves);
    });
}

#[test]
fn blocks_grow_at_the_limit_of_mappings() {
    if skip_emulated("has mappings of its own") {
        return;
    }
    isolated!("blocks_grow_at_the_limit_of_mappings", || {
        let heap = heap(OS, HeapConfig::new());
        let mut blocks: Vec<_> = (0..10).map(|_| Growing::new(&heap, 2 * MIB)).collect();
        blocks[1].grow_to(5 * MIB, 500_000);
        let len = 1 << 30;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever the kernel likes.
        let base = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let full = (0..len).step_by(8192).any(|offset| {
            let page = base.wrapping_byte_add(offset);
            // SAFETY: a page of the mapping, which no other code uses.
            let done = unsafe { libc::mprotect(page, 4096, libc::PROT_READ) };
            done != 0
        });
        if !full {
            skip("this host allows more mappings than the test makes");
            return;
        }
        // Into the room that it has, which takes no mapping more.
        let ahead = blocks[1].len + 1_500_000;
        let (moves, done) = (blocks[1].moves, blocks[1].resize(ahead));
        assert_eq!((done, blocks[1].moves), (Ok(()), moves));
        // Elsewhere, if the host lets them.
        let mut grown = 0;
        for block in &mut blocks {
            grown += usize::from(block.resize(block.len + 200_000).is_ok());
            block.check();
        }
        println!("{grown} of {} have grown", blocks.len());
        // SAFETY: the mapping from above, of which nothing is used.
        assert_eq!(unsafe { libc::munmap(base, len) }, 0);
        for block in &mut blocks {
            block.grow_to(9 * MIB, 700_000);
        }
        drop(blocks);
        heap.trim();
        assert_eq!(heap.statistics().reserved, 0, "all goes back");
    });
}

/// Each call fails once: the block is as it was then, and grows the next time.
#[test]
fn calls_that_fail_leave_a_block_as_it_was() {
    for without in [Capabilities::empty(), Capabilities::MOVE_PAGES] {
        let sim = Sim::new(OS, Policy::new(PageSize::KIB_4).without(without));
        let sim = sim.expect("addresses");
        let faulty = Faulty::new(&sim);
        for n in 0..200 {
            let heap = heap(&faulty, HeapConfig::new());
            if n % 2 == 1 {
                // What serves for the block then.
                let mut kept = Growing::new(&heap, MIB);
                kept.resize(30 * MIB).expect("memory");
            }
            let mut block = Growing::new(&heap, MIB);
            let before = faulty.failures();
            faulty.fail_nth(n);
            for len in [2 * MIB, 3 * MIB, 20 * MIB, 21 * MIB, 4 * MIB, 60 * MIB] {
                let old = block.len;
                if let Err(error) = block.resize(len) {
                    assert!(
                        matches!(error, HeapError::Memory(_) | HeapError::Metadata(_)),
                        "{error}"
                    );
                    assert_eq!(block.len, old);
                    block.check();
                    block.resize(len).expect("no other call fails");
                }
            }
            faulty.fail_none();
            block.check();
            let failed = faulty.failures() != before;
            drop(block);
            heap.trim();
            assert_eq!(heap.statistics().reserved, 0);
            drop(heap);
            assert_eq!(
                (sim.take_misuse(), sim.pages_in_use()),
                (None, 0),
                "call {n}"
            );
            if !failed {
                break;
            }
            assert!(n < 199, "there are more calls than expected");
        }
    }
}
