//! Releasing spans: one, many, a group, all.

use super::{Jit, hm_jit, jit, name_of, types::*};
use crate::{
    abi::{array, place},
    object::opened,
    status::{answer, hm_error, hm_status, invalid},
};
use hostmem::jit::Reset;

/// Releases a span, which no thread executes any more. The name of a span that was released is
/// refused with `HM_UNKNOWN_POINTER`; of several calls for one span, one succeeds.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_release(
    jit: *mut hm_jit,
    span: *const hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that it is null or a name.
        let span = unsafe { name_of(span) }?;
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        unsafe {
            jit.allocator
                .release_numbered(span.rx.addr(), span.number)?
        };
    })
}

/// Releases many spans. Those that are not live are passed by: stores through `refused`, unless
/// that is null, how many those were.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_release_many(
    jit: *mut hm_jit,
    spans: *const hm_span,
    count: usize,
    refused: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    /// Spans that are released together.
    const PART: usize = 64;
    answer!(error, {
        let (jit, spans) = (jit!(jit), array!(spans, count));
        let mut live = 0;
        for part in spans.chunks(PART) {
            let mut tokens = [const { None }; PART];
            for (span, token) in part.iter().zip(&mut tokens) {
                // SAFETY: the caller in C promises that it owns the span, if that is live.
                *token = unsafe { jit.allocator.take_numbered(span.rx.addr(), span.number) }.ok();
                live += usize::from(token.is_some());
            }
            live -= jit.allocator.release_many(&mut tokens);
        }
        if !refused.is_null() {
            place!(refused).write(count - live);
        }
    })
}

/// Releases all spans of a group, which no thread executes or names any more; stores through
/// `count`, unless that is null, how many those were.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_release_group(
    jit: *mut hm_jit,
    group: u32,
    count: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that no other code uses a span of the group.
        let released = unsafe { jit.allocator.release_group(group)? };
        if !count.is_null() {
            place!(count).write(released);
        }
    })
}

/// Releases all spans at once: no thread executes, names or touches one during the call or later.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_reset(
    jit: *mut hm_jit,
    how: hm_reset,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let how = match how {
            HM_RESET_SOFT => Reset::Soft,
            HM_RESET_HARD => Reset::Hard,
            HM_RESET_KEEP => Reset::Keep,
            _ => return Err(invalid(c"no such reset")),
        };
        // SAFETY: the caller in C promises that no other code uses a span.
        unsafe { jit.allocator.reset(how) };
    })
}
