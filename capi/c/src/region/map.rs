//! Mapping and unmapping in a region.

use super::{RegionObject, hm_region, region, types::*};
use crate::{
    abi::{place, read},
    object::opened,
    status::{answer, hm_error, hm_status, invalid},
    types::{
        HM_CEILING_DEFAULT, commit, hm_access, hm_ceiling, hm_page_wish, hm_range, hm_request,
        pages_of, range_of, request,
    },
};
use core::ffi::{c_char, c_int};
use hostmem::provider::{Dump, PageProvider, PageWish};

/// Finds addresses and maps memory there, all but the guards, which lie within the range that is
/// stored through `range`. `tag` is what `hm_region_query` tells of it.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_map(
    region: *mut hm_region,
    wanted: *const hm_request,
    access: hm_access,
    ceiling: hm_ceiling,
    wish: hm_page_wish,
    tag: u16,
    range: *mut hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, region) = (place!(range), region!(region));
        let from: hm_request = read!(wanted);
        // SAFETY: the caller in C promises that the name is null or a string.
        let request = unsafe { request(&from)? };
        let mapped = region.map(&request, commit(access, ceiling, wish)?, tag)?;
        to.write(range_of(mapped));
    })
}

/// Maps memory at exactly this range, in place of whatever the region has there. Where this fails
/// what was there may be gone, and its addresses free.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_map_over(
    region: *mut hm_region,
    range: hm_range,
    access: hm_access,
    ceiling: hm_ceiling,
    wish: hm_page_wish,
    tag: u16,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        let how = commit(access, ceiling, wish)?;
        // SAFETY: the caller in C promises that no other code uses what is replaced.
        unsafe { region.map_over(pages_of(range, region.page_size())?, how, tag)? };
    })
}

/// Takes pages away, whatever parts of however many mappings they are. Their addresses are free for
/// the region again, never for others. What is free already is left alone.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_unmap(
    region: *mut hm_region,
    range: hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        // SAFETY: the caller in C promises that no other code uses the memory.
        unsafe { region.unmap(pages_of(range, region.page_size())?)? };
    })
}

/// Changes the access of pages that have memory. A change that fails in the middle is undone.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_protect(
    region: *mut hm_region,
    range: hm_range,
    access: hm_access,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        let access = crate::types::access(access)?;
        // SAFETY: the caller in C promises that the pages are its own, and have memory.
        unsafe { region.protect(pages_of(range, region.page_size())?, access)? };
    })
}

/// Gives the memory of pages back to the host and keeps the pages, which show what is stored
/// through `shown`, unless that is null.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_purge(
    region: *mut hm_region,
    range: hm_range,
    shown: *mut hm_purged,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        // SAFETY: the caller in C promises that the contents are not needed.
        let purged = unsafe { region.purge(pages_of(range, region.page_size())?)? };
        if !shown.is_null() {
            place!(shown).write(purged_of(purged));
        }
    })
}

/// Makes a mapping of one access `len` bytes long, rounded up to pages: where it lies or, with
/// `may_move` not zero, elsewhere. New pages have `access`, which is that of the mapping, and read
/// zero. Stores where it lies then through `range`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_remap(
    region: *mut hm_region,
    from: hm_range,
    len: usize,
    may_move: c_int,
    access: hm_access,
    range: *mut hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, region) = (place!(range), region!(region));
        let (from, how) = (
            pages_of(from, region.page_size())?,
            commit(access, HM_CEILING_DEFAULT, 0)?,
        );
        let mapped = if may_move == 0 {
            // SAFETY: the caller in C promises that the mapping is its own.
            unsafe { region.resize(from, len, how)? }
        } else {
            // SAFETY: the caller in C promises that the mapping is its own, and that no other code
            // uses it meanwhile.
            unsafe { region.remap(from, len, how)? }
        };
        to.write(range_of(mapped));
    })
}

/// Names pages in the process map, by up to 79 bytes, unless `name` is null; with
/// `exclude_from_core` not zero they are left out of core files from now on. Pages that are free,
/// and views of dual mappings, are passed by.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_describe(
    region: *mut hm_region,
    range: hm_range,
    name: *const c_char,
    exclude_from_core: c_int,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        let range = pages_of(range, region.page_size())?;
        // SAFETY: the caller in C promises that it is null or a string.
        let name = unsafe { crate::types::name(name) };
        let dump = if exclude_from_core == 0 {
            Dump::Default
        } else {
            Dump::Excluded
        };
        // SAFETY: the caller in C promises that the pages are its own.
        unsafe { region.describe(range, name, dump) };
    })
}

/// Says of memory that large pages are welcome (`HM_PAGES_TRANSPARENT`), or not
/// (`HM_PAGES_NEVER_LARGE`): advice, which changes no contents. Pages without memory are passed by.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_wish_pages(
    region: *mut hm_region,
    range: hm_range,
    wish: hm_page_wish,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        let range = pages_of(range, region.page_size())?;
        let wish = match crate::types::wish(wish)? {
            wish @ (PageWish::Transparent | PageWish::Never) => wish,
            _ => return Err(invalid(c"no such advice")),
        };
        // SAFETY: the caller in C promises that the pages are its own.
        unsafe { region.wish_pages(range, wish) };
    })
}
