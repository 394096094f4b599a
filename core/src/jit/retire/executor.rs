//! Who may still run what was retired: the part of a queue that has no lock.
//!
//! # Why nothing is released too early
//!
//! *Unlinking* is what makes code unreachable, and happens before `retire`, by its contract. To
//! retire stores a stamp, one more than ever before, as the epoch (S). An executor announces in its
//! slot which epoch it has read, or `OFFLINE`. [`Executors::passed`] returns the least of the epoch
//! (N) and all that is announced (G); what has no higher stamp is released.
//!
//! ```text
//!  retire     unlink ; S: epoch = stamp, Release     passed      N: epoch, Acquire
//!  quiescent  E: epoch, Acquire                                  F: fence, SeqCst
//!             A: slot = epoch, Release                           G: each slot, Acquire
//!  offline    A: slot = OFFLINE, Release             online      E ; A ; C: fence, SeqCst
//! ```
//!
//! Let `passed` return at least a span's stamp. Then what any executor ran of the span happens
//! before that, and it will run no more of it:
//!
//! - G read an announced epoch, the span's stamp or a later one. E had read it from S of this span
//!   or of a later one. Stamps are stored under the queue's lock, so the unlinking happens before
//!   either S, with S and E before all that the executor does from there on: it does not find the
//!   span. What it ran before that, it ran before A, and with A and G before the release.
//! - G read `OFFLINE`. What the executor ran before it went offline, A and G order as above. For
//!   what it runs once it is online again, of the fences C and F one is first in the order of all
//!   sequentially consistent operations. It is not C, or G would have read what A announced before
//!   C. So it is F, and the executor, behind C, sees what happened before F: the unlinking, since N
//!   had read S of this span or of a later one. That is why `passed` is never more than N.
//!
//! A slot without an owner is one whose executor is offline; who takes a slot (Acquire) from who
//! left it (Release) continues what that one did. An executor that is registered while spans wait
//! has read an epoch not below their stamps, or the fences order it behind the unlinking: it runs
//! none of them.
//!
//! `quiescent` needs no fence: to go on unseen with an old epoch announced only holds code back.
//! Nor does it need to announce what is announced: nothing was retired since.
//!
//! Epochs do not wrap: a retirement every nanosecond would take five centuries.

use crate::{
    atomic::{AtomicU64, Ordering, fence},
    jit::JitError,
};
use core::{
    cell::Cell,
    fmt,
    marker::PhantomData,
    ptr::{self, NonNull},
};

#[cfg(all(test, loom))]
mod models;

/// Announced by an executor that runs nothing, and found in a slot without an owner. Above all
/// epochs, so that it holds nothing back.
const OFFLINE: u64 = u64::MAX;

/// The owner of a slot without one.
const UNOWNED: u64 = 0;

/// What one executor announces. On cache lines of its own, two of which the hardware fetches
/// together.
#[repr(align(128))]
pub(super) struct Slot {
    /// An epoch, or [`OFFLINE`].
    seen: AtomicU64,
    /// The number of the executor that has the slot, or [`UNOWNED`].
    owner: AtomicU64,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            seen: AtomicU64::new(OFFLINE),
            owner: AtomicU64::new(UNOWNED),
        }
    }

    fn vacate(&self) {
        self.seen.store(OFFLINE, Ordering::Release);
        self.owner.store(UNOWNED, Ordering::Release);
    }
}

/// The epoch alone on its cache lines: every executor reads it all the time.
#[repr(align(128))]
struct Epoch(AtomicU64);

/// The epoch and what the executors of a queue have announced.
pub(super) struct Executors {
    epoch: Epoch,
    /// Executors registered ever: the number of the last.
    registered: AtomicU64,
    slots: NonNull<[Slot]>,
}

// SAFETY: the slots are reached by shared references only, are atomics, and are not tied to a
// thread.
unsafe impl Send for Executors {}
// SAFETY: the slots are reached by shared references only, are atomics, and are not tied to a
// thread.
unsafe impl Sync for Executors {}

impl Executors {
    /// Takes `slots` over.
    ///
    /// # Safety
    ///
    /// They are initialised, used by no other code, and outlive the result.
    pub(super) unsafe fn new(slots: NonNull<[Slot]>) -> Self {
        Self {
            epoch: Epoch(AtomicU64::new(0)),
            registered: AtomicU64::new(UNOWNED),
            slots,
        }
    }

    fn slots(&self) -> &[Slot] {
        // SAFETY: initialised, changed only through their atomics, and alive as long as self: the
        // `# Safety` of new.
        unsafe { self.slots.as_ref() }
    }

