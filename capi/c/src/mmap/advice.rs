//! Advice, as `madvise` takes it.

use super::{
    arguments::{find, whole},
    errno::{Errno, INVALID, answered, last_errno},
};
use crate::region::{Region, hm_region};
use core::ffi::{c_int, c_void};
use hostmem::{
    page::PageRange,
    provider::{Dump, PageProvider, PageWish, Purged},
    region::PageState,
};

/// Says whether a region has given out all pages of a range.
fn is_given_out(region: &Region, pages: PageRange) -> bool {
    let mut at = pages.addr();
    for range in region.ranges(pages.addresses()) {
        if range.addresses.start() > at || range.state == PageState::Dual {
            return false;
        }
        at = range.addresses.last().saturating_add(1);
        if at >= pages.end() {
            return true;
        }
    }
    false
}

/// Gives advice as `madvise` does: `MADV_NORMAL`, `MADV_RANDOM`, `MADV_SEQUENTIAL`,
/// `MADV_WILLNEED`, `MADV_DONTNEED`, `MADV_FREE`, `MADV_COLD`, `MADV_PAGEOUT`, `MADV_HUGEPAGE`,
/// `MADV_NOHUGEPAGE`, `MADV_DONTDUMP`, `MADV_POPULATE_READ` and `MADV_POPULATE_WRITE`; others fail
/// with `EINVAL`. Pages that the region has not given out fail with `ENOMEM`, and nothing is done.
/// In a region on a provider of the program's own what only the kernel can do fails with
/// `EOPNOTSUPP`, and so does `MADV_DONTNEED` where purged pages need not show zeros.
/// Returns 0, or -1 and says why by `errno`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_madvise_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
    advice: c_int,
) -> c_int {
    const KERNELS: [c_int; 10] = [
        libc::MADV_NORMAL,
        libc::MADV_RANDOM,
        libc::MADV_SEQUENTIAL,
        libc::MADV_WILLNEED,
        libc::MADV_DONTNEED,
        libc::MADV_FREE,
        libc::MADV_COLD,
        libc::MADV_PAGEOUT,
        libc::MADV_POPULATE_READ,
        libc::MADV_POPULATE_WRITE,
    ];
    answered((|| {
        // SAFETY: the caller in C promises that it is null or a handle of this library.
        let region = unsafe { find(region)? };
        if !region.page_size().is_aligned(address.addr()) {
            return Err(INVALID);
        }
        if len == 0 {
            return Ok(());
        }
        let pages = whole(address, len, region.page_size())?;
        if region.is_active() && !is_given_out(region, pages) {
            return Err(Errno(libc::ENOMEM));
        }
        match advice {
            // SAFETY: the caller in C promises that the pages are its own.
            libc::MADV_HUGEPAGE => unsafe { region.wish_pages(pages, PageWish::Transparent) },
            // SAFETY: the caller in C promises that the pages are its own.
            libc::MADV_NOHUGEPAGE => unsafe { region.wish_pages(pages, PageWish::Never) },
            libc::MADV_DONTDUMP => {
                // SAFETY: the caller in C promises that the pages are its own.
                unsafe { PageProvider::describe(&**region, pages, None, Dump::Excluded) };
            }
            libc::MADV_DONTNEED | libc::MADV_FREE if !region.is_hosts() => {
                // SAFETY: the caller in C promises that the pages are its own, and their contents
                // not needed.
                let shown = unsafe { region.purge(pages)? };
                if advice == libc::MADV_DONTNEED && shown != Purged::Zero {
                    return Err(Errno(libc::EOPNOTSUPP));
                }
            }
            _ if KERNELS.contains(&advice) && !region.is_hosts() => {
                return Err(Errno(libc::EOPNOTSUPP));
            }
            _ if KERNELS.contains(&advice) => {
                let at = pages.start().as_ptr().cast();
                // SAFETY: the caller in C promises that the pages are its own, and that the
                // contents are not needed where the advice says so.
                if unsafe { libc::madvise(at, pages.len_bytes(), advice) } != 0 {
                    return Err(Errno(last_errno()));
                }
            }
            _ => return Err(INVALID),
        }
        Ok(())
    })())
}
