//! A live span, and what was written to it.

use alloc::vec::Vec;
use core::{ptr::NonNull, slice};
use hostmem_core::jit::{Span, SpanInfo};

/// A live span and what was written to it: the whole of it, at first.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) span: Span,
    pub(super) contents: Vec<u8>,
    /// Bytes of a granule of the block that it lies in.
    pub(super) granule: usize,
}

impl Live {
    pub(super) fn rx(&self) -> usize {
        self.span.rx().addr().get()
    }

    pub(super) fn len(&self) -> usize {
        self.span.len_bytes()
    }

    pub(super) fn info(&self) -> SpanInfo {
        self.span.info()
    }

    /// Asserts that both views show what was written.
    #[track_caller]
    pub(super) fn expect_intact(&self) {
        self.expect_view(self.span.rx(), "executable");
        self.expect_view(self.span.rw(), "writable");
    }

    /// Asserts that a view shows what was written. `at` is the view's start of the span.
    #[track_caller]
    pub(super) fn expect_view(&self, at: NonNull<u8>, view: &str) {
        // SAFETY: the span is live, so its bytes are mapped in both views and readable, and only
        // the model writes to it, which is borrowed here.
        let bytes = unsafe { slice::from_raw_parts(at.as_ptr(), self.contents.len()) };
        if bytes == self.contents {
            return;
        }
        let wrong = bytes
            .iter()
            .zip(&self.contents)
            .position(|(found, written)| found != written);
        assert_eq!(
            wrong, None,
            "{:?}: the {view} view differs at this offset",
            self.span
        );
    }
}

/// Makes `len` bytes of a 64-bit pattern.
pub(super) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = seed.to_le_bytes().repeat(len.div_ceil(8));
    bytes.truncate(len);
    bytes
}

/// Returns the offset of the first four bytes that are not `pattern`.
///
/// # Safety
///
/// `len` bytes at `start`, aligned for words, are readable, and no other code writes them.
pub(super) unsafe fn first_unlike(start: NonNull<u8>, len: usize, pattern: u32) -> Option<usize> {
    // SAFETY: the caller vouches for `len` readable bytes at `start`, which are not written
    // meanwhile.
    let words = unsafe { slice::from_raw_parts(start.cast::<u32>().as_ptr(), len / 4) };
    words
        .iter()
        .position(|&word| word != pattern)
        .map(|n| 4 * n)
}
