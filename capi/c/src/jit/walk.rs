//! The live spans by address, and statistics.

use super::{Jit, hm_jit, jit, of_mapping, types::*};
use crate::{
    abi::{array, growing, place, tell_each},
    object::opened,
    status::{answer, hm_error, hm_status, invalid},
    types::{range_of, window},
};
use core::ffi::c_void;

/// Tells `visit` of the live spans by address, while others may allocate and release: a span that
/// is there all the time is told once. `first` and `last` bound where spans start, and `last` may
/// be 0 for no bound; `group` is null, or the group whose spans are told.
///
/// `visit` holds no lock and may call this library.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_spans(
    jit: *mut hm_jit,
    first: usize,
    last: usize,
    group: *const u32,
    visit: hm_jit_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let spans = jit.allocator.spans().within(window(first, last)?);
        let of_group = if group.is_null() { 0 } else { 1 };
        let spans = match array!(group, of_group) {
            [group] => spans.of_group(*group),
            _ => spans,
        };
        let told = spans.map(|live| hm_live::of(&live));
        // SAFETY: the caller in C promises that it may be called so, and does not unwind.
        unsafe { tell_each(told, visit, context) };
    })
}

/// Tells `visit` of the blocks of memory that spans are cut from, by address, each as it is then.
///
/// `visit` holds no lock and may call this library.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_blocks(
    jit: *mut hm_jit,
    visit: hm_jit_block_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let told = jit.allocator.blocks().map(|block| hm_jit_block {
            rx: range_of(block.rx),
            rw: range_of(block.rw),
            page_size: block.page_size.bytes(),
            granularity: block.granularity,
            spans: block.spans as u64,
            used: block.used as u64,
        });
        // SAFETY: the caller in C promises that it may be called so, and does not unwind.
        unsafe { tell_each(told, visit, context) };
    })
}

/// Gives the memory of blocks that are kept empty back to the host; stores through `bytes`, unless
/// that is null, how much that was.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_trim(
    jit: *mut hm_jit,
    bytes: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let given = jit!(jit).allocator.decommit_unused();
        if !bytes.is_null() {
            place!(bytes).write(given);
        }
    })
}

/// Stores what is held.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_get_statistics(
    jit: *mut hm_jit,
    to: *mut hm_jit_statistics,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (growing!(to), jit!(jit));
        let held = jit.allocator.statistics();
        to.write(hm_jit_statistics {
            size: 0,
            syncs_cores: jit.allocator.syncs_cores().into(),
            blocks: held.blocks as u64,
            spans: held.spans as u64,
            used: held.used as u64,
            reserved: held.reserved as u64,
            metadata: held.metadata as u64,
            tags: held.tags as u64,
        });
    })
}

/// Stores how blocks are mapped: as the configuration said, or what `HM_MAPPING_AUTO` became.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_get_mapping(
    jit: *mut hm_jit,
    to: *mut hm_mapping,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(to), jit!(jit));
        to.write(of_mapping(jit.allocator.mapping().0));
    })
}
