//! Names by which programs and libraries that were built for glibc may know the same calls: a block
//! from one of them is freed by `free`.
//!
//! All names of glibc's `malloc.o` are here that other parts of its static library or programs may
//! ask for. Where one were missing the linker would take `malloc.o` for its sake, and find `malloc`
//! twice.

use crate::info;
use core::ffi::{c_int, c_void};

/// As [`malloc`](crate::malloc).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_malloc(size: usize) -> *mut c_void {
    crate::allocate(size)
}

/// As [`calloc`](crate::calloc).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_calloc(count: usize, size: usize) -> *mut c_void {
    crate::allocate_zeroed(count, size)
}

/// As [`realloc`](crate::realloc).
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards unless the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller gives the block up.
    unsafe { crate::resize(block, size) }
}

/// As [`reallocarray`](crate::reallocarray).
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards unless the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: the caller gives the block up.
    unsafe { crate::resize_array(block, count, size) }
}

/// As [`free`](crate::free).
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_free(block: *mut c_void) {
    // SAFETY: the caller gives the block up.
    unsafe { crate::release(block) };
}

/// As [`free`](crate::free).
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_cfree(block: *mut c_void) {
    // SAFETY: the caller gives the block up.
    unsafe { crate::release(block) };
}

/// As [`memalign`](crate::memalign).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_memalign(align: usize, size: usize) -> *mut c_void {
    crate::allocate_aligned(align, size)
}

/// As [`posix_memalign`](crate::posix_memalign).
///
/// # Safety
///
/// A pointer may be stored through `place`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: a pointer may be stored through `place`, by this function's condition.
    unsafe { crate::posix_memalign(place, align, size) }
}

/// As [`valloc`](crate::valloc).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_valloc(size: usize) -> *mut c_void {
    crate::valloc(size)
}

/// As [`pvalloc`](crate::pvalloc).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_pvalloc(size: usize) -> *mut c_void {
    crate::allocate_pages(size)
}

/// As [`mallinfo`](info::mallinfo).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_mallinfo() -> libc::mallinfo {
    info::mallinfo()
}

/// As [`mallinfo2`](info::mallinfo2).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_mallinfo2() -> libc::mallinfo2 {
    info::mallinfo2()
}

/// As [`mallopt`](info::mallopt).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_mallopt(parameter: c_int, value: c_int) -> c_int {
    info::mallopt(parameter, value)
}
