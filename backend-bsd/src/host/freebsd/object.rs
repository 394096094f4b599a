//! FreeBSD: `shm_open(SHM_ANON)`, `memfd_create(3)`, `shm_create_largepage(3)`.
//!
//! By libc itself: rustix takes a name where `SHM_ANON`, the address 1, is none, and looks for
//! `memfd_create` with `dlsym`, which a static program has not.

use crate::shared::{
    errno::{check, owned},
    object::MemoryObject,
};
use core::{ffi::c_int, ptr::null_mut};
use hostmem_core::{
    page::PageSize,
    probe::MAX_LARGE_SIZES,
    provider::{DualRequest, DualStep, Error, ErrorKind, backend::large_page_of},
};

const FLAGS: c_int = libc::O_RDWR | libc::O_CLOEXEC;
const MODE: libc::mode_t = libc::S_IRUSR | libc::S_IWUSR;

/// Makes the object of one strategy, empty as yet.
pub(crate) fn open(
    step: DualStep,
    request: &DualRequest<'_>,
    base: PageSize,
) -> Result<MemoryObject, Error> {
    let mut page = base;
    let fd = match step {
        // SAFETY: SHM_ANON stands for no name; nothing else is asked of the arguments.
        DualStep::AnonShm => unsafe { libc::shm_open(libc::SHM_ANON, FLAGS, MODE) },
        DualStep::Memfd => {
            let name = request.name.unwrap_or(c"hostmem").as_ptr();
            // SAFETY: the name is a C string, borrowed for the call.
            unsafe { libc::memfd_create(name, libc::MFD_CLOEXEC) }
        }
        DualStep::AnonShmLarge => {
            let index;
            (index, page) = large(request)?;
            // Memory may be moved to make room, but the call does not wait endlessly.
            let policy = libc::SHM_LARGEPAGE_ALLOC_DEFAULT;
            // SAFETY: SHM_ANON stands for no name; nothing else is asked of the arguments.
            unsafe { libc::shm_create_largepage(libc::SHM_ANON, FLAGS, index, policy, MODE) }
        }
        _ => return Err(ErrorKind::Unsupported.into()),
    };
    // SAFETY: made just now by one of the calls above.
    let file = unsafe { owned(fd)? };
    Ok(MemoryObject::new(file, None, page))
}

/// Returns the large pages asked for, and which of the system's sizes that is.
fn large(request: &DualRequest<'_>) -> Result<(c_int, PageSize), Error> {
    let page = large_page_of(request)?;
    let index = page_sizes().iter().position(|&size| size == page.bytes());
    match index.and_then(|index| c_int::try_from(index).ok()) {
        // The first is the host's ordinary page.
        None | Some(0) => Err(ErrorKind::Unsupported.into()),
        Some(index) => Ok((index, page)),
    }
}

/// Returns the sizes of pages, smallest first; zeroes behind the last. getpagesizes(3).
pub(crate) fn page_sizes() -> [usize; MAX_LARGE_SIZES] {
    let mut sizes = [0; MAX_LARGE_SIZES];
    // SAFETY: asks for nothing but the number of sizes.
    let count = check(unsafe { libc::getpagesizes(null_mut(), 0) });
    let room = c_int::try_from(MAX_LARGE_SIZES).unwrap_or(c_int::MAX);
    let filled = count.and_then(|count| {
        let count = count.min(room);
        // SAFETY: writes at most `count` sizes, for which there is room.
        check(unsafe { libc::getpagesizes(sizes.as_mut_ptr(), count) })
    });
    filled.map_or([0; MAX_LARGE_SIZES], |_| sizes)
}
