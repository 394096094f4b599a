//! Changes of code that may be running.

use super::{
    Barrier, CodeProvider, JitAllocator, JitError, Span, SpanInfo,
    block::Block,
    write::{check_writable, publish_in},
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

mod sealed {
    pub trait Sealed: Copy {
        /// Stores the value at once.
        ///
        /// # Safety
        ///
        /// `at` is aligned for the type, lies in memory that may be written, and every other access
        /// to those bytes is atomic too, or a fetch of instructions.
        unsafe fn store(self, at: *mut u8);
    }
}

use sealed::Sealed;

/// What one store can change of code that is running: a `u32` or a `u64`, in the CPU's byte order.
pub trait PatchWord: Sealed {}

macro_rules! words {
    ($($word:ty = $atomic:ty),+) => {$(
        impl Sealed for $word {
            #[inline]
            unsafe fn store(self, at: *mut u8) {
                // SAFETY: from_ptr asks for what the caller promises: aligned memory that may be
                // written and is accessed by atomics alone meanwhile.
                let word = unsafe { <$atomic>::from_ptr(at.cast()) };
                // Release: code that is reached by this patch was written before.
                word.store(self, Ordering::Release);
            }
        }

        impl PatchWord for $word {}
    )+};
}

words!(u32 = AtomicU32, u64 = AtomicU64);

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Stores four bytes at `offset` in `span`, naturally aligned, that running code may meet at
    /// any moment: a thread that executes them runs either what was there or what is there now. On
    /// AArch64 the caches are kept right.
    ///
    /// Which instructions may be replaced so is the CPU's affair:
    ///
    /// - *AArch64*: `B`, `B.cond`, `BC.cond`, `BL`, `BRK`, `CBZ`, `CBNZ`, `HVC`, `ISB`, `NOP`,
    ///   `SMC`, `SVC`, `TBZ` and `TBNZ` by one of them, without any synchronization (Arm ARM,
    ///   B2.2.5 "Concurrent modification and execution of instructions"). Anything else may only be
    ///   replaced while no thread executes it, and needs [`Barrier::Now`] before one does.
    ///   Data that code loads, as a literal or a counter, is not bound by this.
    /// - *x86-64*: the manuals promise no more than that an aligned store of up to eight bytes is
    ///   seen whole (Intel SDM volume 3, "Guaranteed Atomic Operations"), and ask for a serializing
    ///   instruction on every core that runs the code ("Handling Self- and Cross-Modifying Code"),
    ///   which a barrier is. AMD promises it without one (APM volume 2, "Cross-Modifying Code",
    ///   asynchronous modification), and it is in use on all others: an instruction, or the
    ///   operand of one, that lies within one aligned unit of eight bytes is replaced by one of the
    ///   same length. The boundaries of instructions stay where they are. For others, put
    ///   an `int3` or a jump to itself into the first byte, with [`Barrier::Now`], then change the
    ///   rest, with another, and the first byte last.
    ///
    /// With [`Mapping::Toggle`](super::Mapping::Toggle) no thread may be executing in the pages.
    ///
    /// # Errors
    ///
    /// [`JitError::OutOfBounds`] for an offset that is unaligned or leaves the span, and the errors
    /// of [`JitAllocator::write`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use hostmem_core::jit::{Barrier, CodeProvider, JitAllocator, JitError, Span};
    /// # fn link<P: CodeProvider>(jit: &JitAllocator<P>, block: &Span, target: usize)
    /// #     -> Result<(), JitError> {
    /// // AArch64: the branch at offset 16 now goes to `target`.
    /// let distance = target.wrapping_sub(block.rx().addr().get() + 16) >> 2;
    /// let branch = 0x1400_0000 | u32::try_from(distance & 0x03ff_ffff).expect("26 bits");
    /// jit.patch_u32(block, 16, branch, Barrier::Never)
    /// # }
    /// ```
    #[inline]
    pub fn patch_u32(
        &self,
        span: &Span,
        offset: usize,
        value: u32,
        barrier: Barrier,
    ) -> Result<(), JitError> {
        self.patch(span, offset, value, barrier)
    }

    /// Stores eight bytes as [`JitAllocator::patch_u32`] stores four. On AArch64 these are two
    /// instructions, either of which a thread may find new while the other is old.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::patch_u32`].
    #[inline]
    pub fn patch_u64(
        &self,
        span: &Span,
        offset: usize,
        value: u64,
        barrier: Barrier,
    ) -> Result<(), JitError> {
        self.patch(span, offset, value, barrier)
    }

    /// Does what [`JitAllocator::patch_u32`] and [`JitAllocator::patch_u64`] do, by the type of
    /// `value`.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::patch_u32`].
    #[inline]
    pub fn patch<W: PatchWord>(
        &self,
        span: &Span,
        offset: usize,
        value: W,
        barrier: Barrier,
    ) -> Result<(), JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the token says that the span is live, and is borrowed.
        unsafe { self.store(block, &span.info(), offset, value)? };
        // SAFETY: the span is live, since its token is borrowed, and the bytes lie in it, since
        // store returned.
        let reused = unsafe { publish_in(block, span.rx().addr().get() + offset, size_of::<W>()) };
        self.sync_by(barrier, reused)
    }

    /// Patches as [`JitAllocator::patch`] does the bytes that are executed at `at`.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::patch`]; [`JitError::NotLive`] and [`JitError::NotOwned`]
    /// where no span is at `at`.
    ///
    /// # Safety
    ///
    /// If a span is at `at`, it is not released before the call returns, and no other code writes
    /// those bytes but by patches.
    pub unsafe fn patch_at<W: PatchWord>(
        &self,
        at: usize,
        value: W,
        barrier: Barrier,
    ) -> Result<(), JitError> {
        let (block, info) = self.live_around(at)?;
        // SAFETY: the span is not released before this returns, and only patches write those bytes:
        // this function's `# Safety`.
        unsafe { self.store(block, &info, at - info.rx.addr().get(), value)? };
        // SAFETY: the span stays live, by this function's `# Safety`, and the bytes lie in it,
        // since store returned.
        let reused = unsafe { publish_in(block, at, size_of::<W>()) };
        self.sync_by(barrier, reused)
    }

    /// Stores a word in a span, to be published.
    ///
    /// # Safety
    ///
    /// The span is live in `block`, and no other code writes those bytes but by this.
    #[inline]
    pub(super) unsafe fn store<W: PatchWord>(
        &self,
        block: NonNull<Block>,
        info: &SpanInfo,
        offset: usize,
        value: W,
    ) -> Result<(), JitError> {
        let len = size_of::<W>();
        // Spans are aligned to 16 bytes, so that the offset has the address's alignment.
        let inside = offset.is_multiple_of(len) && info.len - len >= offset;
        if !inside {
            return Err(JitError::OutOfBounds);
        }
        // SAFETY: the block lives as long as this allocator, whose it is.
        check_writable(unsafe { block.as_ref() })?;
        // SAFETY: offset lies within the span, as just checked.
        let rw = unsafe { info.rw.add(offset) };
        // SAFETY: store asks for aligned memory that may be written, and for no access but atomic
        // ones and fetches of instructions.
        // - aligned and inside the span: both were just checked; writable: the pages are now;
        // - no other code writes those bytes but by this, by the `# Safety` of this function; the
        //   allocator itself reads spans under its locks, for a fork, which copies old bytes or new
        //   ones.
        let store = || unsafe { value.store(rw.as_ptr()) };
        // SAFETY: the span is live, so its block stays mapped.
        unsafe { self.while_writable(rw, len, store) }
    }

    /// Finds the live span around `at`, and its block.
    pub(super) fn live_around(&self, at: usize) -> Result<(NonNull<Block>, SpanInfo), JitError> {
        match self.index.query(at) {
            Some(found) => Ok((found.block, found.info)),
            None => Err(self
                .block_of(at)
                .map_or_else(|error| error, |_| JitError::NotLive)),
        }
    }
}
