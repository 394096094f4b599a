//! mmap's own signatures, for hooks of other people's allocators: the region of the calls that name
//! none. The calls are in the files below, in the order in which the header has them:
//!
//! | file | what it has |
//! |---|---|
//! | `arguments` | what the arguments of a call stand for |
//! | `mapping` | mapping as `mmap` does |
//! | `errno` | why a call fails |
//! | `calls`, `advice` | the calls that name a region |
//! | `default` | the calls that name none |

mod arguments;
mod errno;
mod mapping;

// The header has the calls in this order, as cbindgen reads the files.
mod calls;

mod advice;
mod default;

pub use advice::*;
pub use calls::*;
pub use default::*;

use crate::{
    object,
    region::{RegionObject, hm_region},
    status::{answer, hm_error, hm_status},
};
use core::{
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering::AcqRel, Ordering::Acquire, Ordering::Release},
};

/// The region of the calls that name none.
static DEFAULT: AtomicPtr<hm_region> = AtomicPtr::new(null_mut());

/// Takes a region that was closed out of the default's place.
pub(crate) fn forget_default(region: *mut hm_region) {
    let _ = DEFAULT.compare_exchange(region, null_mut(), AcqRel, Acquire);
}

/// Sets the region of `hm_region_mmap` and its kin; null for none, where they fail with `ENODEV`.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_set_default(
    region: *mut hm_region,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        if !region.is_null() {
            // SAFETY: the caller in C promises that it is a handle of this library.
            unsafe { object::get::<RegionObject, _>(region)? };
        }
        DEFAULT.store(region, Release);
    })
}

/// Returns the region of `hm_region_mmap` and its kin, or null.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub extern "C" fn hm_region_get_default() -> *mut hm_region {
    DEFAULT.load(Acquire)
}
