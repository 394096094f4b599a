//! Names by which programs and libraries that were built for glibc may know the same calls: a block
//! from one of them is freed by `free`.

use core::ffi::c_void;

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
/// As for [`realloc`](crate::realloc).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller gives the block up.
    unsafe { crate::resize(block, size) }
}

/// As [`free`](crate::free).
///
/// # Safety
///
/// As for [`free`](crate::free).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_free(block: *mut c_void) {
    // SAFETY: the caller gives the block up.
    unsafe { crate::release(block) };
}

/// As [`memalign`](crate::memalign).
#[unsafe(no_mangle)]
pub extern "C" fn __libc_memalign(align: usize, size: usize) -> *mut c_void {
    crate::allocate_aligned(align, size)
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
