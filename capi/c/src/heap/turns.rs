//! Caches of a heap that threads use by turns, so that a thread which attached no handle seldom
//! takes one of the heap's locks. A thread begins at the cache that its thread pointer leads to,
//! and takes the first of two that no other thread is using; where both are taken the heap itself
//! serves. Nothing is a thread's own, so that one may end in any way between two calls. A cache
//! that was in use when the process forked, by a thread that the child does not have, stays taken
//! in the child.

use super::{HeapObject, Inner, Local};
use core::{
    cell::UnsafeCell,
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// How many caches there are, a power of two: as many threads as allocate at the same time in most
/// programs, each with three kilobytes of metadata once it was used.
const CACHES: usize = 16;

/// Caches that a call looks at.
const LOOKED_AT: usize = 2;

/// A cache, on a cache line of its own.
#[repr(align(64))]
pub(super) struct Cache {
    taken: AtomicBool,
    local: UnsafeCell<Option<Local>>,
}

// SAFETY: the handle is used by whoever has `taken` alone; it may be another thread's each time.
unsafe impl Sync for Cache {}

/// All caches of a heap.
pub(super) struct Caches([Cache; CACHES]);

impl Caches {
    pub(super) const fn new() -> Self {
        Self(
            [const {
                Cache {
                    taken: AtomicBool::new(false),
                    local: UnsafeCell::new(None),
                }
            }; CACHES],
        )
    }

    /// Gives up all caches that no thread is using, and what is in them.
    pub(super) fn end(&self) {
        for cache in &self.0 {
            cache.with(|local| drop(local.take()));
        }
    }

    /// Has all caches that no thread is using give their blocks back to the heap.
    pub(super) fn flush(&self) {
        for cache in &self.0 {
            cache.with(|local| local.as_ref().map(Local::flush));
        }
    }
}

impl Cache {
    /// Calls `f` with the handle if no thread is using it.
    #[inline]
    fn with<T>(&self, f: impl FnOnce(&mut Option<Local>) -> T) -> Option<T> {
        if self.taken.load(Relaxed) || self.taken.swap(true, Acquire) {
            return None;
        }
        // SAFETY: it was not taken before, and is until the line below: no other reference.
        let result = f(unsafe { &mut *self.local.get() });
        self.taken.store(false, Release);
        Some(result)
    }
}

/// Returns what tells most threads apart.
#[inline]
fn here() -> usize {
    cfg_select! {
        target_os = "linux" => {
            // SAFETY: the C library has set the register up.
            let pointer = unsafe { hostmem::arch::thread_pointer() };
            // Fibonacci hashing: the upper bits of a product with 2^64 / φ depend on all bits.
            pointer.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - CACHES.trailing_zeros())
        }
        _ => 0,
    }
}

impl HeapObject {
    /// Calls `by_cache` with a handle that no other thread is using, or `by_heap` without one.
    #[inline]
    pub(super) fn by_turns<T, A>(
        &'static self,
        with: A,
        by_cache: impl Fn(&Local, A) -> T,
        by_heap: impl Fn(&Inner, A) -> T,
    ) -> T
    where
        A: Copy,
    {
        if self.has_caches {
            let first = here();
            for n in 0..LOOKED_AT {
                let done = self.caches.0[(first + n) % CACHES].with(|local| {
                    if local.is_none() {
                        *local = self.heap.local().ok();
                    }
                    local.as_ref().map(|local| by_cache(local, with))
                });
                if let Some(Some(result)) = done {
                    return result;
                }
            }
        }
        by_heap(&self.heap, with)
    }
}
