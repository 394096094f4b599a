//! A malloc override: the C library's allocation calls on hostmem's heap.
//!
//! ```sh
//! cargo build --profile capi -p hostmem_malloc
//! LD_PRELOAD=target/capi/libhostmem_malloc.so program
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `lib` | the calls of C's standard library and POSIX, and how each of them fails |
//! | `info` | the calls that tell what the heap holds, and those that tune it |
//! | `hostmem` | this library's own calls |
//! | `glibc` | other names that glibc has for them |
//! | `heap` | the heap behind them |
//! | `settings` | the environment |
//! | `pass` | the C library's own calls, for `HOSTMEM_PASS=1` |
//! | `slot` | where a thread keeps its cache |
//! | `signals` | signals that are blocked while a lock is held; a file of the facade's |
//! | `ends` | what is done before `main`, and printed at the end |
//! | `line`, `fatal` | lines on standard error; the end of a program after an invalid free |
//!
//! The calls of `hostmem_c` are in this library too, for programs that use both; what `core` asks
//! of a program without the standard library is there.
//!
//! The calls behave as the glibc manual says ("Unconstrained Allocation", "Allocating Aligned
//! Memory Blocks", "Replacing malloc"). Every call that allocates or frees may be made in a signal
//! handler; one that interrupted another call of the same thread may get null. An invalid `free`
//! ends the program.
//!
//! Profile `capi` builds it without the standard library. Other profiles unwind, for which it is
//! linked.
#![cfg(target_os = "linux")]
#![no_std]

#[cfg(not(panic = "abort"))]
extern crate std;

// Its calls are exported by themselves.
use hostmem_c as _;

mod ends;
mod fatal;
#[cfg(target_env = "gnu")]
mod glibc;
mod heap;
mod hostmem;
mod info;
mod line;
mod pass;
mod settings;
// The facade's, which has it for programs with the standard library.
#[path = "../../../src/signals.rs"]
mod signals;
mod slot;

use ::hostmem::{OsProvider, heap::HeapError, provider::PageProvider};
use core::{
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
};
use heap::HEAP;

fn set_errno(number: c_int) {
    // SAFETY: the C library's own place for the number, which each thread has.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the place is the calling thread's alone, aligned, and stays as long as the thread.
    unsafe { errno.write(number) };
}

/// Returns null, and says why.
#[cold]
fn null(errno: c_int) -> *mut c_void {
    set_errno(errno);
    null_mut()
}

/// Ends the program if an error says that it is corrupt; any other means that there is no memory.
#[cold]
fn no_memory(call: &str, block: *mut c_void, error: HeapError) -> *mut c_void {
    if fatal::is_corrupt(&error) {
        fatal::end(call, block.cast(), &error);
    }
    null(libc::ENOMEM)
}

#[inline]
fn allocate(size: usize) -> *mut c_void {
    let failed = |error| allocate_failed(size, error).cast();
    HEAP.alloc_bytes_or_else(size, failed).cast()
}

#[cold]
fn allocate_failed(size: usize, error: HeapError) -> *mut c_void {
    match pass::instead(error) {
        Some(libc) => libc.malloc(size),
        None => no_memory("malloc", null_mut(), error),
    }
}

fn allocate_zeroed(count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        return null(libc::ENOMEM);
    };
    match HEAP.alloc_bytes_zeroed(bytes) {
        Ok(block) => block.as_ptr().cast(),
        Err(error) => match pass::instead(error) {
            Some(libc) => libc.calloc(count, size),
            None => no_memory("calloc", null_mut(), error),
        },
    }
}

/// Allocates at a multiple of `align`, which is rounded up to a power of two.
fn allocate_aligned(align: usize, size: usize) -> *mut c_void {
    let Some(align) = align.checked_next_power_of_two() else {
        return null(libc::EINVAL);
    };
    match HEAP.alloc_aligned(size, align) {
        Ok(block) => block.as_ptr().cast(),
        Err(error) => match pass::instead(error) {
            Some(libc) => libc.memalign(align, size),
            None => no_memory("memalign", null_mut(), error),
        },
    }
}

/// Allocates whole pages, at least one.
fn allocate_pages(size: usize) -> *mut c_void {
    let page = OsProvider::new().page_size();
    match page.round_up(size.max(1)) {
        Some(size) => allocate_aligned(page.bytes(), size),
        None => null(libc::ENOMEM),
    }
}

/// Frees a block, or does nothing if it is null. `errno` stays as it is, since the heap makes its
/// system calls without the C library.
///
/// # Safety
///
/// The block is of this library, and the program does not use it any more.
#[inline]
unsafe fn release(block: *mut c_void) {
    let Some(at) = NonNull::new(block.cast::<u8>()) else {
        return;
    };
    // SAFETY: the caller gives the block up, and it did not go to the heap.
    let failed = |error| unsafe { release_failed(block, error) };
    // SAFETY: the caller gives the block up; others are noticed, as the heap is checked.
    unsafe { HEAP.free_or_else(at, failed) };
}

