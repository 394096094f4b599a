//! The atomics of code that takes no lock: the language's, or in the models of `ci/loom.sh` those of
//! loom, which tries what any CPU may do with them.

#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// A fence that loom tries before and behind every other one, which by itself it does not do: it goes
/// by accesses to the same object.
#[cfg(all(test, loom))]
pub(crate) fn fence(order: Ordering) {
    loom::lazy_static! {
        static ref FENCES: AtomicUsize = AtomicUsize::new(0);
    }
    FENCES.fetch_add(1, Ordering::Relaxed);
    loom::sync::atomic::fence(order);
}
