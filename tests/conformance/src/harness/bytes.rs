//! Patterns in raw memory.
//!
//! Volatile, since the same page may be seen through two addresses, of which the compiler knows
//! nothing.

use core::ptr::NonNull;

const WORD: usize = size_of::<u64>();

/// The nth word of the pattern of `seed`; never zero.
const fn word(seed: u64, n: usize) -> u64 {
    let mixed = (seed ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)) | 1
}

/// Yields pointers to the words of `len` bytes, a multiple of a word.
///
/// # Safety
///
/// `len` bytes of one mapping lie behind `start`.
unsafe fn words(start: NonNull<u8>, len: usize) -> impl Iterator<Item = NonNull<u64>> {
    debug_assert!(len.is_multiple_of(WORD), "patterns are whole words");
    let first = start.cast::<u64>();
    // SAFETY: word n lies within the `len` bytes that the caller promises.
    (0..len / WORD).map(move |n| unsafe { first.add(n) })
}

/// Fills memory with the pattern of `seed`.
///
/// # Safety
///
/// `len` bytes at `start`, aligned for words, are writable, and no other code uses them.
pub(crate) unsafe fn fill(start: NonNull<u8>, len: usize, seed: u64) {
    // SAFETY: the caller described `len` bytes.
    let memory = unsafe { words(start, len) };
    for (n, place) in memory.enumerate() {
        // SAFETY: place lies in the memory that the caller described.
        unsafe { place.write_volatile(word(seed, n)) };
    }
}

/// Returns the offset of the first word that is not as [`fill`] left it.
///
/// # Safety
///
/// `len` bytes at `start`, aligned for words, are readable, and no other code writes them.
pub(crate) unsafe fn first_difference(start: NonNull<u8>, len: usize, seed: u64) -> Option<usize> {
    let differs = |(n, place): (usize, NonNull<u64>)| {
        // SAFETY: place lies in the memory that the caller described.
        let found = unsafe { place.read_volatile() };
        (found != word(seed, n)).then_some(n * WORD)
    };
    // SAFETY: the caller described `len` bytes.
    let memory = unsafe { words(start, len) };
    memory.enumerate().find_map(differs)
}

/// Returns the offset of the first word that is not zero.
///
/// # Safety
///
/// The promises of [`first_difference`].
pub(crate) unsafe fn first_nonzero(start: NonNull<u8>, len: usize) -> Option<usize> {
    let differs = |(n, place): (usize, NonNull<u64>)| {
        // SAFETY: place lies in the memory that the caller described.
        let found = unsafe { place.read_volatile() };
        (found != 0).then_some(n * WORD)
    };
    // SAFETY: the caller described `len` bytes.
    let memory = unsafe { words(start, len) };
    memory.enumerate().find_map(differs)
}
