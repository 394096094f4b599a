//! Which addresses there are, and how long a page is, found out by trying.

use super::{Linux, PLAIN};
use crate::errno::number;
use core::{
    ptr::null_mut,
    sync::atomic::{AtomicUsize, Ordering},
};
use hostmem_core::{
    page::PageSize,
    provider::{
        backend::{can_map, try_at},
        last_address,
    },
};
use rustix::{
    io::Errno,
    mm::{Advice, ProtFlags, madvise, mmap_anonymous, munmap},
};

/// Returns the host's page size.
///
/// Asked of the kernel by whether it takes an address as page-aligned: a freestanding program may
/// have no auxiliary vector to read it from.
pub(crate) fn page_size() -> PageSize {
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    if cfg!(target_arch = "x86_64") {
        return PageSize::KIB_4;
    }
    if let Some(known) = PageSize::new(CACHED.load(Ordering::Relaxed)) {
        return known;
    }
    match detect_page_size() {
        Some(size) => {
            CACHED.store(size.bytes(), Ordering::Relaxed);
            size
        }
        // Not even two pages to look at. Multiples of the largest size are aligned for all.
        None => PageSize::KIB_64,
    }
}

fn detect_page_size() -> Option<PageSize> {
    let len = 2 * PageSize::KIB_64.bytes();
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let base = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::empty(), PLAIN) };
    let base = base.ok()?;
    let found = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64]
        .into_iter()
        .find(|size| {
            let inside = base.wrapping_byte_add(size.bytes());
            // SAFETY: normal advice changes nothing; EINVAL says that the address is misaligned.
            unsafe { madvise(inside, size.bytes(), Advice::Normal) }.is_ok()
        });
    // SAFETY: mapped above, and no other code has its address yet. It cannot fail for a whole
    // mapping.
    let _ = unsafe { munmap(base, len) };
    found
}

/// Returns the last address that a user mapping can have, found out at the first call; `None` where
/// that is not possible now, for instance since nothing can be mapped at all.
pub(super) fn last_user_address() -> Option<usize> {
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    match CACHED.load(Ordering::Relaxed) {
        0 => {}
        last => return Some(last),
    }
    // Every place is refused to a process at its limit of addresses or mappings.
    let can_map_page = || can_map(&Linux, page_size().bytes());
    if !can_map_page() {
        return None;
    }
    let last = last_address(address_of_stack(), page_size(), &mut exists)?;
    // Meanwhile others may have met a limit: all depends on the lowest place that was refused.
    if let Some(behind) = last.checked_add(1)
        && !(can_map_page() && exists(behind) == Some(false))
    {
        return None;
    }
    CACHED.store(last, Ordering::Relaxed);
    Some(last)
}

/// Returns an address that exists, which most threads have near the end.
pub(crate) fn address_of_stack() -> usize {
    let here = 0u8;
    (&raw const here).addr()
}

/// Says whether a mapping can lie at a page; `None` where the answer says nothing about the place.
fn exists(at: usize) -> Option<bool> {
    match try_at(&Linux, at, page_size().bytes()) {
        // Kernels before 4.17 map elsewhere, whether the page is taken or none.
        Ok(got) => (got == at).then_some(true),
        Err(error) => match number(error)? {
            Errno::EXIST => Some(true),
            Errno::NOMEM | Errno::INVAL => Some(false),
            _ => None,
        },
    }
}
