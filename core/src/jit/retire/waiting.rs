//! What waits, in the order in which it was retired.
//!
//! ```text
//!   ring   ┌────┬────┬────┬────┬────┬────┬────┬────┐
//!          │    │    │ 17 │ 18 │ 19 │ 20 │    │    │    stamps, rising
//!          └────┴────┴────┴────┴────┴────┴────┴────┘
//!                     first               first + len
//! ```

use super::Reclaimed;
use crate::jit::Span;
use core::{mem::MaybeUninit, ptr::NonNull};

/// A span that waits, and the epoch that executors must have announced.
pub(super) struct Retired {
    pub(super) span: Span,
    pub(super) stamp: u64,
}

/// The ring of what waits, and counters: what the lock of a queue guards.
pub(super) struct Waiting {
    /// Places, of which the `len` ones from `first` on are initialised.
    ring: NonNull<[MaybeUninit<Retired>]>,
    first: usize,
    len: usize,
    /// Bytes that wait.
    bytes: u64,
    pub(super) reclaimed: Reclaimed,
    pub(super) refused: u64,
}

// SAFETY: the ring belongs to this value alone, and its spans may be sent.
unsafe impl Send for Waiting {}

impl Waiting {
    /// Takes a ring over, which is empty.
    ///
    /// # Safety
    ///
    /// It is used by no other code, and outlives the result.
    pub(super) unsafe fn new(ring: NonNull<[MaybeUninit<Retired>]>) -> Self {
        Self {
            ring,
            first: 0,
            len: 0,
            bytes: 0,
            reclaimed: Reclaimed::default(),
            refused: 0,
        }
    }

    fn ring(&mut self) -> &mut [MaybeUninit<Retired>] {
        // SAFETY: used by no other code, and outlives self: the `# Safety` of new; self is
        // borrowed.
        unsafe { self.ring.as_mut() }
    }

    /// Returns the nth member, which there is.
    fn member(&self, n: usize) -> &Retired {
        debug_assert!(n < self.len, "a member of the ring");
        // SAFETY: place is below the ring's length.
        let place = unsafe { self.ring.cast::<Retired>().add(self.place(n)) };
        // SAFETY: members are initialised, and change by exclusive borrows of self only.
        unsafe { place.as_ref() }
    }

    /// Returns the place of the nth member, or of the next one.
    fn place(&self, n: usize) -> usize {
        let (at, len) = (self.first + n, self.ring.len());
        if at < len { at } else { at - len }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len == self.ring.len()
    }

    /// Returns what waits.
    pub(super) const fn tally(&self) -> Reclaimed {
        Reclaimed {
            spans: self.len as u64,
            bytes: self.bytes,
        }
    }

    /// Puts a span at the end. There is room, and no stamp is higher.
    pub(super) fn push(&mut self, retired: Retired) {
        assert!(!self.is_full(), "there is room for a span that is to wait");
        self.bytes += retired.span.len_bytes() as u64;
        let place = self.place(self.len);
        self.ring()[place].write(retired);
        self.len += 1;
    }

    /// Takes the first span if its stamp is not above `passed`.
    pub(super) fn pop(&mut self, passed: u64) -> Option<Span> {
        if self.len == 0 || self.member(0).stamp > passed {
            return None;
        }
        let place = self.place(0);
        // SAFETY: the first member is initialised, and is none from here on.
        let retired = unsafe { self.ring()[place].assume_init_read() };
        self.first = self.place(1);
        self.len -= 1;
        self.bytes -= retired.span.len_bytes() as u64;
        Some(retired.span)
    }

    /// Says whether a span that starts at `rx` waits.
    pub(super) fn holds(&self, rx: usize) -> bool {
        (0..self.len).any(|n| self.member(n).span.rx().addr().get() == rx)
    }
}
