//! Memory that a program has freed goes back to the host though no thread of it ever does more than
//! a few quick calls. Each case is a process of its own, whose resident memory it measures.
#![cfg(all(target_os = "linux", feature = "linux", feature = "std"))]

use hostmem::{
    GlobalHeap, OsLock, OsProvider,
    heap::{Heap, HeapConfig, Level, Return},
};
use hostmem_test_support::isolate::isolated;
use std::{
    alloc::Layout,
    array, fs,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

#[global_allocator]
static HEAP: GlobalHeap = GlobalHeap::new();

/// Waits as long for what must happen: the machine may be busy.
const LONG: Duration = Duration::from_secs(100);

/// Returns the bytes of this process that are resident.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("this process has one");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    number.expect("a number of kilobytes") << 10
}

/// Allocates and frees a few blocks, as a program does that has little to do.
fn a_little(round: usize) {
    let blocks: [Vec<u8>; 10] = array::from_fn(|n| vec![2; 32 + (round * n * 17) % 900]);
    drop(blocks);
    thread::sleep(Duration::from_millis(2));
}

/// Does a little until no more than `bytes` are resident.
fn light_use_until(bytes: usize) {
    let begun = Instant::now();
    let mut round = 0;
    while resident() > bytes {
        a_little(round);
        round += 1;
        let held = HEAP.heap().expect("it is open").statistics();
        assert!(begun.elapsed() < LONG, "{} resident, {held:?}", resident());
    }
}

/// Allocates blocks of some sizes until they have `bytes` bytes in all.
fn fill(bytes: usize, sizes: impl Fn(usize) -> usize) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut sum = 0;
    while sum < bytes {
        let size = sizes(blocks.len());
        sum += size;
        blocks.push(vec![1; size]);
    }
    blocks
}

#[test]
fn threads_that_go_on_lightly_keep_little_of_what_they_freed() {
    isolated!(
        "threads_that_go_on_lightly_keep_little_of_what_they_freed",
        || {
            let before = resident();
            let (done, freed) = (AtomicBool::new(false), Barrier::new(5));
            thread::scope(|scope| {
                for thread in 0..4 {
                    let (done, freed) = (&done, &freed);
                    scope.spawn(move || {
                        let blocks = fill(40 << 20, |n| 32 + (n * 611 + thread) % 4064);
                        freed.wait();
                        drop(blocks);
                        freed.wait();
                        let mut round = 0;
                        while !done.load(Relaxed) {
                            a_little(round);
                            round += 1;
                        }
                    });
                }
                freed.wait();
                assert!(resident() > before + (160 << 20), "all is there");
                freed.wait();
                light_use_until(before + (50 << 20));
                done.store(true, Relaxed);
            });
        },
    );
}

#[test]
fn a_few_small_survivors_keep_their_pages_only() {
    isolated!("a_few_small_survivors_keep_their_pages_only", || {
        let before = resident();
        let mut blocks = fill(120 << 20, |n| 16 + n * 37 % 480);
        assert!(resident() > before + (120 << 20), "all is there");
        let mut n = 0;
        blocks.retain(|_| {
            n += 1;
            n % 1000 == 0
        });
        blocks.shrink_to_fit();
        light_use_until(before + (20 << 20));
        assert!(blocks.iter().flatten().all(|byte| *byte == 1), "they live");
    });
}

#[test]
fn a_trim_reaches_what_other_threads_have_cached() {
    isolated!("a_trim_reaches_what_other_threads_have_cached", || {
        let before = resident();
        let turns = Barrier::new(5);
        let (held, after) = thread::scope(|scope| {
            for _ in 0..4 {
                let turns = &turns;
                scope.spawn(move || {
                    // Every block that stays cached keeps a slab.
                    drop(fill(20 << 20, |n| 32 + n * 611 % 4064));
                    turns.wait();
                    turns.wait();
                    drop(vec![1_u8; 100]);
                    turns.wait();
                    turns.wait();
                });
            }
            turns.wait();
            HEAP.collect(Level::Free).expect("not in a handler");
            turns.wait();
            // Each thread makes one call, or two.
            turns.wait();
            let found = (HEAP.heap().expect("it is open").statistics(), resident());
            turns.wait();
            found
        });
        assert!(held.cached < 512 << 10, "{held:?}");
        assert!(
            after < before + (8 << 20),
            "{after} after {before}, {held:?}"
        );
    });
}

