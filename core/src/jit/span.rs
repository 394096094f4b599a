//! Tokens and descriptions of executable memory.

use super::block::Block;
use core::{fmt, ptr::NonNull};

/// Executable memory that the caller owns: the token of it. Given back by
/// [`JitAllocator::release`](super::JitAllocator::release).
#[must_use = "dropping a span leaks its memory until the allocator is dropped"]
pub struct Span {
    rx: NonNull<u8>,
    rw: NonNull<u8>,
    len: usize,
    owner: u64,
    block: NonNull<Block>,
}

// SAFETY: the token owns its memory, which is not tied to a thread, and reaches the block only
// through its allocator, under a lock or by atomics.
unsafe impl Send for Span {}
// SAFETY: shared access gives out addresses only.
unsafe impl Sync for Span {}

impl Span {
    #[inline]
    pub(super) const fn new(info: SpanInfo, owner: u64, block: NonNull<Block>) -> Self {
        Self {
            rx: info.rx,
            rw: info.rw,
            len: info.len,
            owner,
            block,
        }
    }

    /// Returns where the code is executed.
    #[must_use]
    #[inline]
    pub const fn rx(&self) -> NonNull<u8> {
        self.rx
    }

    /// Returns where the code is written. Prefer
    /// [`JitAllocator::write`](super::JitAllocator::write), which also publishes what it wrote.
    #[must_use]
    #[inline]
    pub const fn rw(&self) -> NonNull<u8> {
        self.rw
    }

    /// Returns the length in bytes: what was asked for, rounded up to granules.
    #[must_use]
    #[inline]
    pub const fn len_bytes(&self) -> usize {
        self.len
    }

    /// Returns the number of the allocator that the span belongs to.
    #[inline]
    pub(super) const fn owner(&self) -> u64 {
        self.owner
    }

    /// Returns the block that the span lies in; the allocator that owns the span keeps it.
    #[inline]
    pub(super) const fn block(&self) -> NonNull<Block> {
        self.block
    }

    /// Describes the span.
    #[must_use]
    #[inline]
    pub const fn info(&self) -> SpanInfo {
        SpanInfo {
            rx: self.rx,
            rw: self.rw,
            len: self.len,
        }
    }

    #[inline]
    pub(super) const fn set_len(&mut self, len: usize) {
        self.len = len;
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Span({:p} for {:p}, {} bytes)",
            self.rw, self.rx, self.len
        )
    }
}

/// Describes a live span; owns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanInfo {
    /// Where it is executed.
    pub rx: NonNull<u8>,
    /// Where it is written.
    pub rw: NonNull<u8>,
    /// Its length in bytes.
    pub len: usize,
}

// SAFETY: a description; whoever follows the pointers needs a contract of its own.
unsafe impl Send for SpanInfo {}
// SAFETY: as for Send.
unsafe impl Sync for SpanInfo {}

/// A span that its allocator refused to take back, and why.
#[derive(Debug)]
pub struct Refused {
    /// The span, still the caller's.
    pub span: Span,
    /// Why.
    pub error: super::JitError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "span not released: {}", self.error)
    }
}

impl core::error::Error for Refused {}
