//! The atomics of code that takes no lock: the language's, or in the models of `ci/loom.sh` those
//! of loom, which tries what any CPU may do with them.

use core::ptr::NonNull;

#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// Reads an atomic that only the calling thread changes. Others may read it meanwhile. The compiler
/// treats it as any load, which may be an operand of an instruction, as an atomic one never is.
///
/// # Safety
///
/// No other thread stores to it at the same time.
#[cfg(not(all(test, loom)))]
#[inline]
pub(crate) const unsafe fn own_ptr<T>(atomic: &AtomicPtr<T>) -> *mut T {
    // SAFETY: the caller's promise: nothing else writes, so that this read races with none.
    unsafe { *atomic.as_ptr() }
}

/// Reads an atomic that only the calling thread changes.
///
/// # Safety
///
/// No other thread stores to it at the same time.
#[cfg(all(test, loom))]
pub(crate) unsafe fn own_ptr<T>(atomic: &AtomicPtr<T>) -> *mut T {
    atomic.load(Ordering::Relaxed)
}

/// As [`own_ptr`], of a number.
///
/// # Safety
///
/// No other thread stores to it at the same time.
#[cfg(not(all(test, loom)))]
#[inline]
pub(crate) const unsafe fn own_usize(atomic: &AtomicUsize) -> usize {
    // SAFETY: the caller's promise: nothing else writes, so that this read races with none.
    unsafe { *atomic.as_ptr() }
}

/// As [`own_ptr`], of a number.
///
/// # Safety
///
/// No other thread stores to it at the same time.
#[cfg(all(test, loom))]
pub(crate) unsafe fn own_usize(atomic: &AtomicUsize) -> usize {
    atomic.load(Ordering::Relaxed)
}

/// Makes `count` atomics of memory that reads zero, each zero. Nothing is to be done for the
/// language's.
///
/// # Safety
///
/// Zeroed and writable memory of `count` times `A` at `first`, which is no other code's. `A` is an
/// atomic of this module.
#[cfg(not(all(test, loom)))]
pub(crate) unsafe fn init_zeroed<A: Default>(_first: NonNull<A>, _count: usize) {}

/// Makes `count` atomics of memory that reads zero, each zero. Those of loom are more than bytes.
///
/// # Safety
///
/// Zeroed and writable memory of `count` times `A` at `first`, which is no other code's. `A` is an
/// atomic of this module.
#[cfg(all(test, loom))]
pub(crate) unsafe fn init_zeroed<A: Default>(first: NonNull<A>, count: usize) {
    for n in 0..count {
        // SAFETY: the caller's promise: so many fit.
        let place = unsafe { first.add(n) };
        // SAFETY: as above, and no other code's.
        unsafe { place.write(A::default()) };
    }
}

/// A fence that loom tries before and behind every other one, which by itself it does not do: it
/// goes by accesses to the same object.
#[cfg(all(test, loom))]
pub(crate) fn fence(order: Ordering) {
    loom::lazy_static! {
        static ref FENCES: AtomicUsize = AtomicUsize::new(0);
    }
    FENCES.fetch_add(1, Ordering::Relaxed);
    loom::sync::atomic::fence(order);
}
