//! What waits, in the order in which it was retired.
//!
//! ```text
//!   ring   ┌────┬────┬────┬────┬────┬────┬────┬────┐
//!          │    │    │ 17 │ 18 │ 19 │ 20 │    │    │    stamps, rising
//!          └────┴────┴────┴────┴────┴────┴────┴────┘
//!                     first               first + len
//! ```

use super::Tally;
use crate::jit::Span;
use core::ptr::NonNull;

/// A span that waits, and the epoch that executors must have announced.
pub(super) struct Retired {
    pub(super) span: Span,
    pub(super) stamp: u64,
}

/// The ring of what waits, and counters: what the lock of a queue guards.
pub(super) struct Waiting {
    ring: NonNull<[Option<Retired>]>,
    first: usize,
    len: usize,
    /// Bytes that wait.
    bytes: u64,
    pub(super) reclaimed: Tally,
    pub(super) refused: u64,
}

// SAFETY: the ring belongs to this value alone, and its spans may be sent.
unsafe impl Send for Waiting {}

impl Waiting {
    /// Takes a ring over, which is empty.
    ///
    /// # Safety
    ///
    /// It is initialised, used by nobody else, and outlives the result.
    pub(super) unsafe fn new(ring: NonNull<[Option<Retired>]>) -> Self {
        Self {
            ring,
            first: 0,
            len: 0,
            bytes: 0,
            reclaimed: Tally::default(),
            refused: 0,
        }
    }

    fn ring(&mut self) -> &mut [Option<Retired>] {
        // SAFETY: initialised, this value's alone, which is borrowed, and alive, by the promise to
        // new.
        unsafe { self.ring.as_mut() }
    }

    /// Returns the place of the nth member, or of the next one.
    fn place(&self, n: usize) -> usize {
        (self.first + n) % self.ring.len()
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len == self.ring.len()
    }

    /// Returns what waits.
    pub(super) const fn tally(&self) -> Tally {
        Tally {
            spans: self.len as u64,
            bytes: self.bytes,
        }
    }

    /// Puts a span at the end. There is room, and no stamp is higher.
    pub(super) fn push(&mut self, retired: Retired) {
        assert!(!self.is_full(), "there is room for a span that is to wait");
        self.bytes += retired.span.len_bytes() as u64;
        let place = self.place(self.len);
        self.ring()[place] = Some(retired);
        self.len += 1;
    }

    /// Takes the first span if its stamp is not above `passed`.
    pub(super) fn pop(&mut self, passed: u64) -> Option<Span> {
        let place = self.place(0);
        let retired = self.ring()[place].take_if(|first| first.stamp <= passed)?;
        self.first = self.place(1);
        self.len -= 1;
        self.bytes -= retired.span.len_bytes() as u64;
        Some(retired.span)
    }

    /// Says whether a span that starts at `rx` waits.
    pub(super) fn holds(&mut self, rx: usize) -> bool {
        let (first, len) = (self.first, self.len);
        let (after, before) = self.ring().split_at(first);
        let members = before.iter().chain(after).take(len);
        members
            .flatten()
            .any(|retired| retired.span.rx().addr().get() == rx)
    }
}
