//! What `mremap(2)` does: large pages for a reservation, and memory for other addresses.

use super::{Linux, keep::is_kernel, page_size, protection};
use crate::{errno::error, map};
use hostmem_core::{
    page::{Access, PageRange, PageSize},
    provider::{
        Error, ErrorKind,
        backend::{At, Call, Calls, Kept, Was, keep, keep_after, pointer, reserve_over},
    },
};
use rustix::{
    io::Errno,
    mm::{MapFlags, MremapFlags, mmap_anonymous, mremap_fixed, munmap},
};

/// Commits large pages: maps them elsewhere first, because a failed replacing map of large pages
/// leaves a hole, and then moves them.
///
/// # Safety
///
/// The range is reserved by the caller, and no other code uses it.
pub(super) unsafe fn commit_large(
    range: PageRange,
    access: Access,
    bytes: usize,
) -> Result<PageSize, Error> {
    let invalid = Error::of(ErrorKind::InvalidArgument);
    let size = PageSize::new(bytes)
        .filter(|&size| size > page_size())
        .ok_or(invalid)?;
    if !size.is_aligned(range.addr()) || !size.is_aligned(range.len_bytes()) {
        return Err(invalid);
    }
    let log2 = MapFlags::hugetlb_with_size_log2(bytes.trailing_zeros()).ok_or(invalid)?;
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | log2;
    let (len, null) = (range.len_bytes(), At::Anywhere.pointer());
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let from = unsafe { mmap_anonymous(null, len, protection(access), flags) }.map_err(error)?;
    let to = pointer(range);
    // SAFETY: moves the mapping made just now onto the range, which is the caller's to give up.
    match unsafe { mremap_fixed(from, len, len, MremapFlags::MAYMOVE, to) } {
        Ok(_) => Ok(size),
        Err(errno) => {
            // SAFETY: mapped above, and no other code has its address yet.
            let _ = unsafe { munmap(from, len) };
            Err(keep(&Linux, Call::Move, range, Was::Plain, error(errno)))
        }
    }
}

/// Moves the memory of one mapping onto a reservation.
///
/// # Safety
///
/// Both ranges are the caller's; `from` is committed, `to` reserved.
pub(super) unsafe fn move_pages(from: PageRange, to: PageRange) -> Result<(), Error> {
    if from.len_bytes() != to.len_bytes() || from.overlaps(to) {
        return Err(ErrorKind::InvalidArgument.into());
    }
    // Kernels since 6.17 move several mappings, one by one, and may fail in between.
    match map::is_one_mapping(from) {
        Some(true) => {}
        None if !is_kernel(6, 17) => {}
        _ => return Err(ErrorKind::Unsupported.into()),
    }
    let len = from.len_bytes();
    let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
    // SAFETY: both ranges are the caller's, and nothing is mapped at `to` but a reservation. What
    // is left at `from` is empty.
    if let Err(errno) = unsafe { mremap_fixed(pointer(from), len, len, flags, pointer(to)) } {
        let error = error(errno);
        let kept = keep_after(&Linux, Call::Move, to, Was::Plain, error);
        // Several mappings, a kernel before 5.7, or pages that it does not move: to be copied.
        // `to` may have been unmapped first.
        let copy = matches!(errno, Errno::FAULT | Errno::INVAL) && kept != Kept::Lost;
        return Err(if copy {
            Error::os(ErrorKind::Unsupported, errno.raw_os_error())
        } else {
            kept.report(error)
        });
    }
    // SAFETY: the range is the caller's, and its contents have gone.
    if unsafe { reserve_over(&Linux, from, Was::Plain) }.is_err() {
        // A whole mapping can be made inaccessible, also at the limit of mappings; if not, it stays
        // accessible and empty, as a commit would leave it.
        // SAFETY: the range is the caller's, and its contents have gone.
        let _ = unsafe { Linux.protect(from, Access::None) };
    }
    Ok(())
}
