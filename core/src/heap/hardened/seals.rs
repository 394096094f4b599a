//! Canaries and patterns of the lower level.

use super::{PATTERN, WORD};
use crate::heap::class::STEP;
use core::{hint::cold_path, ptr::NonNull};

/// How many canaries there are at the lower level.
pub(super) const CANARIES: usize = 1 << u8::BITS;

/// The canaries of the lower level.
pub(in crate::heap) type Canaries = [u64; CANARIES];

/// Where those are, as long as the heap.
#[derive(Clone, Copy)]
pub(in crate::heap) struct Seals(NonNull<Canaries>);

// SAFETY: the canaries are never changed, and stay as long as the heap, so that any thread may read
// them.
unsafe impl Send for Seals {}

// SAFETY: the canaries are never changed, so that any thread may read them.
unsafe impl Sync for Seals {}

impl Seals {
    /// Takes back what [`Seals::as_ptr`] gave.
    ///
    /// # Safety
    ///
    /// The heap stays as long as every copy of this.
    #[inline]
    pub(in crate::heap) const unsafe fn new(canaries: NonNull<Canaries>) -> Self {
        Self(canaries)
    }

    pub(in crate::heap) const fn as_ptr(self) -> *mut Canaries {
        self.0.as_ptr()
    }

    /// Returns the canary that lies at an address.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub(in crate::heap) fn at(self, addr: usize) -> u64 {
        // Spread by Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4).
        let spread = (addr as u32).wrapping_mul(0x9e37_79b9);
        // SAFETY: initialised by `make`, never changed, and there as long as the heap.
        let canaries = unsafe { self.0.as_ref() };
        canaries[(spread >> (u32::BITS - u8::BITS)) as usize]
    }

    /// Writes the canary behind what was asked for of a block.
    ///
    /// # Safety
    ///
    /// The block has [`CANARY_LEAST`](crate::heap::hardened::CANARY_LEAST) bytes more, and is live
    /// or the calling thread's.
    #[inline]
    pub(in crate::heap) unsafe fn write(self, block: NonNull<u8>, asked: usize) {
        // SAFETY: the block has `CANARY_LEAST` bytes behind what was asked for, as the caller says.
        let place = unsafe { block.add(asked) };
        let canary = self.at(place.addr().get());
        // SAFETY: a word inside the block, which is live or this thread's, as the caller says.
        unsafe { place.cast::<u64>().write_unaligned(canary) };
    }

    /// Says whether the canary behind what was asked for of a block is as it was written.
    ///
    /// # Safety
    ///
    /// The block has [`CANARY_LEAST`](crate::heap::hardened::CANARY_LEAST) bytes more, and is the
    /// calling thread's to free.
    #[inline]
    pub(in crate::heap) unsafe fn is_intact(self, block: NonNull<u8>, asked: usize) -> bool {
        // SAFETY: the block has `CANARY_LEAST` bytes behind what was asked for, as the caller says.
        let place = unsafe { block.add(asked) };
        // SAFETY: a word inside the block, which is this thread's to free, as the caller says. It
        // is initialised: blocks are written when they are made live, or freed, and read zero
        // before.
        let found = unsafe { place.cast::<u64>().read_unaligned() };
        found == self.at(place.addr().get())
    }
}

/// Bytes of the pattern at the lower level: every block is as long and aligned so.
pub(super) const HEAD: usize = STEP;

const PATTERN_WORD: u64 = u64::from_ne_bytes([PATTERN; 8]);

/// Says whether a free block at the lower level is as it was when it was freed, or reads zero, as
/// where its page went back to the host, or was never used.
///
/// # Safety
///
/// A block that is free, and the calling thread's.
#[inline]
pub(in crate::heap) unsafe fn is_clean(block: NonNull<u8>) -> bool {
    // SAFETY: the block is free and this thread's, as the caller says; every block has a head, is
    // aligned to as many bytes, and was filled so far when it was freed, or the host gave it
    // zeroed.
    let [first, second] = unsafe { block.cast::<[u64; HEAD / WORD]>().read() };
    if first == PATTERN_WORD && second == PATTERN_WORD {
        return true;
    }
    cold_path();
    first | second == 0
}

/// Takes the canary of a block of the lower level away.
///
/// # Safety
///
/// A block of a class, with a canary behind what was asked for, which is the calling thread's to
/// free or to resize.
#[inline]
pub(super) unsafe fn take_canary(block: NonNull<u8>, asked: usize) {
    // SAFETY: the block has a canary behind what was asked for, as the caller says.
    let place = unsafe { block.add(asked) };
    // SAFETY: a word inside the block, behind what its user may use; the block is this thread's, as
    // the caller says.
    unsafe { place.cast::<u64>().write_unaligned(PATTERN_WORD) };
}

/// Fills a block of the lower level that is being freed, and takes its canary away, so that no
/// block ever holds an old one.
///
/// # Safety
///
/// A block that the calling thread frees, with a canary behind what was asked for.
#[inline]
pub(in crate::heap) unsafe fn mark_free(block: NonNull<u8>, asked: usize) {
    // SAFETY: `take_canary` asks for a block of a class with a canary that this thread frees, which
    // the caller says it is.
    unsafe { take_canary(block, asked) };
    // SAFETY: the block is this thread's, as the caller says; every block has a head, and is
    // aligned to as many bytes.
    unsafe {
        block
            .cast::<[u64; HEAD / 8]>()
            .write([PATTERN_WORD; HEAD / 8])
    };
}
