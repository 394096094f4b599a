//! Allocating spans.

use super::{Jit, hm_jit, jit, types::*};
use crate::{
    abi::{array, place},
    object::opened,
    status::{answer, hm_error, hm_status, invalid},
    types::{hm_placement, placement},
};
use core::ffi::c_void;
use hostmem::provider::Placement;

/// Allocates `size` bytes and stores the span's name. What is there is undefined.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_alloc(
    jit: *mut hm_jit,
    size: usize,
    span: *mut hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(span), jit!(jit));
        if size == 0 {
            return Err(invalid(c"a size of zero"));
        }
        let span = jit.allocator.alloc_numbered(size)?;
        to.write(hm_span::of(span.info, span.number));
    })
}

/// Allocates `size` bytes that are executed as close to `anchor` as can be, no more than `reach`
/// bytes away: 128 MiB for a branch of AArch64, 2 GiB for one of x86-64.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_alloc_near(
    jit: *mut hm_jit,
    size: usize,
    anchor: *const c_void,
    reach: usize,
    span: *mut hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(span), jit!(jit));
        if size == 0 {
            return Err(invalid(c"a size of zero"));
        }
        let near = Placement::near(anchor.addr(), reach);
        let span = jit.allocator.alloc_numbered_with(size, near)?;
        to.write(hm_span::of(span.info, span.number));
    })
}

/// Allocates `size` bytes where `where_to` says, for which there are `HM_PLACE_ANYWHERE` and
/// `HM_PLACE_NEAR`; within its window, and with its alignment.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_alloc_placed(
    jit: *mut hm_jit,
    size: usize,
    where_to: *const hm_placement,
    span: *mut hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(span), jit!(jit));
        let [from] = array!(where_to, 1) else {
            return Err(invalid(c"a null placement"));
        };
        if size == 0 {
            return Err(invalid(c"a size of zero"));
        }
        let span = jit.allocator.alloc_numbered_with(size, placement(from)?)?;
        to.write(hm_span::of(span.info, span.number));
    })
}

/// Allocates `size` bytes that are executed `offset` bytes behind the start of the window, where a
/// code cache from a file has them. For executable memory whose `rx` is placed by
/// `HM_PLACE_LOWEST`.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_alloc_at(
    jit: *mut hm_jit,
    offset: usize,
    size: usize,
    span: *mut hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(span), jit!(jit));
        if size == 0 {
            return Err(invalid(c"a size of zero"));
        }
        let span = jit.allocator.alloc_numbered_at(offset, size)?;
        to.write(hm_span::of(span.info, span.number));
    })
}
