//! A thread of real-time priority and an ordinary one share a processor and a lock of hostmem's:
//! the first must not spin while the second, which it keeps from running, has the lock.
#![cfg(all(target_os = "linux", feature = "linux", feature = "std"))]
#![cfg(not(miri))]

use hostmem::{
    GlobalHeap, OsLock, OsProvider,
    provider::{Commit, PageProvider, Request},
    region::{RegionAllocator, RegionConfig},
};
use hostmem_test_support::isolate::skip;
use std::{
    alloc::{GlobalAlloc, Layout},
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const OS: OsProvider = OsProvider::new();

static HEAP: GlobalHeap = GlobalHeap::new();

/// Rounds of the real-time thread.
const ROUNDS: usize = 10_000;

/// How long the real-time thread sleeps in each, so that the other one runs.
const PAUSE: Duration = Duration::from_micros(300);

/// The longest round that a real-time thread can live with.
const LONGEST: Duration = Duration::from_millis(5);

/// Measurements, of which one must do: a machine that is itself a guest stops now and then.
const TRIES: usize = 5;

/// After so long something waits forever.
const HUNG: Duration = Duration::from_secs(100);

/// Keeps this thread on one processor.
fn pin() {
    // SAFETY: an empty set is all zeros.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: processor 0 is in the range of a set.
    unsafe { libc::CPU_SET(0, &mut set) };
    // SAFETY: the set outlives the call, which changes where this thread runs and nothing else.
    // Where there is no processor 0, the scenario is weaker, and still right.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

/// Makes this thread run before all ordinary ones, where that is allowed.
fn become_real_time() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: the parameters outlive the call, which changes how this thread is scheduled.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs `step` in both threads; returns the longest that the real-time one took for it.
fn longest(step: impl Fn(usize) + Sync) -> io::Result<Duration> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin();
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                step(n);
                n += 1;
            }
        });
        let real_time = scope.spawn(|| {
            pin();
            become_real_time()?;
            let begun = Instant::now();
            let mut longest = Duration::ZERO;
            for n in 0..ROUNDS {
                thread::sleep(PAUSE);
                let since = Instant::now();
                step(n);
                longest = longest.max(since.elapsed());
                assert!(begun.elapsed() < HUNG, "{n} rounds in {HUNG:?}");
            }
            Ok(longest)
        });
        let result = real_time.join();
        stop.store(true, Ordering::Relaxed);
        result.expect("the real-time thread does not panic")
    })
}

fn check(name: &str, step: impl Fn(usize) + Sync) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let ours = match longest(&step) {
            Ok(ours) => ours,
            Err(error) => {
                skip(format!("{name}: no real-time priority here: {error}"));
                return;
            }
        };
        let mutex = Mutex::new(0_usize);
        let std = longest(|n| {
            let mut value = mutex.lock().expect("not poisoned");
            // As long as a call of the host takes.
            for _ in 0..2000 {
                *value = std::hint::black_box(value.wrapping_add(n));
            }
        });
        let std = std.expect("real-time priority was had just now");
        println!("{name}: longest {ours:?}, of std's mutex {std:?}");
        if ours <= LONGEST.max(2 * std) {
            return;
        }
        seen.push((ours, std));
    }
    panic!("{name}: too long beside std's mutex, each time: {seen:?}");
}

#[test]
fn a_real_time_thread_waits_for_a_heap_no_longer_than_for_a_mutex() {
    check("blocks that the provider gives", |n| {
        let size = 200_000 + n * 7919 % 450_000;
        let layout = Layout::from_size_align(size, 16).expect("a size");
        // SAFETY: the size is not zero.
        let block = unsafe { HEAP.alloc(layout) };
        assert!(!block.is_null(), "memory for two threads");
        // SAFETY: allocated just now with this layout.
        unsafe { HEAP.dealloc(block, layout) };
    });
}

#[test]
fn a_real_time_thread_waits_for_a_region_no_longer_than_for_a_mutex() {
    let region = RegionAllocator::<_, _, OsLock>::on(OS, OS, RegionConfig::new());
    let region = region.expect("metadata");
    let whole = OS.reserve(&Request::bytes(1 << 30)).expect("addresses");
    // SAFETY: reserved just now, and given to the region alone.
    unsafe { region.adopt(whole) }.expect("the first range");
    check("a region", |n| {
        let request = Request::bytes((1 + n % 16) << 16);
        let range = region.reserve(&request).expect("room");
        // SAFETY: reserved just now, and known to this thread alone.
        unsafe { region.commit(range, Commit::READ_WRITE) }.expect("memory");
        // SAFETY: reserved just now, known to this thread alone, and not used any more.
        unsafe { region.release(range) }.expect("it was reserved");
    });
}
