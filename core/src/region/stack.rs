//! Stacks for threads, between guards.

use crate::{
    page::PageRange,
    provider::{Commit, Error, ErrorKind, PageProvider, Request},
};
use core::{fmt, ptr::NonNull};

/// Memory for the stack of a thread.
///
/// ```text
///   ├─ guard ─┼───────────── len_bytes ─────────────┼─ guard ─┤
///             base                                  base + len
/// ```
///
/// Where everything above 4 GiB is claimed, a C library finds room for a new thread's stack only
/// below, among the guest's. Made by a provider that places it elsewhere, base and length go to
/// `pthread_attr_setstack` or to a raw `clone`.
///
/// All of it is committed; a host that gives pages when they are touched first gives none before.
/// Dropping it leaves it mapped, since the thread may still run on it.
#[must_use = "a stack stays mapped until it is released"]
pub struct GuardedStack<P> {
    provider: P,
    whole: PageRange,
    body: PageRange,
}

impl<P: PageProvider> GuardedStack<P> {
    /// Maps a stack of `len` bytes between two guards of `guard` bytes, each rounded up to pages.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a length of zero or one that overflows; what the provider
    /// says of the reservation and the commit. Nothing stays mapped then.
    pub fn new(provider: P, len: usize, guard: usize) -> Result<Self, Error> {
        let page = provider.page_size();
        let request = Request::bytes(len).guards(guard, guard);
        let plan = request.plan(page)?;
        let whole = provider.reserve(&request)?;
        let body = whole.part(plan.before(), plan.body(), page);
        let committed = body.ok_or(ErrorKind::Other.into()).and_then(|body| {
            // SAFETY: the part between the guards of a range that was reserved above, and no other
            // code has its address yet.
            unsafe { provider.commit(body, Commit::READ_WRITE) }.map(|_| body)
        });
        match committed {
            Ok(body) => Ok(Self {
                provider,
                whole,
                body,
            }),
            Err(error) => {
                // SAFETY: reserved above, and no other code has its address yet. A failure wastes
                // addresses.
                let _ = unsafe { provider.release(whole) };
                Err(error)
            }
        }
    }

    /// Returns the lowest address of the stack, which it grows down to.
    pub const fn base(&self) -> NonNull<u8> {
        self.body.start()
    }

    /// Returns how long the stack is, in bytes; the guards are not counted.
    pub const fn len_bytes(&self) -> usize {
        self.body.len_bytes()
    }

    /// Returns the stack without its guards.
    pub const fn range(&self) -> PageRange {
        self.body
    }

    /// Returns the stack and its guards.
    pub const fn range_with_guards(&self) -> PageRange {
        self.whole
    }

    /// Unmaps the stack and its guards.
    ///
    /// # Errors
    ///
    /// The provider's error; the stack is returned with it.
    ///
    /// # Safety
    ///
    /// No thread runs on it, and nothing that lay on it is used any more.
    pub unsafe fn release(self) -> Result<(), (Self, Error)> {
        // SAFETY: reserved from this provider by `new`, and released only here, which consumes
        // self; no thread runs on it, and nothing on it is used, by this function's condition.
        match unsafe { self.provider.release(self.whole) } {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }
}

impl<P> fmt::Debug for GuardedStack<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedStack")
            .field("range", &self.body)
            .field("range_with_guards", &self.whole)
            .finish_non_exhaustive()
    }
}
