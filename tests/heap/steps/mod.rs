//! Forks between any two instructions of calls of a heap in a static: by a handler that interrupted
//! the call, which ends in the child or goes on there, and as if another thread had made it.

mod hardened;

use crate::{
    common::{
        at_length, emulated,
        steps::{Then, at_steps, count_steps, isolated_with_loops},
    },
    system::OS,
};
use core::{
    cell::Cell,
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use hostmem::{
    OsLock, OsProvider,
    fork::ForkChild,
    heap::{
        DETACHED, FRESH, GlobalHeap, Hardening, Heap, HeapConfig, HeapError, HeapOf, Level, State,
        StaticHeap, ThreadSlot,
    },
};
use hostmem_test_support::isolate::test_path;

const HEAP: GlobalHeap<Stepped> = GlobalHeap::new();
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

hostmem::std_slot! {
    struct Slot;
}

/// Whether the heap is to be hardened: said before it is opened.
static IS_FULL: AtomicBool = AtomicBool::new(false);

struct Stepped;

// SAFETY: the state and the slot are this heap's alone, and no provider allocates.
unsafe impl StaticHeap for Stepped {
    type Pages = OsProvider;
    type Metadata = OsProvider;
    type Lock = OsLock;
    type Slot = Slot;

    const HARDENED: bool = true;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        // One shard, so that two threads meet.
        let mut config = HeapConfig::new().shards(1).large_pages(false);
        if IS_FULL.load(Relaxed) {
            // Little waits, so that calls bring back what has waited.
            config = config
                .hardening(Hardening::Full)
                .quarantine(4 * KIB)
                .quarantine_addresses(4 * MIB);
        }
        Heap::on(OS, OS, config)
    }

    fn state() -> &'static State<Self> {
        static STATE: State<Stepped> = State::new();
        &STATE
    }
}

type Block = Option<NonNull<u8>>;

fn alloc(size: usize) -> Block {
    let block = HEAP.alloc_bytes(size).ok()?;
    // SAFETY: a block of this many bytes, which is this thread's.
    unsafe { block.write_bytes(size.to_le_bytes()[0] | 1, size.min(4 * KIB)) };
    Some(block)
}

fn free(block: NonNull<u8>) -> bool {
    // SAFETY: live, and used no more.
    unsafe { HEAP.free(block) }.is_ok()
}

/// Sizes of all kinds of blocks.
const SIZES: [usize; 8] = [
    24,
    700,
    9 * KIB,
    70 * KIB,
    200 * KIB,
    400 * KIB,
    2 * MIB,
    5 * MIB,
];

/// What the heap is filled with before.
struct Live {
    blocks: [Cell<Block>; SIZES.len()],
}

impl Live {
    /// Says what is wrong with blocks that a child has from its parent; frees them.
    fn check_and_free(&self) -> i32 {
        let Ok(heap) = HEAP.heap() else {
            return 20;
        };
        for (block, size) in self.blocks.iter().zip(SIZES) {
            let Some(block) = block.take() else {
                continue;
            };
            let addr = block.addr().get();
            let found = heap.block_of(addr + size / 2);
            if !heap.owns(addr) || found.is_none_or(|found| found.addr != addr) {
                return 21;
            }
            // SAFETY: live, and this thread's.
            if unsafe { block.read() } != size.to_le_bytes()[0] | 1 {
                return 22;
            }
            if !free(block) || heap.block_of(addr).is_some() {
                return 23;
            }
        }
        0
    }
}

/// Allocates and frees blocks of all kinds; zero if all is well.
fn use_heap() -> i32 {
    let Ok(heap) = HEAP.heap() else {
        return 1;
    };
    for round in 0..2 {
        let mut blocks = [None; 3 * SIZES.len()];
        for (n, place) in blocks.iter_mut().enumerate() {
            *place = alloc(SIZES[n % SIZES.len()]);
            let Some(block) = *place else {
                return 2 + round;
            };
            let start = block.addr().get();
            if heap
                .block_of(start + 10)
                .is_none_or(|found| found.addr != start)
            {
                return 4;
            }
        }
        for (n, block) in blocks.iter().enumerate() {
            let Some(block) = *block else {
                return 5;
            };
            // No two blocks share a byte.
            // SAFETY: live, and this thread's.
            if unsafe { block.read() } != SIZES[n % SIZES.len()].to_le_bytes()[0] | 1 {
                return 6;
            }
            if !free(block) {
                return 7;
            }
        }
    }
    if heap
        .walk(|_| core::ops::ControlFlow::<()>::Continue(()))
        .is_break()
    {
        return 8;
    }
    let held = heap.statistics();
    if held.used > held.committed + held.huge + 64 * MIB {
        return 9;
    }
    0
}

/// Who made the call that a child finds under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The forking thread, as its slot says.
    ThisThread,
    /// As if it were another one: the slot says nothing of it.
    Another,
}

