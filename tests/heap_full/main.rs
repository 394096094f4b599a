//! A program in a heap of the highest level of hardening, and how it ends.
#![cfg(all(target_os = "linux", feature = "linux", feature = "std"))]

use hostmem::{
    OsLock, OsProvider,
    heap::{GlobalHeap, Hardening, Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap},
};
use hostmem_test_support::isolate::{is_isolated, isolated_command, run};
use std::{collections::BTreeMap, thread};

hostmem::std_slot! {
    /// Where threads keep the handles of this program's heap.
    struct Slot;
}

#[derive(Debug)]
struct Full;

// SAFETY: the state and the slot are this heap's alone, and no provider allocates.
unsafe impl StaticHeap for Full {
    type Pages = OsProvider;
    type Metadata = OsProvider;
    type Lock = OsLock;
    type Slot = Slot;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        let os = OsProvider::new();
        Heap::on(os, os, HeapConfig::new().hardening(Hardening::Full))
    }

    fn state() -> &'static State<Self> {
        static STATE: State<Full> = State::new();
        &STATE
    }
}

#[global_allocator]
static HEAP: GlobalHeap<Full> = GlobalHeap::new();

#[test]
fn a_program_lives_in_it() {
    let threads = (0..8_usize).map(|seed| {
        thread::spawn(move || {
            let mut map = BTreeMap::new();
            for n in 0..500 {
                map.insert(n, vec![seed; n * 7 % 3000]);
                if n % 3 == 0 {
                    map.remove(&(n / 2));
                }
            }
            assert!(map.values().all(|list| list.iter().all(|n| *n == seed)));
            assert!(vec![0_u8; 2 << 20].iter().all(|byte| *byte == 0));
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("no thread fails");
    }
    let held = HEAP.heap().expect("it is open").statistics();
    assert!(held.used > 0 && held.quarantined > 0, "{held:?}");
    assert_eq!(held.corrupt_blocks, 0, "{held:?}");
}

/// Runs a test by itself, which does what ends it; asserts that the end is told by these words.
fn ends(name: &str, fault: impl FnOnce(), words: &str) {
    if is_isolated(name) {
        fault();
        return;
    }
    let output = run(&mut isolated_command(name));
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_block_that_is_written_beyond_its_end_ends_the_program() {
    let fault = || {
        let mut list = vec![1_u8; 100];
        let end = list.as_mut_ptr().wrapping_add(list.capacity());
        // SAFETY: none: this is the fault. The byte is the canary's.
        let canary = unsafe { end.read_volatile() };
        // SAFETY: none: this is the fault. The byte is the canary's.
        unsafe { end.write_volatile(!canary) };
        drop(list);
    };
    let name = "a_block_that_is_written_beyond_its_end_ends_the_program";
    ends(name, fault, "was written beyond its end");
}

#[test]
fn a_block_that_is_written_after_it_was_freed_ends_the_program() {
    let fault = || {
        let mut lists: Vec<_> = (0..100).map(|_| vec![1_u8; 1000]).collect();
        let mut stale = lists.pop().expect("a list");
        let start = stale.as_mut_ptr();
        drop(stale);
        // SAFETY: none: this is the fault. The block is free, and its slab has live ones.
        unsafe { start.write_volatile(0x5a) };
        HEAP.heap().expect("it is open").trim();
        lists.extend((0..1000).map(|_| vec![1_u8; 1000]));
        drop(lists);
    };
    let name = "a_block_that_is_written_after_it_was_freed_ends_the_program";
    ends(name, fault, "was written while it was free");
}
