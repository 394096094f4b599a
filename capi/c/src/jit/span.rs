//! Spans: their length, queries, and the word and group that they carry.

use super::{Jit, hm_jit, jit, name_of, token, types::*};
use crate::{
    abi::place,
    object::opened,
    status::{HM_OK, HM_UNKNOWN_POINTER, answer, hm_error, hm_status, invalid},
};
use core::ffi::c_void;

/// Shrinks a span to `len` bytes, rounded up, of which `span` then tells. Other copies of its name
/// serve as before, with a length that is too long.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_shrink(
    jit: *mut hm_jit,
    span: *mut hm_span,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that it is null or a name.
        let name = unsafe { name_of(span) }?;
        let (rx, number) = (name.rx.addr(), name.number);
        if len == 0 {
            return Err(invalid(c"a size of zero"));
        }
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        let mut taken = unsafe { jit.allocator.take_numbered(rx, number)? };
        let shrunk = jit.allocator.shrink(&mut taken, len);
        jit.allocator.set_number(&taken, number)?;
        shrunk?;
        place!(span).write(hm_span::of(taken.info(), number));
    })
}

/// Finds the live span around an address, any address at all, and stores what is known of it.
/// Returns `HM_UNKNOWN_POINTER` where there is none. Touches nothing at the address. Exact for a
/// span that is not being released or shrunk at that moment.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_query(
    jit: *mut hm_jit,
    address: *const c_void,
    live: *mut hm_live,
) -> hm_status {
    let mut found = HM_OK;
    let asked = answer!(core::ptr::null_mut(), {
        let (to, jit) = (place!(live), jit!(jit));
        match jit.allocator.query_tagged(address.addr()) {
            Some(live) => drop(to.write(hm_live::of(&live))),
            None => found = HM_UNKNOWN_POINTER,
        }
    });
    if asked == HM_OK { found } else { asked }
}

/// Sets the word of a span, which a query returns and which goes with the span; see `word_bits` of
/// the configuration.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_set_word(
    jit: *mut hm_jit,
    span: *const hm_span,
    word: u64,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        jit.allocator.set_word(&token!(jit, span), word)?;
    })
}

/// Sets the group of a span, which goes with the span; see `groups` of the configuration.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_set_group(
    jit: *mut hm_jit,
    span: *const hm_span,
    group: u32,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        jit.allocator.set_group(&token!(jit, span), group)?;
    })
}
