//! The calls that name a region.

use super::{
    arguments::{access, find, how, whole},
    errno::{Errno, INVALID, answered, mapped},
    mapping::Mapped,
};
use crate::region::hm_region;
use core::ffi::{c_int, c_void};
use hostmem::{
    provider::PageProvider,
    region::{PageState, RegionRange},
};

/// Maps as `mmap` does, in a region: the flags are `MAP_PRIVATE` or `MAP_SHARED`, with
/// `MAP_ANONYMOUS`, `MAP_FIXED`, `MAP_FIXED_NOREPLACE`, `MAP_NORESERVE`, `MAP_STACK`,
/// `MAP_POPULATE`, `MAP_LOCKED`, `MAP_NONBLOCK`, `MAP_HUGETLB` and its sizes, and `MAP_32BIT`;
/// others fail with `EOPNOTSUPP`. An address without `MAP_FIXED` is a hint. Returns `MAP_FAILED`,
/// and says why by `errno`, with the numbers that `mmap` would use; addresses that are not of the
/// region cannot be replaced, which is `ENOMEM`. A region on a provider of the program's own has
/// private memory alone: for files and flags that ask the kernel for more it fails with
/// `EOPNOTSUPP`.
///
/// What a program does to such memory by the kernel's own calls is described in the guide.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mmap_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let asked = Mapped {
        prot,
        flags,
        fd,
        offset,
    };
    // SAFETY: the caller in C promises that it is null or a handle of this library.
    let region = unsafe { find(region) };
    mapped(region.and_then(|region| {
        // SAFETY: the caller in C promises that no other code uses what it replaces.
        unsafe { asked.map(region, address, len) }
    }))
}

/// Unmaps as `munmap` does: any parts of mappings of the region. Returns 0, or -1 and says why by
/// `errno`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_munmap_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
) -> c_int {
    answered((|| {
        // SAFETY: the caller in C promises that it is null or a handle of this library.
        let region = unsafe { find(region)? };
        // SAFETY: the caller in C promises that no other code uses the memory.
        unsafe { region.unmap(whole(address, len, region.page_size())?)? };
        Ok(())
    })())
}

/// Changes the access as `mprotect` does. Returns 0, or -1 and says why by `errno`; nothing has
/// changed then.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mprotect_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
    prot: c_int,
) -> c_int {
    answered((|| {
        // SAFETY: the caller in C promises that it is null or a handle of this library.
        let region = unsafe { find(region)? };
        if !region.page_size().is_aligned(address.addr()) {
            return Err(INVALID);
        }
        let access = access(prot)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the caller in C promises that the pages are its own.
        unsafe { region.protect(whole(address, len, region.page_size())?, access)? };
        Ok(())
    })())
}

/// Makes a mapping longer or shorter as `mremap` does, of whose flags there is `MREMAP_MAYMOVE`:
/// others fail with `EINVAL`. The mapping has one access all over. Returns where it lies then, or
/// `MAP_FAILED` and says why by `errno`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mremap_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
    new_len: usize,
    flags: c_int,
) -> *mut c_void {
    mapped((|| {
        // SAFETY: the caller in C promises that it is null or a handle of this library.
        let region = unsafe { find(region)? };
        if flags & !libc::MREMAP_MAYMOVE != 0 || new_len == 0 {
            return Err(INVALID);
        }
        let pages = whole(address, len, region.page_size())?;
        let Some(RegionRange {
            state: PageState::Committed(access),
            ..
        }) = region.query(pages.addr())
        else {
            return Err(Errno(libc::EFAULT));
        };
        if flags == 0 {
            // SAFETY: the caller in C promises that the mapping is its own.
            return Ok(unsafe { region.resize(pages, new_len, how(access))? });
        }
        // SAFETY: the caller in C promises that the mapping is its own, and that no other code uses
        // it meanwhile.
        Ok(unsafe { region.remap(pages, new_len, how(access))? })
    })())
}