/// # Safety
///
/// The block is of this library, and the program does not use it any more.
#[cold]
unsafe fn release_failed(block: *mut c_void, error: HeapError) {
    match pass::instead(error) {
        // SAFETY: the caller gives the block up, and all blocks are the C library's then.
        Some(libc) => unsafe { libc.free(block) },
        None if fatal::is_tolerated(&error) => {}
        None => fatal::end("free", block.cast(), &error),
    }
}

/// Resizes a block; frees it if the new size is zero, as glibc does.
///
/// # Safety
///
/// The block is null or of this library, and the program does not use it during the call, nor
/// afterwards unless the call fails.
unsafe fn resize(block: *mut c_void, size: usize) -> *mut c_void {
    let Some(at) = NonNull::new(block.cast::<u8>()) else {
        return allocate(size);
    };
    if size == 0 {
        // SAFETY: the caller gives the block up.
        unsafe { release(block) };
        return null_mut();
    }
    // SAFETY: the caller gives the block up; others are noticed, as the heap is checked.
    match unsafe { HEAP.realloc_bytes(at, size) } {
        Ok(block) => block.as_ptr().cast(),
        Err(error) => match pass::instead(error) {
            // SAFETY: the caller gives the block up, and all blocks are the C library's then.
            Some(libc) => unsafe { libc.realloc(block, size) },
            None => no_memory("realloc", block, error),
        },
    }
}

/// # Safety
///
/// The block is null or of this library, and is not used afterwards unless the call fails.
unsafe fn resize_array(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        return null(libc::ENOMEM);
    };
    // SAFETY: the caller gives the block up.
    unsafe { resize(block, bytes) }
}

/// Allocates `size` bytes, aligned to 16; a block of size zero has an address of its own. Returns
/// null and sets `errno` to `ENOMEM` where there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    allocate(size)
}

/// Allocates `count` times `size` bytes that read zero. Fails as [`malloc`] does, also where the
/// product overflows.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    allocate_zeroed(count, size)
}

/// Makes a block `size` bytes long, where it lies or elsewhere. Null is allocated anew, and a size
/// of zero frees the block and returns null. Fails as [`malloc`] does, and keeps the block then.
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards unless the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller gives the block up.
    unsafe { resize(block, size) }
}

/// As [`realloc`] for `count` times `size` bytes; fails where the product overflows.
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards unless the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: the caller gives the block up.
    unsafe { resize_array(block, count, size) }
}

/// Frees a block, and does nothing for null. Keeps `errno`. Ends the program where the block is no
/// live one.
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller gives the block up.
    unsafe { release(block) };
}

/// As [`free`]; an old name.
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: the caller gives the block up.
    unsafe { release(block) };
}

/// As [`free`]; the size is not used (C23).
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the caller gives the block up.
    unsafe { release(block) };
}

/// As [`free`]; the alignment and the size are not used (C23).
///
/// # Safety
///
/// The block is null or of this library, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller gives the block up.
    unsafe { release(block) };
}

/// Allocates at a multiple of `align`. Returns null and sets `errno` to `EINVAL` where that is no
/// power of two, and to `ENOMEM` where there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if align.is_power_of_two() {
        allocate_aligned(align, size)
    } else {
        null(libc::EINVAL)
    }
}

/// Allocates at a multiple of `align`, rounded up to a power of two. Returns null and sets `errno`
/// to `EINVAL` where there is none, and to `ENOMEM` where there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    allocate_aligned(align, size)
}

/// Allocates at a multiple of `align`, and stores the address through `place`. Returns `EINVAL`
/// where the alignment is no power of two, or less than a pointer's size, and `ENOMEM` where there
/// is no memory; `place` and `errno` stay as they are then.
///
/// # Safety
///
/// A pointer may be stored through `place`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let block = match HEAP.alloc_aligned(size, align) {
        Ok(block) => block.as_ptr().cast(),
        Err(error) => match pass::instead(error) {
            Some(libc) => libc.memalign(align, size),
            None if fatal::is_corrupt(&error) => fatal::end("posix_memalign", null_mut(), &error),
            None => null_mut(),
        },
    };
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: a pointer may be stored there, by this function's condition.
    unsafe { place.write(block) };
    0
}

/// Allocates at a multiple of the page size. Fails as [`malloc`] does.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    allocate_aligned(OsProvider::new().page_size().bytes(), size)
}

/// Allocates whole pages, at least one. Fails as [`malloc`] does.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    allocate_pages(size)
}

/// Returns how many bytes of a block may be used, and zero for null.
///
/// # Safety
///
/// The block is null or a live one of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    let Some(at) = NonNull::new(block.cast::<u8>()) else {
        return 0;
    };
    match HEAP.usable_size(at) {
        Some(size) => size,
        // SAFETY: the block is null or live, by this function's condition, and not null here; while
        // the calls are passed on all blocks are the C library's.
        None => pass::active().map_or(0, |libc| unsafe { libc.usable_size(block) }),
    }
}
