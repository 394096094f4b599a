//! The allocator's lock, with signals kept out where their handlers may want it.

use super::{RegionAllocator, allocator::State, fork::Parts};
use crate::{
    provider::PageProvider,
    sync::{Guard, RawMutex},
};
use core::ops::{Deref, DerefMut};

/// Two functions that keep signals away from a thread that holds an allocator's lock.
///
/// A handler that maps or unmaps by the allocator which its own thread is changing would wait for
/// itself. Emulators defer signals for such reasons; this is how the allocator asks for it.
/// [`RegionAllocator::query`] and [`RegionAllocator::ranges`] take no lock, and need none of this.
///
/// Signals whose handlers fork are to be kept out, too: with a hook, a forked child takes it that
/// no change was interrupted on its own thread, and frees what the threads that it does not have
/// were changing.
#[derive(Clone, Copy, Debug)]
pub struct SignalHook {
    /// Called before the lock is waited for, on the thread that will hold it; what it returns, the
    /// signals blocked before for instance, goes to `leave`. It must not panic.
    pub enter: fn() -> usize,
    /// Called after the lock was given back, on the same thread. It must not panic.
    pub leave: fn(usize),
}

/// Signals that are kept out until it is dropped.
struct Deferred(Option<(SignalHook, usize)>);

impl Deferred {
    #[inline]
    fn new(hook: Option<SignalHook>) -> Self {
        Self(hook.map(|hook| (hook, (hook.enter)())))
    }
}

impl Drop for Deferred {
    #[inline]
    fn drop(&mut self) {
        if let Some((hook, token)) = self.0 {
            (hook.leave)(token);
        }
    }
}

/// The lock, held.
pub(super) struct Held<'a, M: PageProvider + Copy, R: RawMutex> {
    // In this order: the lock is given back before signals come in.
    guard: Guard<'a, State, R>,
    _deferred: Deferred,
    /// The parts that the lock belongs to and guards.
    pub(super) parts: &'a Parts<M, R>,
}

impl<M: PageProvider + Copy, R: RawMutex> Drop for Held<'_, M, R> {
    #[inline]
    fn drop(&mut self) {
        // Also where a caller's function unwinds: the next holder may note nothing.
        self.parts.journal.clear();
    }
}

impl<M: PageProvider + Copy, R: RawMutex> Deref for Held<'_, M, R> {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        &self.guard
    }
}

impl<M: PageProvider + Copy, R: RawMutex> DerefMut for Held<'_, M, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut State {
        &mut self.guard
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    #[inline]
    pub(super) fn lock(&self) -> Held<'_, M, R> {
        let deferred = Deferred::new(self.signals);
        loop {
            let parts = self.parts.current();
            let guard = parts.state.lock();
            // A handler may have forked before the lock was taken.
            if self.parts.is_current(parts) {
                return Held {
                    guard,
                    _deferred: deferred,
                    parts,
                };
            }
        }
    }
}
