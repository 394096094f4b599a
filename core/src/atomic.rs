//! The atomics of code that takes no lock: the language's, or in the models of `ci/loom.sh` those of
//! loom, which tries what any CPU may do with them.

#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
