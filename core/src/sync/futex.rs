//! A lock that sleeps: two words, and two calls of the system.
//!
//! | word | is |
//! |---|---|
//! | `taken` | whether a thread has the lock |
//! | `asks` | whether a thread that sleeps, or is about to, asks to be woken |
//!
//! ```text
//!   take:   taken: OPEN ──► TAKEN, one atomic exchange
//!   open:   taken = OPEN, a plain store; then, if asks is set, clear it and wake one
//!   sleep:  set asks; look once more whether taken is OPEN; sleep while asks is set
//! ```
//!
//! Opening has no atomic exchange, which would cost as much as taking. A core may then look at
//! `asks` before others see that `taken` is OPEN, by the time that its store takes to leave it, and
//! so miss a thread that asks within that moment. That thread looks for longer than a store takes
//! before it sleeps; and where even that was too short, it looks again after [`LOOK_AGAIN`], or
//! when the next holder opens the lock. With a fence between the two steps of opening nothing is
//! missed: the models, which know no time, have it.
//!
//! Any thread that was woken, or gave up sleeping, sets `asks` again before it looks. So one that
//! takes the lock while others sleep leaves `asks` set, and wakes the next when it opens.

use crate::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use core::time::Duration;
#[cfg(not(all(test, loom)))]
use {
    super::RawMutex,
    core::{fmt, marker::PhantomData},
    lock_api::GuardSend,
};

/// No thread has the lock.
const OPEN: u32 = 0;
/// A thread has the lock.
const TAKEN: u32 = 1;

/// No thread asks to be woken.
const NOBODY: u32 = 0;
/// Threads may sleep.
const SOMEBODY: u32 = 1;

/// How often a thread looks at a lock that is taken before it asks to be woken, with pauses between
/// that double: 127 in all, longer than a short critical section takes, and about as long as going
/// to sleep. Each look takes the word's cache line from the holder, which few looks slow down less.
/// None in the models, where looking again shows nothing new.
const LOOKS: u32 = if cfg!(all(test, loom)) { 0 } else { 7 };

/// Pauses between asking to be woken and the look before sleeping: much longer than a store takes
/// to leave its core.
const PAUSES: u32 = if cfg!(all(test, loom)) { 0 } else { 16 };

/// How long a thread sleeps at most until it looks again, for the store that took longer.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How a system puts a thread to sleep until a word changes.
///
/// # Safety
///
/// `wait` may return at any time, but a thread that sleeps in it, on a word that was `expected`
/// when it began to sleep, returns after a later `wake_one` of the same word, unless that woke
/// another thread, and in any case not much later than it may sleep. Neither call unwinds.
pub unsafe trait Futex {
    /// Sleeps while `word` is `expected`, until [`Futex::wake_one`], but for `at_most` as long.
    /// May return early.
    fn wait(word: &AtomicU32, expected: u32, at_most: Duration);

    /// Wakes one of the threads that sleep on `word`, if there is one.
    fn wake_one(word: &AtomicU32);
}

/// Waits on a system without a call for it: sleeps while `word` is `expected`, but no longer than
/// about `at_most`: 50 us at first, and twice as long each time. `sleep` may return early.
#[cfg(not(all(test, loom)))]
pub fn sleep_while(
    word: &AtomicU32,
    expected: u32,
    at_most: Duration,
    mut sleep: impl FnMut(Duration),
) {
    const FIRST: Duration = Duration::from_micros(50);
    let (mut time, mut left) = (FIRST, at_most);
    while word.load(Relaxed) == expected && !left.is_zero() {
        let now = time.min(left);
        sleep(now);
        left -= now;
        time = time.saturating_mul(2);
    }
}

/// The two words of a lock.
pub(super) struct Words {
    taken: AtomicU32,
    asks: AtomicU32,
}

impl Words {
    /// Makes those of an open lock.
    #[cfg(not(all(test, loom)))]
    const fn new() -> Self {
        Self {
            taken: AtomicU32::new(OPEN),
            asks: AtomicU32::new(NOBODY),
        }
    }

    /// Makes those of an open lock; loom's atomics are made while a model runs.
    #[cfg(all(test, loom))]
    pub(super) fn new() -> Self {
        Self {
            taken: AtomicU32::new(OPEN),
            asks: AtomicU32::new(NOBODY),
        }
    }

    /// Takes the lock if it is open.
    #[inline]
    pub(super) fn try_acquire(&self) -> bool {
        let taken = self.taken.compare_exchange(OPEN, TAKEN, Acquire, Relaxed);
        taken.is_ok()
    }

