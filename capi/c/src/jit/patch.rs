//! Replacing words of code that other threads may be executing.

use super::{Jit, hm_jit, jit, name_of, types::*};
use crate::{
    object::opened,
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use core::ffi::c_void;
use hostmem::jit::Barrier;

pub(crate) fn barrier(from: hm_barrier) -> Result<Barrier, Fault> {
    Ok(match from {
        HM_BARRIER_NEVER => Barrier::Never,
        HM_BARRIER_DEFERRED => Barrier::Deferred,
        HM_BARRIER_NOW => Barrier::Now,
        _ => return Err(invalid(c"no such barrier")),
    })
}

/// Stores four bytes at `offset`, a multiple of four, in a span whose code other threads may be
/// executing: they run the old ones or the new ones. What a CPU allows to be replaced so, the
/// documentation of Rust's `JitAllocator::patch_u32` lists.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_patch_u32(
    jit: *mut hm_jit,
    span: *const hm_span,
    offset: usize,
    value: u32,
    when: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (jit, when) = (jit!(jit), barrier(when)?);
        // SAFETY: the caller in C promises that it is null or a name.
        let span = unsafe { name_of(span) }?.key();
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        unsafe { jit.allocator.patch_numbered(span, offset, value, when)? };
    })
}

/// Stores eight bytes as `hm_jit_patch_u32` stores four.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_patch_u64(
    jit: *mut hm_jit,
    span: *const hm_span,
    offset: usize,
    value: u64,
    when: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (jit, when) = (jit!(jit), barrier(when)?);
        // SAFETY: the caller in C promises that it is null or a name.
        let span = unsafe { name_of(span) }?.key();
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        unsafe { jit.allocator.patch_numbered(span, offset, value, when)? };
    })
}

/// Stores four bytes, as `hm_jit_patch_u32` does, that are executed at `rx`, in whatever span is
/// live there: which is the caller's, and is not released during the call.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_patch_u32_at(
    jit: *mut hm_jit,
    rx: *const c_void,
    value: u32,
    when: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (jit, when) = (jit!(jit), barrier(when)?);
        // SAFETY: the caller in C promises that it owns the span, if one is live there.
        unsafe { jit.allocator.patch_at(rx.addr(), value, when)? };
    })
}

/// Stores eight bytes as `hm_jit_patch_u32_at` stores four.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_patch_u64_at(
    jit: *mut hm_jit,
    rx: *const c_void,
    value: u64,
    when: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (jit, when) = (jit!(jit), barrier(when)?);
        // SAFETY: the caller in C promises that it owns the span, if one is live there.
        unsafe { jit.allocator.patch_at(rx.addr(), value, when)? };
    })
}
