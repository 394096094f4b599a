//! A malloc override: the C library's allocation calls on hostmem's heap.
//!
//! ```sh
//! cargo build --release -p hostmem_malloc
//! LD_PRELOAD=target/release/libhostmem_malloc.so program
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `lib` | the calls, and how each of them fails |
//! | `glibc` | other names that glibc has for them |
//! | `heap` | the heap behind them |
//! | `slot` | where a thread keeps its cache |
//! | `fatal` | the end of a program that frees what is not allocated |
//!
//! The calls behave as the glibc manual says ("Unconstrained Allocation", "Allocating Aligned
//! Memory Blocks", "Replacing malloc"). Every call may be made in a signal handler; one that
//! interrupted another call of the same thread may get null. An invalid `free` ends the program.
#![cfg(target_os = "linux")]
#![no_std]

extern crate std;

mod fatal;
#[cfg(target_env = "gnu")]
mod glibc;
mod heap;
mod slot;

use core::{
    ffi::{c_int, c_void},
    mem,
    ptr::{NonNull, null_mut},
};
use heap::{HEAP, quietly};
use hostmem::{
    OsProvider,
    heap::{HeapError, Level},
    provider::PageProvider,
};

fn set_errno(number: c_int) {
    // SAFETY: the C library's own place for the number, which each thread has.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; it is the calling thread's alone.
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
    match error {
        HeapError::NotOwned
        | HeapError::NotLive
        | HeapError::Interior
        | HeapError::Overflow(_)
        | HeapError::WriteAfterFree(_) => fatal::end(call, block.cast(), &error),
        _ => null(libc::ENOMEM),
    }
}

#[inline]
fn answer(call: &str, result: Result<NonNull<u8>, HeapError>) -> *mut c_void {
    match result {
        Ok(block) => block.as_ptr().cast(),
        Err(error) => no_memory(call, null_mut(), error),
    }
}

#[inline]
fn allocate(size: usize) -> *mut c_void {
    let failed = |error| no_memory("malloc", null_mut(), error).cast();
    HEAP.alloc_bytes_or_else(size, failed).cast()
}

fn allocate_zeroed(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => answer("calloc", HEAP.alloc_bytes_zeroed(bytes)),
        None => null(libc::ENOMEM),
    }
}

/// Allocates at a multiple of `align`, which is rounded up to a power of two.
fn allocate_aligned(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => answer("memalign", HEAP.alloc_aligned(size, align)),
        None => null(libc::EINVAL),
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
    // SAFETY: the caller gives the block up; others are noticed, as the heap is checked.
    if let Err(error) = unsafe { HEAP.free(at) } {
        fatal::end("free", block.cast(), &error);
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
        Err(error) => no_memory("realloc", block, error),
    }
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
/// As for [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        return null(libc::ENOMEM);
    };
    // SAFETY: the caller gives the block up.
    unsafe { resize(block, bytes) }
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
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: the caller gives the block up.
    unsafe { release(block) };
}

/// As [`free`]; the size is not used (C23).
///
/// # Safety
///
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the caller gives the block up.
    unsafe { release(block) };
}

/// As [`free`]; the alignment and the size are not used (C23).
///
/// # Safety
///
/// As for [`free`].
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
    match HEAP.alloc_aligned(size, align) {
        Ok(block) => {
            // SAFETY: the caller's promise about `place`.
            unsafe { place.write(block.as_ptr().cast()) };
            0
        }
        Err(error @ (HeapError::Overflow(_) | HeapError::WriteAfterFree(_))) => {
            fatal::end("posix_memalign", null_mut(), &error)
        }
        Err(_) => libc::ENOMEM,
    }
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
    let block = NonNull::new(block.cast::<u8>());
    block.and_then(|block| HEAP.usable_size(block)).unwrap_or(0)
}

/// Gives memory back that is free, to the page, and what the calling thread has cached too. Returns
/// 1 if there was some, else 0. Nothing of `_keep` is kept.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_keep: usize) -> c_int {
    HEAP.flush();
    let given = quietly(|heap| {
        let before = heap.statistics().committed;
        heap.collect(Level::Deep);
        before > heap.statistics().committed
    });
    c_int::from(given.unwrap_or(false))
}

/// Returns what the heap holds: in `arena` bytes that have memory, in `hblks` and `hblkhd` the
/// blocks with a mapping of their own, in `uordblks` bytes of live blocks, in `fordblks` free ones.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    // SAFETY: it is made of integers, for which zero is a value.
    let mut info: libc::mallinfo2 = unsafe { mem::zeroed() };
    if let Some(held) = quietly(|heap| heap.statistics()) {
        info.arena = held.committed.saturating_sub(held.huge);
        info.hblks = held.huge_blocks;
        info.hblkhd = held.huge;
        info.uordblks = held.used;
        info.fordblks = held.committed.saturating_sub(held.used);
    }
    info
}
