//! A lock that is held, by a thread that is marked for its signal handlers.

use super::Parts;
use crate::{
    heap::cache::CacheRef,
    sync::{Guard, Lock, RawMutex},
};
use core::{
    ops::{Deref, DerefMut},
    sync::atomic::{
        Ordering::{Relaxed, SeqCst},
        compiler_fence,
    },
};

/// How the calling thread is marked as one that is in a call: of a heap in a static, whose signal
/// handlers look for the mark.
#[derive(Clone, Copy)]
pub(in crate::heap) struct Mark {
    /// Marks the thread, whose stack ends at an address or deeper until it leaves, and returns its
    /// cache, if it has one, and what [`Mark::leave`] is to restore.
    pub(in crate::heap) enter: fn(usize) -> (Option<CacheRef>, *mut ()),
    pub(in crate::heap) leave: fn(*mut ()),
}

/// A mark that is taken away when this is dropped.
pub(super) struct Marked {
    mark: Option<(Mark, *mut ())>,
    awaits: Option<Awaits>,
}

/// A cache that knows that its thread may hold a lock.
pub(super) struct Awaits {
    cache: CacheRef,
    lock: u32,
    /// The depth that it is to know afterwards.
    before: usize,
}

impl Marked {
    pub(super) const NONE: Self = Self {
        mark: None,
        awaits: None,
    };

    /// Marks the thread, if it is to be, before it goes for a lock of a kind, and a bin's if so,
    /// for a frame in which the stack ends at `depth`.
    pub(super) fn new(mark: Option<Mark>, lock: u32, bin: Option<u32>, depth: usize) -> Self {
        let Some(mark) = mark else {
            return Self::NONE;
        };
        let (cache, before) = (mark.enter)(depth);
        let awaits = cache.map(|cache| {
            // Before it is looked for.
            if let Some(bin) = bin {
                cache.bin.store(bin, Relaxed);
            }
            let before = cache.await_lock(lock, depth);
            Awaits {
                cache,
                lock,
                before,
            }
        });
        Self {
            mark: Some((mark, before)),
            awaits,
        }
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        if let Some(Awaits {
            cache,
            lock,
            before,
        }) = self.awaits
        {
            cache.forget_lock(lock, before);
        }
        if let Some((mark, before)) = self.mark {
            (mark.leave)(before);
        }
    }
}

/// A lock that is held, by a thread that is marked.
pub(in crate::heap) struct Held<'a, T, R: RawMutex> {
    // In this order: the lock is given back first.
    guard: Guard<'a, T, R>,
    marked: Marked,
    lock: &'a Lock<T, R>,
    /// The parts that the lock is one of.
    pub(in crate::heap) parts: &'a Parts<R>,
}

impl<T, R: RawMutex> Drop for Held<'_, T, R> {
    fn drop(&mut self) {
        if self.marked.awaits.is_some() {
            self.lock.owner().store(0, Relaxed);
            compiler_fence(SeqCst);
        }
    }
}

impl<T, R: RawMutex> Deref for Held<'_, T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, R: RawMutex> DerefMut for Held<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<'a, T, R: RawMutex> Held<'a, T, R> {
    pub(super) fn new(
        lock: &'a Lock<T, R>,
        guard: Guard<'a, T, R>,
        marked: Marked,
        parts: &'a Parts<R>,
    ) -> Self {
        if let Some(awaits) = &marked.awaits {
            lock.owner().store(awaits.cache.as_ptr().addr(), Relaxed);
            compiler_fence(SeqCst);
        }
        Self {
            guard,
            marked,
            lock,
            parts,
        }
    }
}
