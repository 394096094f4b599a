//! Threads' own handles.

use super::{
    HeapObject, Local,
    alloc::{layout, or_null},
    hm_heap,
    lua::lua_alloc,
    types::*,
};
use crate::{
    abi::place,
    object::{Here, Object, opened},
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use core::{
    ffi::c_void,
    ptr::{NonNull, null_mut},
};
use hostmem::heap::HeapError;

/// The contents of an [`hm_local`].
#[repr(C)]
struct Attached {
    here: Here,
    heap: &'static Object<HeapObject>,
    local: Local,
}

const _: () = assert!(size_of::<Attached>() <= size_of::<hm_local>());
const _: () = assert!(align_of::<Attached>() <= align_of::<hm_local>());

/// Finds the contents of a thread's handle.
///
/// # Safety
///
/// It is null, zeros, or was attached; no other call uses it until this one returns.
#[inline]
unsafe fn attached<'a>(local: *mut hm_local) -> Result<&'a Local, Fault> {
    // SAFETY: null, or four words that the caller in C has, by this function's condition; the first
    // can be read.
    if !unsafe { Here::is_at(local) } {
        return Err(invalid(
            c"a handle of a thread that is null, copied or not attached",
        ));
    }
    // SAFETY: the first word says that it was attached.
    Ok(&unsafe { &*local.cast::<Attached>() }.local)
}

/// Finds a thread's handle, for a call that returns a value of its own.
macro_rules! local_or {
    ($handle:expr, $instead:expr) => {
        // SAFETY: the caller in C promises that it is null, zeros or attached, and this thread's.
        match unsafe { attached($handle) } {
            Ok(local) => local,
            Err(_) => return $instead,
        }
    };
}

/// Finds a thread's handle.
macro_rules! local {
    ($handle:expr) => {
        // SAFETY: the caller in C promises that it is null, zeros or attached, and this thread's.
        unsafe { attached($handle)? }
    };
}

/// Attaches a thread's handle to a heap. It takes three kilobytes of metadata, and more as it is
/// used.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_attach(
    heap: *mut hm_heap,
    local: *mut hm_local,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(local.cast::<Attached>());
        let (object, found) = opened!(HeapObject, heap);
        let local = found.heap.local()?;
        object.enter();
        to.write(Attached {
            here: Here::at(to.as_ptr()),
            heap: object,
            local,
        });
    })
}

/// Detaches a thread's handle, which gives its free blocks to the others; its memory is zeros then.
/// A thread that ends without this leaves the free blocks of its handle unused until the heap is
/// closed.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_detach(local: *mut hm_local, error: *mut hm_error) -> hm_status {
    answer!(error, {
        local!(local);
        // SAFETY: attached, as just checked, and zeros from the next line on.
        let was = unsafe { local.cast::<Attached>().read() };
        // SAFETY: the caller in C promises that it can be written.
        unsafe { local.write(hm_local { opaque: [0; 4] }) };
        drop(was.local);
        was.heap.leave();
    })
}

/// As `hm_heap_malloc`, by a thread's handle: takes a lock only once in many calls.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_malloc(local: *mut hm_local, size: usize) -> *mut c_void {
    or_null(local_or!(local, null_mut()).alloc_bytes(size))
}

/// As `hm_heap_calloc`, by a thread's handle.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_calloc(
    local: *mut hm_local,
    count: usize,
    size: usize,
) -> *mut c_void {
    let local = local_or!(local, null_mut());
    let bytes = count.checked_mul(size).ok_or(HeapError::InvalidSize);
    or_null(bytes.and_then(|bytes| local.alloc_bytes_zeroed(bytes)))
}

/// As `hm_heap_aligned_alloc`, by a thread's handle.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_aligned_alloc(
    local: *mut hm_local,
    align: usize,
    size: usize,
) -> *mut c_void {
    or_null(local_or!(local, null_mut()).alloc_aligned(size, align))
}

/// As `hm_heap_realloc`, by a thread's handle.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_realloc(
    local: *mut hm_local,
    block: *mut c_void,
    size: usize,
) -> *mut c_void {
    let local = local_or!(local, null_mut());
    let Some(block) = NonNull::new(block.cast::<u8>()) else {
        return or_null(local.alloc_bytes(size));
    };
    // SAFETY: the caller in C gives the block up; others are noticed.
    or_null(unsafe { local.realloc_bytes(block, size) })
}

/// As `hm_heap_free`, by a thread's handle.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_free(local: *mut hm_local, block: *mut c_void) -> hm_status {
    answer!(null_mut(), {
        let local = local!(local);
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            // SAFETY: the caller in C gives the block up; others are noticed.
            unsafe { local.free(block)? };
        }
    })
}

/// As `hm_heap_free_sized`, by a thread's handle: a little faster than `hm_local_free`.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_free_sized(
    local: *mut hm_local,
    block: *mut c_void,
    size: usize,
    align: usize,
) -> hm_status {
    answer!(null_mut(), {
        let (local, layout) = (local!(local), layout(size, align)?);
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            // SAFETY: the caller in C gives the block up, and says what it asked for.
            unsafe { local.free_sized(block, layout)? };
        }
    })
}

/// Gives the free blocks of a thread's handle back to the heap: before the thread does nothing for
/// long.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_flush(local: *mut hm_local, error: *mut hm_error) -> hm_status {
    answer!(error, {
        local!(local).flush();
    })
}

/// `hm_heap_lua_alloc` by a thread's handle, which is `context`: for a state of Lua's that has a
/// handle of its own. It may be used on any thread, by one at a time, as the state is.
///
/// One thread at a time; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_lua_alloc(
    context: *mut c_void,
    block: *mut c_void,
    old_size: usize,
    new_size: usize,
) -> *mut c_void {
    let local = local_or!(context.cast::<hm_local>(), null_mut());
    lua_alloc!(local, block, old_size, new_size)
}
