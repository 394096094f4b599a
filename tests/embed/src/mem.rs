//! The memory functions that compiled Rust calls and that a freestanding program brings along.
//!
//! Plain loops, which the crate's `no_builtins` keeps the compiler from turning into calls of
//! themselves.

use core::ffi::{c_char, c_int};

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    for n in 0..len {
        // SAFETY: the caller vouches for `len` bytes at both ends.
        unsafe { *to.add(n) = *from.add(n) };
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr() <= from.addr() {
        // SAFETY: the caller vouches for both ends; ascending order reads each byte before it is
        // written.
        return unsafe { memcpy(to, from, len) };
    }
    for n in (0..len).rev() {
        // SAFETY: the caller vouches for `len` bytes at both ends.
        unsafe { *to.add(n) = *from.add(n) };
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: c_int, len: usize) -> *mut u8 {
    for n in 0..len {
        // SAFETY: the caller vouches for `len` bytes.
        unsafe { *to.add(n) = value as u8 };
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    for n in 0..len {
        // SAFETY: the caller vouches for `len` bytes at both.
        let (a, b) = unsafe { (*a.add(n), *b.add(n)) };
        if a != b {
            return c_int::from(a) - c_int::from(b);
        }
    }
    0
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    // SAFETY: the caller vouches for `len` bytes at both.
    unsafe { memcmp(a, b, len) }
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut len = 0;
    // SAFETY: the caller vouches for a zero that ends the text.
    while unsafe { *text.add(len) } != 0 {
        len += 1;
    }
    len
}

/// Answers the compiler's question for atomics of newer CPUs: unknown, so none are used.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
extern "C" fn getauxval(_kind: u64) -> u64 {
    0
}
