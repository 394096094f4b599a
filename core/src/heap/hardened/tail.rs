//! A canary of several words, and the pattern of a whole block.

use super::{PATTERN, WORD};
use core::{ptr::NonNull, slice};

/// Words of a canary at most: what runs over writes the first of them.
pub(super) const WORDS_MOST: usize = 16;

/// A canary, which is repeated up to a number of words. Where those do not end with the block, it
/// goes on if the block ends shortly behind, so that a write before the next block is found.
pub(in crate::heap) struct Tail {
    first: NonNull<u64>,
    /// Bytes up to the end of the block.
    len: usize,
    words: usize,
    has_last: bool,
    canary: u64,
}

impl Tail {
    /// Describes one of `most` words at most.
    ///
    /// # Safety
    ///
    /// The block is as long as `size` says, and no less than what was asked for.
    #[inline]
    pub(super) unsafe fn new(
        block: NonNull<u8>,
        size: usize,
        asked: usize,
        canary: u64,
        most: usize,
    ) -> Self {
        // SAFETY: the block is no shorter than what was asked for, as the caller says.
        let first = unsafe { block.add(asked) };
        let len = size - asked;
        Self {
            first: first.cast(),
            len,
            words: (len / WORD).min(most),
            has_last: most > 1 && len < WORD * (most + 1),
            canary,
        }
    }

    /// Describes one of the highest level.
    ///
    /// # Safety
    ///
    /// Those of [`Tail::new`].
    #[inline]
    pub(in crate::heap) unsafe fn full(
        block: NonNull<u8>,
        size: usize,
        asked: usize,
        canary: u64,
    ) -> Self {
        // SAFETY: `new` asks what this function does: the block is as long as `size` says, and no
        // less than what was asked for.
        unsafe { Self::new(block, size, asked, canary, WORDS_MOST) }
    }

    /// Returns where the last word of the block lies, and what it holds.
    #[inline]
    fn last(&self) -> Option<(NonNull<u64>, u64)> {
        if !self.has_last || self.words == 0 {
            return None;
        }
        // SAFETY: inside the block, which has a word behind what was asked for.
        let place = unsafe { self.first.byte_add(self.len - WORD) };
        let rest = self.len % WORD;
        let bits = u32::from(rest.to_le_bytes()[0]) * u8::BITS;
        // The bytes in memory move down by as many.
        let word = if cfg!(target_endian = "little") {
            self.canary.rotate_right(bits)
        } else {
            self.canary.rotate_left(bits)
        };
        Some((place, word))
    }

    /// Writes it.
    ///
    /// # Safety
    ///
    /// The block is live, or the calling thread's.
    #[inline]
    pub(in crate::heap) unsafe fn write(&self) {
        if let Some((last, word)) = self.last() {
            // SAFETY: the last word of the block, behind what its user may use.
            unsafe { last.write_unaligned(word) };
        }
        if self.words != 0 {
            // SAFETY: `words` words lie in the block, behind what its user may use.
            unsafe { self.first.write_unaligned(self.canary) };
        }
        for n in 1..self.words {
            // SAFETY: `new` has counted as many words into what is left of the block.
            let place = unsafe { self.first.add(n) };
            // SAFETY: a word of the block, behind what its user may use; the block is live or this
            // thread's, as the caller says.
            unsafe { place.write_unaligned(self.canary) };
        }
    }

    /// Says whether it is as it was written.
    ///
    /// # Safety
    ///
    /// Those of [`Tail::write`], which was called.
    #[inline]
    pub(in crate::heap) unsafe fn is_intact(&self) -> bool {
        let mut other = 0;
        if let Some((last, word)) = self.last() {
            // SAFETY: the last word of the block; `write` wrote it.
            other = unsafe { last.read_unaligned() } ^ word;
        }
        if self.words != 0 {
            // SAFETY: `words` words lie in the block; `write` wrote them.
            other |= unsafe { self.first.read_unaligned() } ^ self.canary;
        }
        for n in 1..self.words {
            // SAFETY: `new` has counted as many words into what is left of the block.
            let place = unsafe { self.first.add(n) };
            // SAFETY: a word of the block, which `write` wrote.
            other |= unsafe { place.read_unaligned() } ^ self.canary;
        }
        other == 0
    }
}

/// Fills a free block.
///
/// # Safety
///
/// `len` bytes of memory that is the heap's alone.
#[inline]
pub(in crate::heap) unsafe fn fill(block: NonNull<u8>, len: usize) {
    // SAFETY: `len` bytes that are the heap's alone, as the caller says.
    unsafe { block.write_bytes(PATTERN, len) };
}

/// Says whether each byte of a free block is `byte`.
///
/// # Safety
///
/// `len` bytes of memory at `block` that were written, or read zero as they were never; both are
/// multiples of 16.
#[inline]
pub(in crate::heap) unsafe fn is_all(block: NonNull<u8>, len: usize, byte: u8) -> bool {
    debug_assert!(block.addr().get().is_multiple_of(align_of::<u64>()) && len.is_multiple_of(8));
    // SAFETY: the bytes were written or read zero, as the caller says; blocks are aligned to more
    // than a word, and whole words long.
    let words = unsafe { slice::from_raw_parts(block.cast::<u64>().as_ptr(), len / WORD) };
    let expected = u64::from_ne_bytes([byte; 8]);
    // The first word is as expected, and each word is as the one before, which is compared by the
    // widest instructions that there are.
    words.first().is_none_or(|word| *word == expected)
        && words.get(1..) == words.get(..words.len().wrapping_sub(1))
}
