//! Where spans go when no thread runs them any more.

use crate::{
    jit::{CodeProvider, JitAllocator, JitError, Refused, Span},
    provider::PageProvider,
    sync::RawMutex,
};

/// What a [`RetireQueue`](super::RetireQueue) gives spans back to: a [`JitAllocator`], or what
/// stands around one and has something of its own to do when code goes.
///
/// The calls are made under the queue's lock, and must not call the queue.
pub trait Releases {
    /// Says whether [`Releases::release`] would take a span back.
    ///
    /// # Errors
    ///
    /// Why not.
    fn check(&self, span: &Span) -> Result<(), JitError>;

    /// Releases a span that no thread executes any more.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::release`].
    #[expect(
        clippy::result_large_err,
        reason = "the token comes back, and nothing here can box it"
    )]
    fn release(&self, span: Span) -> Result<(), Refused>;

    /// Makes the token of the live span that starts at `rx`.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], [`JitError::NotLive`] or [`JitError::Interior`] where no span starts
    /// at `rx`.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, the caller owns it, and no other token of it is used again.
    unsafe fn span_at(&self, rx: usize) -> Result<Span, JitError>;
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Releases for JitAllocator<P, M, R> {
    fn check(&self, span: &Span) -> Result<(), JitError> {
        self.check_owner(span)
    }

    fn release(&self, span: Span) -> Result<(), Refused> {
        Self::release(self, span)
    }

    unsafe fn span_at(&self, rx: usize) -> Result<Span, JitError> {
        let (_, info) = self.live_at(rx)?;
        Ok(Span::new(info, self.id()))
    }
}

impl<A: Releases + ?Sized> Releases for &A {
    fn check(&self, span: &Span) -> Result<(), JitError> {
        A::check(self, span)
    }

    fn release(&self, span: Span) -> Result<(), Refused> {
        A::release(self, span)
    }

    unsafe fn span_at(&self, rx: usize) -> Result<Span, JitError> {
        // SAFETY: if a span starts at `rx`, the caller owns it and uses no other token of it again:
        // the `# Safety` of span_at, which is the same here.
        unsafe { A::span_at(self, rx) }
    }
}
