//! Releasing code that other threads may be running: later, when none of them can.
//!
//! A thread that invalidates code cannot know who is inside it. So it makes the code unreachable
//! and *retires* the span; the memory goes back once every registered [`Executor`] has passed a
//! quiescent point, a moment at which it is in no code and remembers no address of any
//! (quiescent-state-based reclamation).
//!
//! ```text
//!                  unlink  retire(X)      reclaim()      reclaim()      reclaim()
//!  invalidating ──────┼───────┼──────────────┼──────────────┼──────────────┼─────
//!  thread             X gets stamp 7      B is at 6      B is at 6      X is released
//!
//!  executor A   ═══ X ════│═ Y ═│════ Z ════│═══ Z ═══│═══════ Y ═══════│══ Z ═══
//!               6         7     7           7         7                 7
//!  executor B   ══════════════════ X, a long loop ══════════════│═══════ Y ══════
//!               6                                               7
//!  executor C   ══ Z ══╳ . . . . . blocked in the kernel . . . . . ╳════ Z ══════
//!                   offline                                     online, 7
//!
//!  │ quiescent()    ═ X ═ runs X    7 the epoch it announces    ╳ offline(), online()
//! ```
//!
//! The rules:
//!
//! 1. From before [`RetireQueue::retire`] on, no thread comes to the code any more: tables, caches
//!    and jumps that led there lead elsewhere, and jumps that were rewritten have been published.
//! 2. Who runs code is a registered executor, online, and in code that it reached since its last
//!    quiescent point.
//!
//! A thread that breaks them runs memory that may be another span's; retiring itself is safe. How
//! little the protocol needs, and why it is right, is told in `executor.rs`.

mod config;
mod executor;
mod fork;
mod releases;
mod waiting;

pub use config::{Reclaimed, RetireConfig, RetireStatistics};
pub use executor::Executor;
pub use fork::Forking;
pub use releases::Releases;

use super::{JitError, Refused, Span};
use crate::{
    arena::Arena,
    provider::PageProvider,
    sync::{Lock, RawMutex, Spin},
};
use core::{fmt, mem::MaybeUninit};
use executor::{Executors, Slot};
use waiting::{Retired, Waiting};

/// Spans released in a row under the lock of a queue: a thread that retires waits for no more.
const BATCH: usize = 16;

/// Spans that wait until no thread runs them, with book-keeping from `M`. `R` is how a thread waits
/// for a contended lock.
///
/// `A` is the allocator, or a reference to it: a queue that owns its allocator can be a part of
/// something that owns both, and one that borrows it can come and go. Dropped, it releases all that
/// waits: its executors borrow it, so none of them is left.
///
/// ```no_run
/// # use hostmem_core::jit::{CodeProvider, JitAllocator, Refused, RetireConfig, RetireQueue, Span};
/// # fn example<P: CodeProvider>(p: P, jit: &JitAllocator<P>, old: Span) -> Result<(), Refused> {
/// # fn next_piece_of_code() -> Option<extern "C" fn()> { None }
/// # fn unlink(_: &Span) {}
/// let queue = RetireQueue::<_, _>::on(jit, p, RetireConfig::new()).expect("memory");
/// // Every thread that runs code:
/// let me = queue.register().expect("one of 64");
/// while let Some(code) = next_piece_of_code() {
///     code();
///     me.quiescent();
/// }
/// // The thread that invalidates:
/// unlink(&old);
/// queue.retire(old)?;
/// // Now and then:
/// let released = queue.reclaim();
/// # let _ = released;
/// # Ok(())
/// # }
/// ```
pub struct RetireQueue<A: Releases, M: PageProvider + Copy, R: RawMutex = Spin> {
    executors: Executors,
    waiting: Lock<Waiting, R>,
    allocator: A,
    /// Where the slots of the executors and the ring are.
    arena: Arena<M, R>,
}

impl<A: Releases, M: PageProvider + Copy + Default, R: RawMutex> RetireQueue<A, M, R> {
    /// Makes a queue in front of `allocator`, with book-keeping from a provider that needs no
    /// arguments, such as an operating system's.
    ///
    /// # Errors
    ///
    /// The errors of [`RetireQueue::on`].
    pub fn new(allocator: A, config: RetireConfig) -> Result<Self, JitError> {
        Self::on(allocator, M::default(), config)
    }
}

impl<A: Releases, M: PageProvider + Copy, R: RawMutex> RetireQueue<A, M, R> {
    /// Makes a queue in front of `allocator`, with all of its book-keeping, from `metadata`.
    ///
    /// # Errors
    ///
    /// [`JitError::Config`] for a configuration with a value out of range, [`JitError::Metadata`]
    /// without memory.
    pub fn on(allocator: A, metadata: M, config: RetireConfig) -> Result<Self, JitError> {
        config.check().map_err(JitError::Config)?;
        let (waiting, executors) = (config.max_waiting(), config.max_executors());
        let bytes = waiting * size_of::<Retired>() + executors * size_of::<Slot>();
        let arena = Arena::new(metadata, bytes + config::slack(metadata.page_size()));
        let arena: Arena<M, R> = arena.map_err(JitError::Metadata)?;
        let slots = arena.alloc_slice(executors, Slot::new);
        let slots = slots.map_err(JitError::Metadata)?;
        // Its pages are written when spans wait there.
        let ring = arena.alloc_slice_zeroed::<MaybeUninit<Retired>>(waiting);
        let ring = ring.map_err(JitError::Metadata)?;
        Ok(Self {
            // SAFETY: made just now, for this alone, in an arena that is dropped after it.
            executors: unsafe { Executors::new(slots) },
            // SAFETY: made just now, for this alone, in an arena that is dropped after it.
            waiting: Lock::new(unsafe { Waiting::new(ring) }),
            allocator,
            arena,
        })
    }