/// Bytes of the blocks of the next test, of a class that little else here uses.
const ODD: usize = 1744;

/// Returns how many free blocks of that class threads keep, or left behind.
fn odd_cached() -> usize {
    let heap = HEAP.heap().expect("it is open");
    let class = heap.class_statistics().find(|class| class.size >= ODD);
    class.expect("blocks so long have a class").cached
}

/// Allocates and frees some of those blocks in a thread that ends then.
fn leave_odd() {
    let thread = thread::spawn(|| drop([(); 30].map(|()| vec![1_u8; ODD])));
    thread.join().expect("it does not panic");
}

#[test]
fn what_an_ended_thread_had_cached_serves_the_next_and_goes_back() {
    isolated!(
        "what_an_ended_thread_had_cached_serves_the_next_and_goes_back",
        || {
            let others = odd_cached();
            leave_odd();
            let left = odd_cached();
            assert!(left >= others + 16, "{left} cached");
            // The next ones use those, and leave no more.
            (0..20).for_each(|_| leave_odd());
            assert!(odd_cached() <= left + 16, "{} cached", odd_cached());
            HEAP.collect(Level::Free).expect("not in a handler");
            assert!(odd_cached() <= others, "a call for all memory finds them");
            leave_odd();
            let begun = Instant::now();
            for round in 0.. {
                if odd_cached() <= others {
                    break;
                }
                a_little(round);
                assert!(begun.elapsed() < LONG, "a tick finds them");
            }
            // Many at once leave some megabytes at most.
            let turns = Arc::new(Barrier::new(100));
            let threads: Vec<_> = (0..100)
                .map(|_| {
                    let turns = turns.clone();
                    thread::spawn(move || {
                        drop(fill(1 << 20, |n| 32 + n * 611 % 4064));
                        turns.wait();
                    })
                })
                .collect();
            // Unlike those of a scope, they have ended then, with all that runs at their ends.
            for thread in threads {
                thread.join().expect("it does not panic");
            }
            let held = HEAP.heap().expect("it is open").statistics();
            assert!(held.cached < 10 << 20, "{held:?}");
        },
    );
}

#[test]
fn a_purger_gives_back_what_an_idle_program_freed() {
    isolated!("a_purger_gives_back_what_an_idle_program_freed", || {
        let before = resident();
        let blocks = fill(100 << 20, |n| 16 + n * 37 % 480);
        drop(blocks);
        HEAP.flush();
        let purger = hostmem::spawn_purger(HEAP, Duration::from_millis(300)).expect("a thread");
        let begun = Instant::now();
        while resident() > before + (20 << 20) {
            thread::sleep(Duration::from_millis(50));
            assert!(begun.elapsed() < LONG, "{} resident", resident());
        }
        drop(purger);
    });
}

/// What the clock of the next test says.
static NOW: AtomicU64 = AtomicU64::new(1);

#[test]
fn a_handle_that_only_takes_quick_calls_notices_the_time() {
    let os = OsProvider::new();
    let config = HeapConfig::new()
        .memory_return(Return::After(1000))
        .clock(|| Some(NOW.load(Relaxed)));
    let heap = Heap::<_, _, OsLock>::on(os, os, config).expect("metadata");
    let local = heap.local().expect("metadata");
    let layout = Layout::from_size_align(64, 8).expect("a layout");
    let pair = || {
        let block = local.alloc(layout).expect("memory");
        // SAFETY: allocated just now, and used no more.
        unsafe { local.free(block) }.expect("a live block");
    };
    pair();
    let large = Layout::from_size_align(900 << 10, 8).expect("a layout");
    let blocks = [(); 4].map(|()| local.alloc(large).expect("memory"));
    for block in blocks {
        // SAFETY: allocated just now, and used no more.
        unsafe { local.free(block) }.expect("a live block");
    }
    let free = heap.statistics().committed;
    assert!(free > 3 << 20, "what is free is kept");
    // Two periods, and in each as many quick calls as ask for what a thread may ask for between two
    // looks.
    for _ in 0..3 {
        NOW.fetch_add(1000, Relaxed);
        for _ in 0..(512 << 10) / layout.size() {
            pair();
        }
    }
    let held = heap.statistics();
    assert!(held.committed < 1 << 20, "{free} before, {held:?}");
}

