//! The atomics of code that takes no lock: the language's, or in the models of `ci/loom.sh` those
//! of loom, which tries what any CPU may do with them.

use core::ptr::NonNull;

#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

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
