//! What one lock guards, and which lock a thread takes.
//!
//! A block always belongs to the same shard. A release takes the lock of the span's shard; an
//! allocation that of a shard of its choice: by the address of its stack, which tells threads apart
//! without the help of an operating system, and is no more than a hint. There is one shard at
//! first, and twice as many whenever threads have met at a lock often enough, so that a program
//! with one thread, or few calls, keeps all its code together. They halve again when one of them
//! turns out to have been mapped for code that comes and goes.

use super::{
    config::{POOLS, SHARDS},
    pool::Pool,
};
use crate::sync::{Guard, Lock, RawMutex};
use core::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Meetings at a lock that double the shards at first: few enough to be over at once, more than
/// chance.
const MEETINGS: usize = 64;

/// Meetings that double the shards at most, after they were of no use again and again.
const MOST_MEETINGS: usize = 1 << 16;

/// Bits of an address that differ within one thread's stack: 1 MiB.
const STACK_BITS: u32 = 20;

/// Sums over the blocks of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) blocks: usize,
    pub(super) spans: usize,
    pub(super) used: usize,
    pub(super) reserved: usize,
}

/// The blocks of one shard.
pub(super) struct Shard {
    pub(super) pools: [Pool; POOLS],
    pub(super) totals: Totals,
    /// Numbers for the next spans that are granted, which no other shard has.
    pub(super) numbers: Range<u32>,
}

// SAFETY: a shard reaches blocks and tables by pointer; they live in the arena beside it, belong to
// this shard alone, and are not tied to a thread.
unsafe impl Send for Shard {}

/// On cache lines of its own, two of which the hardware fetches together.
#[repr(align(128))]
struct Apart<T>(T);

/// All shards.
pub(super) struct Shards<R> {
    all: [Apart<Lock<Shard, R>>; SHARDS],
    most: usize,
    active: Apart<AtomicUsize>,
    /// Meetings that are left before the shards double.
    meetings: AtomicUsize,
    /// What `meetings` starts from.
    patience: AtomicUsize,
}

impl<R: RawMutex> Shards<R> {
    pub(super) fn new(first_block: usize, most: usize) -> Self {
        Self {
            all: core::array::from_fn(|_| {
                Apart(Lock::new(Shard {
                    pools: core::array::from_fn(|_| Pool::new(first_block)),
                    totals: Totals::default(),
                    numbers: 0..0,
                }))
            }),
            most,
            active: Apart(AtomicUsize::new(1)),
            meetings: AtomicUsize::new(MEETINGS),
            patience: AtomicUsize::new(MEETINGS),
        }
    }

    /// Yields the locks of all shards, in the order in which several are taken.
    pub(super) fn all(&self) -> impl Iterator<Item = &Lock<Shard, R>> {
        self.all.iter().map(|shard| &shard.0)
    }
}

impl<R: RawMutex> Shards<R> {
    /// Locks one shard.
    pub(super) fn lock(&self, shard: usize) -> Guard<'_, Shard, R> {
        self.all[shard].0.lock()
    }

    /// Locks a shard for an allocation of this thread; returns its number too.
    pub(super) fn lock_any(&self) -> (usize, Guard<'_, Shard, R>) {
        let active = self.active.0.load(Ordering::Relaxed);
        let home = if active == 1 {
            0
        } else {
            here() & (active - 1)
        };
        if let Some(guard) = self.all[home].0.try_lock() {
            return (home, guard);
        }
        self.lock_another(active, home)
    }

    #[cold]
    fn lock_another(&self, active: usize, home: usize) -> (usize, Guard<'_, Shard, R>) {
        if self.meetings.fetch_sub(1, Ordering::Relaxed) <= 1 {
            self.count_meetings_anew();
            if active < self.most {
                self.change_active(active, 2 * active);
            }
        }
        for n in 1..active {
            let other = (home + n) & (active - 1);
            if let Some(guard) = self.all[other].0.try_lock() {
                return (other, guard);
            }
        }
        (home, self.lock(home))
    }

    /// Goes back to one shard for allocations.
    pub(super) fn gather(&self) {
        self.active.0.store(1, Ordering::Relaxed);
        self.patience.store(MEETINGS, Ordering::Relaxed);
        self.count_meetings_anew();
    }

    /// Halves the shards for allocations, and takes longer from now on to double them. For a shard
    /// that holds nothing.
    pub(super) fn fold(&self) {
        let active = self.active.0.load(Ordering::Relaxed);
        if active > 1 {
            let patience = self.patience.load(Ordering::Relaxed);
            let patience = (2 * patience).min(MOST_MEETINGS);
            self.patience.store(patience, Ordering::Relaxed);
            self.count_meetings_anew();
            self.change_active(active, active / 2);
        }
    }

    fn count_meetings_anew(&self) {
        let patience = self.patience.load(Ordering::Relaxed);
        self.meetings.store(patience, Ordering::Relaxed);
    }

    /// Should two threads come here at once, the shards change once.
    fn change_active(&self, from: usize, to: usize) {
        let order = Ordering::Relaxed;
        let _ = self.active.0.compare_exchange(from, to, order, order);
    }
}

/// Returns a number that differs between most threads and stays the same within one.
#[inline(never)]
fn here() -> usize {
    let on_the_stack = 0_u8;
    let stack = (&raw const on_the_stack).addr() >> STACK_BITS;
    // Fibonacci hashing: the upper half of a product with 2^64 / φ depends on all bits.
    (stack as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> (usize::BITS / 2)
}