/// What the clock of the next two tests says.
static DRIFT_NOW: AtomicU64 = AtomicU64::new(1);
static SWEEP_NOW: AtomicU64 = AtomicU64::new(1);

#[test]
fn ticks_that_come_often_reach_the_lowest_slabs() {
    let os = OsProvider::new();
    let config = HeapConfig::new()
        .large_pages(false)
        .memory_return(Return::After(10))
        .clock(|| Some(SWEEP_NOW.load(Relaxed)));
    let heap = Heap::<_, _, OsLock>::on(os, os, config).expect("metadata");
    let local = heap.local().expect("metadata");
    let layout = Layout::from_size_align(1024, 8).expect("a layout");
    // Some 1,500 slabs: more than can be looked at between two ticks.
    let blocks: Vec<_> = (0..96 << 10).map(|_| local.alloc(layout)).collect();
    for (n, block) in blocks.into_iter().enumerate() {
        if n % 64 != 0 {
            let block = block.expect("memory");
            // SAFETY: a live block, used no more.
            unsafe { local.free(block) }.expect("a live block");
        }
    }
    local.flush();
    let all = heap.statistics().resident;
    assert!(all > 90 << 20, "{all} resident");
    let little = Layout::from_size_align(64, 8).expect("a layout");
    for _ in 0..200 {
        SWEEP_NOW.fetch_add(3, Relaxed);
        for _ in 0..(512 << 10) / little.size() {
            let block = local.alloc(little).expect("memory");
            // SAFETY: allocated just now, and used no more.
            unsafe { local.free(block) }.expect("a live block");
        }
    }
    // A page for each block that lives, and the slab that is in use.
    let held = heap.statistics();
    assert!(held.resident < 8 << 20, "{all} before, {held:?}");
}

#[test]
fn a_heap_whose_sizes_change_gives_back_what_it_can() {
    const LIVE: usize = 24 << 20;
    const PHASE: usize = 5 * LIVE;
    let os = OsProvider::new();
    let config = HeapConfig::new().clock(|| Some(DRIFT_NOW.load(Relaxed)));
    let heap = Heap::<_, _, OsLock>::on(os, os, config).expect("metadata");
    let local = heap.local().expect("metadata");
    let mut blocks = Vec::new();
    let (mut live, mut state) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    let (mut sum, mut samples) = (0, 0);
    // Sizes that grow, shrink, and come back; each of them is asked for during two seconds.
    for (phase, about) in [80, 1400, 200, 3600, 120, 900].into_iter().enumerate() {
        let (mut asked, mut counted) = (0, 0);
        while asked < PHASE {
            let size = about / 2 + random(about);
            while live + size > LIVE {
                let (block, size) = blocks.swap_remove(random(blocks.len()));
                live -= size;
                // SAFETY: a live block, used no more.
                unsafe { local.free(block) }.expect("a live block");
            }
            let layout = Layout::from_size_align(size, 8).expect("a layout");
            blocks.push((local.alloc(layout).expect("memory"), size));
            live += size;
            asked += size;
            let now = phase * 2000 + asked * 2000 / PHASE;
            DRIFT_NOW.store(now as u64 + 1, Relaxed);
            if phase != 0 && asked > counted {
                counted += PHASE / 50;
                sum += heap.statistics().resident * 100 / live;
                samples += 1;
            }
        }
    }
    let mean = sum / samples;
    // Pages that a live block keeps are most of it: blocks are freed at random.
    assert!(mean <= 205, "{mean} % of what is live, on the average");
}

#[test]
fn no_block_above_a_kilobyte_is_longer_by_a_quarter() {
    let os = OsProvider::new();
    let heap = Heap::<_, _, OsLock>::on(os, os, HeapConfig::new()).expect("metadata");
    let sizes = (10..23).flat_map(|power| (0..64).map(move |n| (1 << power) + (n << power >> 6)));
    for size in sizes.flat_map(|size| [size + 1, size + 7]) {
        let layout = Layout::from_size_align(size, 1).expect("a layout");
        let block = heap.alloc(layout).expect("memory");
        let usable = heap.usable_size(block).expect("a live block");
        assert!(
            usable >= size && usable - size <= size / 4,
            "{usable} for {size}"
        );
        // SAFETY: allocated just now, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    }
}
