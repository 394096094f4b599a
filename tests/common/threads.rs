//! Threads that work until they are told to stop, and a test that waits for what they do: on a busy
//! machine they do little in any given time.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for what must come: many times what a slow, emulated machine takes.
const LONGEST: Duration = Duration::from_secs(100);

/// Tells threads to stop, also where one of them, or the one that tells them, panics.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Fails a test that has waited for too long.
pub(crate) struct Patience(Instant);

impl Patience {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn check(&self, what: &str) {
        assert!(self.0.elapsed() < LONGEST, "{what} did not come");
    }
}

/// Waits until `count` is more than `before`, and returns what it is.
pub(crate) fn await_more(count: &AtomicU64, before: u64) -> u64 {
    let patience = Patience::new();
    loop {
        match count.load(Ordering::Relaxed) {
            now if now > before => return now,
            _ => thread::yield_now(),
        }
        patience.check("what other threads do");
    }
}
