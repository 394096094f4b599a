//! Locks that two threads want, and that one wants.

use hostmem::{
    OsLock,
    sync::{Lock, Spin},
};
use hostmem_bench::{clock::CpuTime, lane::Lane};
use std::{
    hint::black_box,
    sync::{Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

/// A lock around a number.
pub trait Locked: Sync {
    /// What notes call it.
    const NAME: &'static str;

    /// Makes an open one.
    fn new() -> Self;

    /// Does something with the number while it has the lock.
    fn with(&self, act: impl FnOnce(&mut u64));
}

impl Locked for Lock<u64, OsLock> {
    const NAME: &'static str = "ours";

    fn new() -> Self {
        Self::new(0)
    }

    fn with(&self, act: impl FnOnce(&mut u64)) {
        act(&mut self.lock());
    }
}

impl Locked for Lock<u64, Spin> {
    const NAME: &'static str = "spin";

    fn new() -> Self {
        Self::new(0)
    }

    fn with(&self, act: impl FnOnce(&mut u64)) {
        act(&mut self.lock());
    }
}

impl Locked for Mutex<u64> {
    const NAME: &'static str = "std";

    fn new() -> Self {
        Self::new(0)
    }

    fn with(&self, act: impl FnOnce(&mut u64)) {
        act(&mut self.lock().expect("no thread panics with it"));
    }
}

#[cfg(feature = "peers")]
impl Locked for parking_lot::Mutex<u64> {
    const NAME: &'static str = "parking_lot";

    fn new() -> Self {
        Self::new(0)
    }

    fn with(&self, act: impl FnOnce(&mut u64)) {
        act(&mut self.lock());
    }
}

/// Takes turns of an unoptimizable loop, about 100 ns long: five cycles a turn.
#[inline(never)]
fn work(value: &mut u64) {
    for _ in 0..50 {
        *value = black_box(*value + 1);
    }
}

/// Two threads that each take the lock in turns and keep it for about 100 ns. A step is both
/// threads' time on the wall for one turn of either.
pub struct TwoThreads<L>(L);

impl<L: Locked> TwoThreads<L> {
    pub fn new() -> Self {
        Self(L::new())
    }
}

impl<L: Locked> Lane for TwoThreads<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let (lock, barrier) = (&self.0, Barrier::new(2));
        let turns = || {
            barrier.wait();
            let start = Instant::now();
            for _ in 0..steps.div_ceil(2) {
                lock.with(work);
            }
            (start, Instant::now())
        };
        thread::scope(|scope| {
            let other = scope.spawn(turns);
            let mine = turns();
            let others = other.join().expect("it does not panic");
            mine.1.max(others.1) - mine.0.min(others.0)
        })
    }

    /// Threads are started for each run, so that it is long.
    fn batch(&self) -> Option<usize> {
        Some(20_000)
    }
}

/// One thread that takes the lock and opens it.
pub struct Alone<L>(L);

impl<L: Locked> Alone<L> {
    pub fn new() -> Self {
        Self(L::new())
    }
}

impl<L: Locked> Lane for Alone<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            self.0.with(|value| *value = black_box(*value));
        }
        start.elapsed()
    }
}