/// Forks at every step of a call.
fn fork_in(prepare: &dyn Fn(), call: &dyn Fn() -> Block, after: &dyn Fn(Block) -> bool) {
    let live = &Live {
        blocks: [const { Cell::new(None) }; SIZES.len()],
    };
    let prepare = || {
        for (place, size) in live.blocks.iter().zip(SIZES) {
            if place.get().is_none() {
                place.set(alloc(size));
            }
        }
        prepare();
    };
    let forks = match (at_length(), IS_FULL.load(Relaxed)) {
        (true, _) => 1000,
        (false, false) => 16,
        // Each child takes longer.
        (false, true) => 8,
    };
    let after = |block| {
        if !after(block) {
            return 60;
        }
        match use_heap() {
            0 => 0,
            code => 70 + code,
        }
    };
    let count = count_steps(&prepare, call, &after);
    for (by, then) in [
        (By::ThisThread, Then::Ends),
        (By::ThisThread, Then::Resumes),
        (By::Another, Then::Ends),
    ] {
        let child = || {
            // SAFETY: it ends this process if it hangs.
            unsafe { libc::alarm(20) };
            if by == By::Another {
                Slot::set(FRESH);
            }
            // SAFETY: this is the only thread of a child, which has called nothing of the heap.
            if unsafe { HEAP.fork_child() }.is_err() {
                return 50;
            }
            match (use_heap(), live.check_and_free()) {
                (0, 0) => 0,
                (0, code) | (code, _) => code,
            }
        };
        at_steps(count, forks, then, &prepare, call, &child, &after);
    }
}

fn frees(block: Block) -> bool {
    block.is_some_and(free)
}

#[test]
fn children_of_allocations_use_the_heap() {
    isolated_with_loops(&test_path!("children_of_allocations_use_the_heap"), || {
        if emulated() {
            return;
        }
        let nothing = || ();
        for size in [48, 3000, 50 * KIB, 100 * KIB, 600 * KIB, 3 * MIB] {
            // The thread has none cached, so that it takes some from a bin, and the first time the
            // bin a slab.
            let flush = || {
                HEAP.flush();
            };
            fork_in(&flush, &|| alloc(size), &frees);
            fork_in(&nothing, &|| alloc(size), &frees);
        }
    });
}

#[test]
fn children_of_frees_use_the_heap() {
    isolated_with_loops(&test_path!("children_of_frees_use_the_heap"), || {
        if emulated() {
            return;
        }
        for size in [48, 3000, 50 * KIB, 100 * KIB, 600 * KIB, 3 * MIB, 40 * MIB] {
            let block = Cell::new(None);
            let prepare = || block.set(alloc(size));
            let call = || {
                assert!(block.take().is_some_and(free));
                None
            };
            fork_in(&prepare, &call, &|_| true);
        }
    });
}

/// A thread brings back half of what it has cached.
#[test]
fn children_of_flushes_use_the_heap() {
    isolated_with_loops(&test_path!("children_of_flushes_use_the_heap"), || {
        if emulated() {
            return;
        }
        for (size, count) in [(48, 40), (3000, 40), (50 * KIB, 6)] {
            let prepare = || {
                let blocks = [(); 40].map(|()| alloc(size));
                assert!(blocks[..count].iter().all(|block| block.is_some_and(free)));
                assert!(blocks[count..].iter().all(|block| block.is_some_and(free)));
            };
            let call = || {
                HEAP.flush();
                None
            };
            fork_in(&prepare, &call, &|_| true);
        }
    });
}

/// Blocks grow where they lie, and move.
#[test]
fn children_of_growing_blocks_use_the_heap() {
    isolated_with_loops(
        &test_path!("children_of_growing_blocks_use_the_heap"),
        || {
            if emulated() {
                return;
            }
            for (from, to) in [
                (100, 5000),
                (300 * KIB, 500 * KIB),
                (MIB, 3 * MIB),
                (3 * MIB, 3 * MIB + 100 * KIB),
                (3 * MIB, 90 * MIB),
                (90 * MIB, 2 * MIB),
            ] {
                let block = Cell::new(None);
                let prepare = || block.set(alloc(from));
                let call = || {
                    let old = block.take().expect("memory");
                    // SAFETY: live; the old address is used no more.
                    unsafe { HEAP.realloc_bytes(old, to) }.ok()
                };
                let after = |new: Block| {
                    // SAFETY: live, and this thread's.
                    let first = new.map(|new| unsafe { new.read() });
                    first == Some(from.to_le_bytes()[0] | 1) && frees(new)
                };
                fork_in(&prepare, &call, &after);
            }
        },
    );
}

#[test]
fn children_of_collections_use_the_heap() {
    isolated_with_loops(&test_path!("children_of_collections_use_the_heap"), || {
        if emulated() {
            return;
        }
        let prepare = || {
            for size in [100 * KIB, 3 * MIB, 2000, 48, 600 * KIB] {
                let blocks = [(); 6].map(|()| alloc(size));
                assert!(blocks.iter().all(|block| block.is_some_and(free)));
            }
        };
        for level in [Level::Free, Level::Deep] {
            let call = || {
                HEAP.collect(level).expect("the heap is open");
                None
            };
            fork_in(&prepare, &call, &|_| true);
        }
    });
}

/// A thread ends, and gives up its cache.
#[test]
fn children_of_ending_threads_use_the_heap() {
    isolated_with_loops(
        &test_path!("children_of_ending_threads_use_the_heap"),
        || {
            if emulated() {
                return;
            }
            let prepare = || {
                if Slot::get() == DETACHED {
                    Slot::set(FRESH);
                }
                assert!(alloc(100).is_some_and(free));
            };
            let call = || {
                HEAP.detach();
                None
            };
            fork_in(&prepare, &call, &|_| {
                Slot::set(FRESH);
                true
            });
        },
    );
}
