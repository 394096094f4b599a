//! The allocator's lock, with signals kept out where their handlers may want it.

use super::{RegionAllocator, allocator::State};
use crate::{
    fork::ForkHooks,
    provider::{Error, PageProvider},
    sync::{Guard, RawMutex},
};
use core::{
    mem,
    ops::{Deref, DerefMut},
    sync::atomic::Ordering,
};

/// What keeps signals away from a thread that holds an allocator's lock.
///
/// A handler that maps or unmaps by the allocator which its own thread is changing would wait for
/// itself. Emulators defer signals for such reasons; this is how the allocator asks for it.
/// [`RegionAllocator::query`] and [`RegionAllocator::ranges`] take no lock, and need none of this.
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
    fn new(hook: Option<SignalHook>) -> Self {
        Self(hook.map(|hook| (hook, (hook.enter)())))
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        if let Some((hook, token)) = self.0 {
            (hook.leave)(token);
        }
    }
}

/// The lock, held.
pub(super) struct Held<'a, R: RawMutex> {
    // In this order: the lock is given back before signals come in.
    guard: Guard<'a, State, R>,
    deferred: Deferred,
}

impl<R: RawMutex> Deref for Held<'_, R> {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        &self.guard
    }
}

impl<R: RawMutex> DerefMut for Held<'_, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut State {
        &mut self.guard
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    #[inline]
    pub(super) fn lock(&self) -> Held<'_, R> {
        let deferred = Deferred::new(self.signals);
        Held {
            guard: self.state.lock(),
            deferred,
        }
    }

    /// Gives back a lock whose guard was forgotten.
    ///
    /// # Safety
    ///
    /// As of [`ForkHooks::fork_parent`].
    unsafe fn end_fork(&self) {
        let token = self.forked.load(Ordering::Relaxed);
        // SAFETY: the caller's promise: this thread, or the one that it is a copy of, called
        // fork_prepare, which forgot the guard.
        unsafe { self.state.unlock_forgotten() };
        drop(Deferred(self.signals.map(|hook| (hook, token))));
    }
}

// SAFETY: every change takes the lock of the allocator, which fork_prepare takes; the arena's lock is
// only taken under it. Memory of the arena is private, so that the child has a copy; what lies in the
// regions is the provider's below, and forks as that provider says.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> ForkHooks
    for RegionAllocator<P, M, R>
{
    fn fork_prepare(&self) -> Result<(), Error> {
        let Held { guard, deferred } = self.lock();
        let token = deferred.0.map_or(0, |(_, token)| token);
        self.forked.store(token, Ordering::Relaxed);
        mem::forget((guard, deferred));
        Ok(())
    }

    unsafe fn fork_parent(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.end_fork() }
    }

    unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.end_fork() };
        Ok(())
    }
}
