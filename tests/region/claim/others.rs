//! What other code maps and unmaps beside a claim.

use super::{GIB, MIB, OS, above, claim_above, free_bytes, hole, map_anywhere, stack};
use crate::common::{emulated, skip_emulated};
use core::ptr::null_mut;
use hostmem::{
    page::AddressRange,
    region::{Claimed, claim},
};
use hostmem_test_support::isolate;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn r12_what_others_map_lands_below_4_gib() {
    isolate::isolated!("r12_what_others_map_lands_below_4_gib", || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        let mut slots = [None; 1024];
        let claim = claim_above(&mut slots);
        let report = *claim.report();
        let (stack_start, stack_end) = stack();
        let room = stack_end - report.stack_room..stack_start;
        let top = report.range.expect("there are such addresses").last();
        let whole = AddressRange::new(4 * GIB, top).expect("not empty");
        assert_eq!(free_bytes(whole), room.len(), "all but the stack's room");
        assert_eq!(free_bytes(hole()), 0);

        for len in [1, 4096, 1 << 16, MIB, 64 * MIB, 512 * MIB] {
            for _ in 0..2 {
                let at = map_anywhere(len).expect("there is room below");
                assert!(at + len <= 4 * GIB, "{len} bytes at {at:#x}");
            }
        }
        // Until nothing is left below: what is larger than the room has nowhere to go.
        let mut len = 512 * MIB;
        while len >= report.stack_room {
            match map_anywhere(len) {
                Ok(at) => assert!(at + len <= 4 * GIB, "{len} bytes at {at:#x}"),
                Err(errno) => {
                    assert_eq!(errno, libc::ENOMEM);
                    len /= 2;
                }
            }
        }
        // What is smaller fills up the low addresses before it gets there, if it does.
        while let Ok(at) = map_anywhere(MIB) {
            let high = room.contains(&at) && room.contains(&(at + MIB - 1));
            assert!(at + MIB <= 4 * GIB || high, "{at:#x}");
            let low = AddressRange::new(1 << 20, 4 * GIB - 1).expect("not empty");
            if high {
                let mut longest = 0;
                hostmem::provider::walk_gaps(&OS, low, &mut |gap| {
                    longest = longest.max(gap.last() - gap.start() + 1);
                    true
                })
                .expect("/proc is mounted");
                assert!(longest <= 2 * MIB, "{longest:#x} were free below");
                break;
            }
        }
        assert_eq!(free_bytes(hole()), 0);
    });
}

#[test]
fn what_others_unmap_is_claimed_by_renewing() {
    isolate::isolated!("what_others_unmap_is_claimed_by_renewing", || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        let len = 3 * MIB;
        let library = map_anywhere(len).expect("there is room");
        assert!(library > 8 * GIB, "{library:#x}");
        let mut slots = [None; 1024];
        let mut claim = claim_above(&mut slots);
        let unmap = |at: usize| {
            // SAFETY: mapped by this test, and not used.
            let done = unsafe { libc::munmap(core::ptr::without_provenance_mut(at), len) };
            assert_eq!(done, 0);
        };
        unmap(library);
        let again = map_anywhere(len).expect("there is room");
        assert_eq!(again, library, "the kernel prefers high addresses");
        unmap(again);
        assert!(claim.renew().settled);
        let low = map_anywhere(len).expect("there is room");
        assert!(low + len <= 4 * GIB, "{low:#x}");
    });
}

#[test]
fn malloc_still_works_and_lands_low() {
    isolate::isolated!("malloc_still_works_and_lands_low", || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        let mut slots = [None; 1024];
        let _claim = claim_above(&mut slots);
        // More than the heap has left, and large ones, which are mapped.
        let mut kept = Vec::new();
        for n in 0..4096usize {
            // SAFETY: not zero.
            let memory = unsafe { libc::malloc(16 << (n % 8)) };
            assert!(!memory.is_null());
            kept.push(memory);
        }
        let large = 64 * MIB;
        // SAFETY: not zero.
        let memory = unsafe { libc::malloc(large) };
        assert!(!memory.is_null());
        assert!(memory.addr() + large <= 4 * GIB, "{memory:?}");
        // SAFETY: allocated above, that many bytes.
        unsafe { memory.cast::<u8>().write_bytes(0x5a, large) };
        kept.push(memory);
        for memory in kept {
            // SAFETY: allocated above, freed once.
            unsafe { libc::free(memory) };
        }
        // More than there is: cleanly.
        // SAFETY: not zero.
        assert!(unsafe { libc::malloc(8 * GIB) }.is_null());
        let thread = std::thread::spawn(|| (&raw const *Box::new(1)).addr());
        assert!(thread.join().expect("a thread starts and ends") != 0);
    });
}

#[test]
fn others_may_map_all_the_while() {
    isolate::isolated!("others_may_map_all_the_while", || {
        static STOP: AtomicBool = AtomicBool::new(false);
        let churn = |seed: usize| {
            let mut rounds = 0usize;
            let mut kept = Vec::with_capacity(512);
            while !STOP.load(Ordering::Relaxed) {
                let len = 4096 * (1 + (seed + rounds) % 7);
                rounds += 1;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
                let at = unsafe { libc::mmap(null_mut(), len, access, flags, -1, 0) };
                assert_ne!(at, libc::MAP_FAILED, "there is always room somewhere");
                let word = at.cast::<usize>();
                // SAFETY: mapped just now, writable.
                unsafe { word.write(seed + rounds) };
                if rounds.is_multiple_of(3) && kept.len() < kept.capacity() {
                    kept.push((word, seed + rounds));
                } else {
                    // SAFETY: mapped above, and not kept.
                    unsafe { libc::munmap(at, len) };
                }
            }
            for (word, value) in kept {
                // SAFETY: mapped above, and no other code's: that is what is tested.
                assert_eq!(unsafe { word.read() }, value, "nothing was replaced");
            }
            rounds
        };
        let threads: Vec<_> = (0..3)
            .map(|n| std::thread::spawn(move || churn(n * 1000)))
            .collect();
        let mut slots: Box<[Option<Claimed>]> = vec![None; 1 << 16].into();
        for _ in 0..if emulated() { 2 } else { 40 } {
            let mut claim = claim(OS, &above(), &mut slots).expect("a valid request");
            assert!(claim.report().map.is_ok() && !claim.report().full);
            // SAFETY: no other code uses the claim.
            unsafe { claim.give_back() }.expect("all can go");
        }
        STOP.store(true, Ordering::Relaxed);
        for thread in threads {
            assert!(thread.join().expect("no thread failed") > 0);
        }
        let claim = claim(OS, &above(), &mut slots).expect("a valid request");
        assert!(claim.report().settled, "no thread maps now");
        if emulated() {
            return;
        }
        let at = map_anywhere(MIB).expect("there is room below");
        assert!(at + MIB <= 4 * GIB);
    });
}
