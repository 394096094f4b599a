//! A lock that sleeps: one word, and two calls of the system.
//!
//! ```text
//!   OPEN ──► LOCKED ──► OPEN                                            no call of the system
//!   LOCKED ──► CONTENDED (somebody sleeps, or is about to) ──► OPEN     and one is woken
//! ```
//!
//! The states and the order in which they change are those of the third mutex in U. Drepper,
//! "Futexes Are Tricky", 2011.

use crate::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
#[cfg(not(all(test, loom)))]
use {
    super::RawMutex,
    core::{fmt, marker::PhantomData, time::Duration},
    lock_api::GuardSend,
};

/// No thread has the lock.
const OPEN: u32 = 0;
/// A thread has the lock, and no thread sleeps.
const LOCKED: u32 = 1;
/// A thread has the lock, and others may sleep.
const CONTENDED: u32 = 2;

/// How often a thread looks at a lock that is taken before it sleeps, with pauses between that
/// double: 127 in all, longer than a short critical section takes, and about as long as going to
/// sleep. Each look takes the word's cache line from the holder, which few looks slow down less.
/// None in the models, where looking again shows nothing new.
const LOOKS: u32 = if cfg!(all(test, loom)) { 0 } else { 7 };

/// How a system puts a thread to sleep until a word changes.
///
/// # Safety
///
/// `wait` may return at any time, but a thread that sleeps in it, on a word that was `expected`
/// when it began to sleep, returns after a later `wake_one` of the same word, unless that woke
/// another thread. Neither call unwinds.
pub unsafe trait Futex {
    /// Sleeps while `word` is `expected`, until [`Futex::wake_one`]. May return early.
    fn wait(word: &AtomicU32, expected: u32);

    /// Wakes one of the threads that sleep on `word`, if there is one.
    fn wake_one(word: &AtomicU32);
}

/// Waits on a system without a call for it: sleeps while `word` is `expected`, 50 us at first and
/// twice as long each time up to 1 ms. `sleep` may return early.
#[cfg(not(all(test, loom)))]
pub fn sleep_while(word: &AtomicU32, expected: u32, mut sleep: impl FnMut(Duration)) {
    const FIRST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_millis(1);
    let mut time = FIRST;
    while word.load(Relaxed) == expected {
        sleep(time);
        time = (time * 2).min(LONGEST);
    }
}

/// Takes the lock if it is open.
#[inline]
pub(super) fn try_acquire(word: &AtomicU32) -> bool {
    word.compare_exchange(OPEN, LOCKED, Acquire, Relaxed)
        .is_ok()
}

/// Says whether a thread has the lock.
#[inline]
pub(super) fn is_taken(word: &AtomicU32) -> bool {
    word.load(Relaxed) != OPEN
}

/// Takes the lock.
#[inline]
pub(super) fn acquire<F: Futex>(word: &AtomicU32) {
    if !try_acquire(word) {
        acquire_contended::<F>(word);
    }
}

#[cold]
fn acquire_contended<F: Futex>(word: &AtomicU32) {
    let mut seen = spin(word);
    if seen == OPEN {
        match word.compare_exchange(OPEN, LOCKED, Acquire, Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
    loop {
        // From here on others may sleep, and this thread cannot tell: it takes the lock as
        // contended.
        if seen != CONTENDED && word.swap(CONTENDED, Acquire) == OPEN {
            return;
        }
        F::wait(word, CONTENDED);
        seen = spin(word);
    }
}

/// Looks at the word until it is open or others sleep already, but not long; returns what it was.
fn spin(word: &AtomicU32) -> u32 {
    let mut seen = word.load(Relaxed);
    for look in 0..LOOKS {
        if seen != LOCKED {
            break;
        }
        for _ in 0..1_u32 << look {
            core::hint::spin_loop();
        }
        seen = word.load(Relaxed);
    }
    seen
}

/// Opens the lock, which the caller has.
#[inline]
pub(super) fn release<F: Futex>(word: &AtomicU32) {
    if word.swap(OPEN, Release) == CONTENDED {
        wake::<F>(word);
    }
}

#[cold]
fn wake<F: Futex>(word: &AtomicU32) {
    F::wake_one(word);
}

/// A raw lock whose waiting threads spin shortly and then sleep in the kernel, by the calls of `F`.
///
/// Four bytes. It is not fair: a thread that comes while another is being woken may take it first.
#[cfg(not(all(test, loom)))]
pub struct FutexLock<F> {
    word: AtomicU32,
    futex: PhantomData<fn() -> F>,
}

// SAFETY: RawMutex asks for mutual exclusion. Only a change of the word from OPEN takes the lock,
// and only one thread sees that change; only the holder stores OPEN, by `unlock`. What the holder
// wrote before Release is seen by who takes the lock with Acquire.
#[cfg(not(all(test, loom)))]
unsafe impl<F: Futex> RawMutex for FutexLock<F> {
    const INIT: Self = Self {
        word: AtomicU32::new(OPEN),
        futex: PhantomData,
    };

    type GuardMarker = GuardSend;

    #[inline]
    fn lock(&self) {
        acquire::<F>(&self.word);
    }

    #[inline]
    fn try_lock(&self) -> bool {
        try_acquire(&self.word)
    }

    #[inline]
    unsafe fn unlock(&self) {
        release::<F>(&self.word);
    }

    #[inline]
    fn is_locked(&self) -> bool {
        is_taken(&self.word)
    }
}

#[cfg(not(all(test, loom)))]
impl<F> fmt::Debug for FutexLock<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FutexLock(..)")
    }
}
