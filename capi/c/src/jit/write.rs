//! Writing code and publishing it.

use super::{Jit, hm_jit, jit, name_of, token, types::*};
use crate::{
    abi::{array, place},
    object::opened,
    status::{Fault, answer, hm_error, hm_status, invalid},
    types::bytes,
};
use core::ffi::c_void;
use hostmem::jit::Barrier;

/// Writes `len` bytes at `offset` in a span and publishes them: they can be executed when the call
/// returns, on all cores. The bytes lie outside of executable memory of this library.
///
/// Costs a system call only where code was published before. One thread at a time writes the same
/// bytes, and no thread executes them meanwhile, unless any mix of old and new bytes does no harm.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_write(
    jit: *mut hm_jit,
    span: *const hm_span,
    offset: usize,
    from: *const c_void,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (jit, bytes) = (jit!(jit), bytes(from, len)?);
        // SAFETY: the caller in C promises that it is null or a name.
        let span = unsafe { name_of(span) }?.key();
        // SAFETY: the caller in C promises that it owns the span, if that is live, and that no
        // other thread writes to it or executes those bytes meanwhile.
        unsafe { jit.allocator.write_numbered(span, offset, bytes, None)? };
    })
}

/// Writes as `hm_jit_write` does, and leaves what makes other cores see it to the next
/// `hm_jit_publish`: until then no other thread executes it.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_write_deferred(
    jit: *mut hm_jit,
    span: *const hm_span,
    offset: usize,
    from: *const c_void,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (jit, bytes) = (jit!(jit), bytes(from, len)?);
        // SAFETY: the caller in C promises that it is null or a name.
        let span = unsafe { name_of(span) }?.key();
        let later = Some(Barrier::Deferred);
        // SAFETY: the caller in C promises that it owns the span, if that is live, and that no
        // other thread writes to it or executes those bytes meanwhile.
        unsafe { jit.allocator.write_numbered(span, offset, bytes, later)? };
    })
}

/// Writes many pieces with one pass of cache maintenance and one barrier: none of them is executed
/// before the call returns. Stores through `done`, unless that is null, how many were written: all
/// of them, or those before the one that failed, which are published.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_write_many(
    jit: *mut hm_jit,
    writes: *const hm_write,
    count: usize,
    done: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let writes = array!(writes, count);
        let mut batch = jit.allocator.batch();
        let mut written = 0;
        let mut result = Ok(());
        for write in writes {
            result = (|| {
                let bytes = bytes(write.bytes, write.len)?;
                // SAFETY: the caller in C promises that it owns the span, if that is live.
                let span = unsafe { jit.token(&write.span)? };
                let rx = span.rx().addr().get();
                // SAFETY: the caller in C promises that it owns the span, and that no other code
                // releases it during the call.
                unsafe { batch.write_at(rx, write.offset, bytes)? };
                Ok::<(), Fault>(())
            })();
            if result.is_err() {
                break;
            }
            written += 1;
        }
        let finished = batch.finish();
        if !done.is_null() {
            place!(done).write(written);
        }
        result?;
        finished?;
    })
}

/// Lets `fill` write code into a span in place, publishes all of it, and shrinks the span if asked
/// to, of which `span` then tells. `fill` may call this library, but not release this span.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_write_with(
    jit: *mut hm_jit,
    span: *mut hm_span,
    fill: hm_jit_fill_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let fill = fill.ok_or(invalid(c"a null function"))?;
        let mut token = token!(jit, span);
        let number = jit.allocator.number(&token)?;
        jit.allocator.write_with(&mut token, |writer| {
            let (rx, all) = (writer.rx().as_ptr().cast(), writer.bytes_mut());
            let (rw, len) = (all.as_mut_ptr().cast(), all.len());
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            let keep = unsafe { fill(context, rw, rx, len) };
            if keep < len {
                writer.shrink_to(keep.max(1));
            }
        })?;
        place!(span).write(hm_span::of(token.info(), number));
    })
}

/// Makes other cores see all code whose barrier was left to this call, by any thread.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_publish(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        jit!(jit).allocator.publish()?;
    })
}