    /// Says whether a thread has the lock.
    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Relaxed) != OPEN
    }

    /// Takes the lock.
    #[inline]
    pub(super) fn acquire<F: Futex>(&self) {
        if !self.try_acquire() {
            self.acquire_contended::<F>();
        }
    }

    #[cold]
    fn acquire_contended<F: Futex>(&self) {
        if self.looks_open() && self.try_acquire() {
            return;
        }
        loop {
            self.asks.swap(SOMEBODY, Relaxed);
            // What is looked at next is looked at after others can see that this thread asks; and
            // after whoever cleared `asks` had opened the lock.
            fence(SeqCst);
            pause(PAUSES);
            if self.try_acquire() {
                // Others may sleep, and this thread cannot tell: `asks` stays set.
                return;
            }
            F::wait(&self.asks, SOMEBODY, LOOK_AGAIN);
        }
    }

    /// Looks at a lock until it is open, but not long.
    fn looks_open(&self) -> bool {
        for look in 0..LOOKS {
            if !self.is_taken() {
                return true;
            }
            pause(1 << look);
        }
        !self.is_taken()
    }

    /// Opens the lock, which the caller has.
    #[inline]
    pub(super) fn release<F: Futex>(&self) {
        self.taken.store(OPEN, Release);
        #[cfg(all(test, loom))]
        fence(SeqCst);
        if self.asks.load(Relaxed) != NOBODY {
            self.wake::<F>();
        }
    }

    /// Wakes a thread that asks, if no other has.
    #[cold]
    fn wake<F: Futex>(&self) {
        // Release: one that finds it cleared finds the lock open, unless it was taken again.
        if self.asks.swap(NOBODY, Release) == SOMEBODY {
            F::wake_one(&self.asks);
        }
    }
}

/// Lets the core rest for a moment.
fn pause(times: u32) {
    for _ in 0..times {
        core::hint::spin_loop();
    }
}

/// A raw lock whose waiting threads spin shortly and then sleep in the kernel, by the calls of `F`.
///
/// Eight bytes. It is not fair: a thread that comes while another is being woken may take it first.
#[cfg(not(all(test, loom)))]
pub struct FutexLock<F> {
    words: Words,
    futex: PhantomData<fn() -> F>,
}

// SAFETY: RawMutex asks for mutual exclusion. Only a change of `taken` from OPEN takes the lock,
// and only one thread sees that change; only the holder stores OPEN, by `unlock`. What the holder
// wrote before Release is seen by who takes the lock with Acquire.
#[cfg(not(all(test, loom)))]
unsafe impl<F: Futex> RawMutex for FutexLock<F> {
    const INIT: Self = Self {
        words: Words::new(),
        futex: PhantomData,
    };

    type GuardMarker = GuardSend;

    #[inline]
    fn lock(&self) {
        self.words.acquire::<F>();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.words.try_acquire()
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.words.release::<F>();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.words.is_taken()
    }
}

#[cfg(not(all(test, loom)))]
impl<F> fmt::Debug for FutexLock<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FutexLock(..)")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::sync::Lock;
    use std::{thread, vec::Vec};

    /// Wakes nobody, as if every thread that asks were missed.
    struct Deaf;

    // SAFETY: a thread that waits returns after the time that it may wait, woken or not.
    unsafe impl Futex for Deaf {
        fn wait(_: &AtomicU32, _: u32, at_most: Duration) {
            thread::sleep(at_most);
        }

        fn wake_one(_: &AtomicU32) {}
    }

    #[test]
    fn a_thread_that_is_missed_goes_on_after_a_while() {
        let lock = Lock::<_, FutexLock<Deaf>>::new(0);
        thread::scope(|scope| {
            let held = lock.lock();
            let waiting = scope.spawn(|| *lock.lock() += 1);
            // SAFETY: the raw lock is looked at, and neither taken nor opened.
            let words = unsafe { &lock.0.raw().raw.words };
            while words.asks.load(Relaxed) == NOBODY {
                thread::yield_now();
            }
            drop(held);
            waiting.join().expect("no panic");
        });
        assert_eq!(*lock.lock(), 1);
    }

    #[test]
    fn threads_take_turns() {
        let lock = Lock::<_, FutexLock<Deaf>>::new(0);
        let turns = if cfg!(miri) { 50 } else { 20_000 };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..turns {
                        *lock.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 4 * turns);
    }

    #[test]
    fn waiting_without_a_call_ends_with_the_change_or_the_time() {
        let word = AtomicU32::new(1);
        let mut slept = Vec::new();
        sleep_while(&word, 1, LOOK_AGAIN, |time| slept.push(time));
        assert_eq!(slept.iter().sum::<Duration>(), LOOK_AGAIN);
        slept.clear();
        sleep_while(&word, 1, Duration::MAX, |time| {
            slept.push(time);
            if slept.len() == 3 {
                word.store(0, Relaxed);
            }
        });
        let longer = slept.windows(2).all(|two| two[1] == 2 * two[0]);
        assert!(slept.len() == 3 && longer, "{slept:?}");
    }
}