    pub(super) fn register(&self) -> Result<Executor<'_>, JitError> {
        let number = self.registered.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = self.slots().iter().find(|slot| {
            let taken =
                slot.owner
                    .compare_exchange(UNOWNED, number, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        });
        let executor = Executor {
            epoch: &self.epoch.0,
            slot: slot.ok_or(JitError::TooManyExecutors)?,
            number,
            one_thread: PhantomData,
        };
        executor.online();
        Ok(executor)
    }

    /// Begins an epoch; returns the stamp of what is retired with it. The queue's lock is held.
    pub(super) fn advance(&self) -> u64 {
        // A single writer, by the lock: the plain load cannot miss another's store.
        let stamp = self.epoch.0.load(Ordering::Relaxed) + 1;
        assert!(stamp < OFFLINE, "epochs do not wrap");
        self.epoch.0.store(stamp, Ordering::Release);
        stamp
    }

    /// Returns the stamp up to which everything that was retired can be released.
    pub(super) fn passed(&self) -> u64 {
        let now = self.epoch.0.load(Ordering::Acquire);
        fence(Ordering::SeqCst);
        let seen = self.slots().iter().map(|s| s.seen.load(Ordering::Acquire));
        seen.fold(now, u64::min)
    }

    /// Says how many executors are registered, and how many of them are online.
    pub(super) fn count(&self) -> (usize, usize) {
        let has = |of: fn(&Slot) -> &AtomicU64, none: u64| {
            let slots = self.slots().iter();
            slots
                .filter(|slot| of(slot).load(Ordering::Relaxed) != none)
                .count()
        };
        (has(|s| &s.owner, UNOWNED), has(|s| &s.seen, OFFLINE))
    }

    /// Unregisters all executors but some. Only in a forked child with one thread.
    pub(super) fn keep_only(&self, some: &[&Executor<'_>]) {
        for slot in self.slots() {
            let owner = slot.owner.load(Ordering::Relaxed);
            if !some.iter().any(|executor| executor.number == owner) {
                slot.vacate();
            }
        }
    }
}

/// One that runs code of a [`RetireQueue`](super::RetireQueue)'s allocator: most often a thread.
/// What is retired waits for it from its registration, when it is online, until it is dropped.
///
/// May go to another thread, but be used by one at a time. Sent somewhere while it is online, it
/// holds everything back until it gets there and has a quiescent point.
///
/// In a forked child only the executors that [`RetireQueue::forking`] names are registered. The
/// calls of others do nothing there.
///
/// [`RetireQueue::forking`]: super::RetireQueue::forking
#[must_use = "an executor that is dropped holds nothing back"]
pub struct Executor<'a> {
    epoch: &'a AtomicU64,
    slot: &'a Slot,
    number: u64,
    /// Not to be shared: what is announced for one thread would count for the other.
    one_thread: PhantomData<Cell<()>>,
}

impl Executor<'_> {
    /// Says that this executor is not within any code, and will not use an address of code that it
    /// looked up before: for the dispatch loop, between two pieces of code.
    ///
    /// Two loads, and a store if anything was retired meanwhile; no lock. Nothing while offline.
    #[inline]
    pub fn quiescent(&self) {
        let now = self.epoch.load(Ordering::Acquire);
        let seen = self.slot.seen.load(Ordering::Relaxed);
        if seen != now && seen != OFFLINE && self.is_registered() {
            self.slot.seen.store(now, Ordering::Release);
        }
    }

    /// As [`Executor::quiescent`], and nothing waits for this executor any more, which runs no code
    /// until [`Executor::online`]: for the way into a blocking system call. A store; no lock.
    #[inline]
    pub fn offline(&self) {
        if self.is_registered() {
            self.slot.seen.store(OFFLINE, Ordering::Release);
        }
    }

    /// Says that this executor will run code again. Addresses of code are to be looked up behind
    /// this call. A store and a fence; no lock. Nothing while online.
    #[inline]
    pub fn online(&self) {
        if self.is_registered() && self.slot.seen.load(Ordering::Relaxed) == OFFLINE {
            let now = self.epoch.load(Ordering::Acquire);
            self.slot.seen.store(now, Ordering::Release);
            fence(Ordering::SeqCst);
        }
    }

    /// Says whether the slot is this executor's: always, but after a fork.
    #[inline]
    pub(super) fn is_registered(&self) -> bool {
        self.slot.owner.load(Ordering::Relaxed) == self.number
    }

    /// Says whether this is an executor of `all`.
    pub(super) fn is_of(&self, all: &Executors) -> bool {
        ptr::eq(self.epoch, &raw const all.epoch.0)
    }
}

impl Drop for Executor<'_> {
    fn drop(&mut self) {
        if self.is_registered() {
            self.slot.vacate();
        }
    }
}

impl fmt::Debug for Executor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.slot.seen.load(Ordering::Relaxed);
        f.debug_struct("Executor")
            .field("number", &self.number)
            .field("online", &(self.is_registered() && seen != OFFLINE))
            .finish_non_exhaustive()
    }
}
