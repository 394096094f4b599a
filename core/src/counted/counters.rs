//! What is counted, and what it is limited to.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// An amount in bytes, and the most it ever was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    /// Bytes now.
    pub now: usize,
    /// The high-water mark in bytes.
    pub high: usize,
}

/// A gauge that is whole after every step, so that a forked child needs no lock to read it.
#[derive(Default)]
pub(super) struct Level {
    now: AtomicUsize,
    high: AtomicUsize,
}

impl Level {
    pub(super) fn add(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Relaxed) + bytes;
        self.high.fetch_max(now, Relaxed);
    }

    pub(super) fn sub(&self, bytes: usize) {
        let was = self.now.fetch_sub(bytes, Relaxed);
        debug_assert!(bytes <= was, "no more goes than came");
    }

    pub(super) fn get(&self) -> Gauge {
        Gauge {
            now: self.now.load(Relaxed),
            high: self.high.load(Relaxed),
        }
    }
}

/// What a [`Counted`](super::Counted) provider holds. A failed call changes none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Addresses reserved, committed ones included, dual views excluded.
    pub reserved: Gauge,
    /// Memory committed in those.
    pub committed: Gauge,
    /// Memory of dual mappings, once for both views.
    pub dual: Gauge,
}

/// The most that a [`Counted`](super::Counted) provider gives, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses reserved.
    pub reserved: usize,
    /// Memory: committed and dual together.
    pub memory: usize,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self {
        reserved: usize::MAX,
        memory: usize::MAX,
    };
}
