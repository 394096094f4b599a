//! The calls that name no region.

use super::{
    advice::hm_region_madvise_in,
    calls::{hm_region_mmap_in, hm_region_mprotect_in, hm_region_mremap_in, hm_region_munmap_in},
    hm_region_get_default,
};
use core::ffi::{c_int, c_void};

/// As `hm_region_mmap_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mmap(
    address: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let region = hm_region_get_default();
    // SAFETY: the caller in C promises of the memory what the call that names a region asks; the
    // default is null or an open region, as `hm_region_close` takes it out.
    unsafe { hm_region_mmap_in(region, address, len, prot, flags, fd, offset) }
}

/// As `hm_region_munmap_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_munmap(address: *mut c_void, len: usize) -> c_int {
    // SAFETY: the caller in C promises of the memory what the call that names a region asks; the
    // default is null or an open region, as `hm_region_close` takes it out.
    unsafe { hm_region_munmap_in(hm_region_get_default(), address, len) }
}

/// As `hm_region_mprotect_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mprotect(
    address: *mut c_void,
    len: usize,
    prot: c_int,
) -> c_int {
    // SAFETY: the caller in C promises of the memory what the call that names a region asks; the
    // default is null or an open region, as `hm_region_close` takes it out.
    unsafe { hm_region_mprotect_in(hm_region_get_default(), address, len, prot) }
}

/// As `hm_region_mremap_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mremap(
    address: *mut c_void,
    len: usize,
    new_len: usize,
    flags: c_int,
) -> *mut c_void {
    // SAFETY: the caller in C promises of the memory what the call that names a region asks; the
    // default is null or an open region, as `hm_region_close` takes it out.
    unsafe { hm_region_mremap_in(hm_region_get_default(), address, len, new_len, flags) }
}

/// As `hm_region_madvise_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_madvise(
    address: *mut c_void,
    len: usize,
    advice: c_int,
) -> c_int {
    // SAFETY: the caller in C promises of the memory what the call that names a region asks; the
    // default is null or an open region, as `hm_region_close` takes it out.
    unsafe { hm_region_madvise_in(hm_region_get_default(), address, len, advice) }
}