    /// Registers an executor. It is online: to be called by the thread that is to run code.
    ///
    /// Costs a few atomic operations; takes no lock.
    ///
    /// # Errors
    ///
    /// [`JitError::TooManyExecutors`] where there are as many as the configuration allows.
    pub fn register(&self) -> Result<Executor<'_>, JitError> {
        self.executors.register()
    }

    /// Says whether what is retired waits for an executor: it is one of this queue's, and is
    /// registered, as all are but in a forked child.
    #[inline]
    pub(super) fn protects(&self, executor: &Executor<'_>) -> bool {
        executor.is_of(&self.executors) && executor.is_registered()
    }

    /// Defers the release of a span until no executor can be running it.
    ///
    /// No thread comes to the code any more, which only its owner can know. Where the queue is
    /// full, a few spans are released first, if they can be.
    ///
    /// # Errors
    ///
    /// [`JitError::QueueFull`], with the span, where as many wait as the configuration allows: some
    /// executor has no quiescent point. The span may be retired again later; a thread that runs
    /// code itself needs a quiescent point before that, or it waits for itself.
    /// [`JitError::NotOwned`], with the span, where the allocator would not take it.
    #[expect(
        clippy::result_large_err,
        reason = "the token comes back, and nothing here can box it"
    )]
    pub fn retire(&self, span: Span) -> Result<(), Refused> {
        if let Err(error) = self.allocator.check(&span) {
            return Err(Refused { span, error });
        }
        self.defer(&mut self.waiting.lock(), span)
    }

    /// Defers the release of the span that starts at `rx`, as [`RetireQueue::retire`] does. Looks
    /// through all that waits.
    ///
    /// # Errors
    ///
    /// [`JitError::QueueFull`]; [`JitError::NotOwned`], [`JitError::NotLive`] or
    /// [`JitError::Interior`] where no span starts at `rx`, or where it waits already. Nothing
    /// changes then.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, the caller owns it, and no token of it is used again.
    pub unsafe fn retire_at(&self, rx: usize) -> Result<(), JitError> {
        let mut waiting = self.waiting.lock();
        // SAFETY: if a span starts at `rx`, the caller owns it and uses no other token of it again:
        // this function's `# Safety`.
        let span = unsafe { self.allocator.span_at(rx)? };
        if waiting.holds(rx) {
            return Err(JitError::NotLive);
        }
        self.defer(&mut waiting, span)
            .map_err(|refused| refused.error)
    }

    #[expect(
        clippy::result_large_err,
        reason = "the token comes back, and nothing here can box it"
    )]
    fn defer(&self, waiting: &mut Waiting, span: Span) -> Result<(), Refused> {
        if waiting.is_full() {
            self.release_some(waiting, self.executors.passed());
        }
        if waiting.is_full() {
            let error = JitError::QueueFull;
            return Err(Refused { span, error });
        }
        let stamp = self.executors.advance();
        waiting.push(Retired { span, stamp });
        Ok(())
    }

    /// Releases all that can be released now; returns what that was.
    pub fn reclaim(&self) -> Reclaimed {
        let passed = self.executors.passed();
        let mut total = Reclaimed::default();
        loop {
            let (part, more) = self.release_some(&mut self.waiting.lock(), passed);
            total += part;
            if !more {
                return total;
            }
        }
    }

    /// Releases up to a batch of what has no higher stamp than `passed`; says too whether there may
    /// be more.
    fn release_some(&self, waiting: &mut Waiting, passed: u64) -> (Reclaimed, bool) {
        let mut total = Reclaimed::default();
        for _ in 0..BATCH {
            let Some(span) = waiting.pop(passed) else {
                return (total, false);
            };
            let one = Reclaimed {
                spans: 1,
                bytes: span.len_bytes() as u64,
            };
            if self.allocator.release(span).is_ok() {
                total += one;
                waiting.reclaimed += one;
            } else {
                waiting.refused += 1;
            }
        }
        (total, true)
    }

    /// Returns what waits, and what came before.
    pub fn statistics(&self) -> RetireStatistics {
        let (executors, online) = self.executors.count();
        let waiting = self.waiting.lock();
        RetireStatistics {
            waiting: waiting.tally(),
            reclaimed: waiting.reclaimed,
            refused: waiting.refused,
            executors,
            online,
            metadata: self.arena.committed_bytes(),
        }
    }

    /// Returns the allocator, or the reference to it, that the queue was made with.
    pub const fn allocator(&self) -> &A {
        &self.allocator
    }
}

impl<A: Releases, M: PageProvider + Copy, R: RawMutex> Drop for RetireQueue<A, M, R> {
    fn drop(&mut self) {
        // Executors borrow the queue: none is left, so everything has passed.
        while let Some(span) = self.waiting.get_mut().pop(u64::MAX) {
            // A span that the allocator refuses is no longer its own.
            let _ = self.allocator.release(span);
        }
    }
}

impl<A: Releases, M: PageProvider + Copy, R: RawMutex> fmt::Debug for RetireQueue<A, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetireQueue(..)")
    }
}
