//! FreeBSD: `shm_open(SHM_ANON)`, `memfd_create(3)`, `shm_create_largepage(3)`.
//!
//! By libc itself: rustix takes a name where `SHM_ANON`, the address 1, is none, and looks for
//! `memfd_create` with `dlsym`, which a static program has not.

use super::MemoryObject;
use crate::errno::{check, error};
use core::{ffi::c_int, ptr::null_mut};
use hostmem_core::{
    page::PageSize,
    probe::MAX_LARGE_SIZES,
    provider::{DualRequest, DualStep, Error, ErrorKind, PageWish},
};
use rustix::{
    fd::{FromRawFd, OwnedFd},
    io::Errno,
};

const FLAGS: c_int = libc::O_RDWR | libc::O_CLOEXEC;
const MODE: libc::mode_t = libc::S_IRUSR | libc::S_IWUSR;

/// Makes the object of one strategy, empty as yet.
pub(super) fn open(
    step: DualStep,
    request: &DualRequest<'_>,
    base: PageSize,
) -> Result<MemoryObject, Error> {
    match step {
        DualStep::AnonShm => {
            // SAFETY: SHM_ANON stands for no name; nothing else is asked of the arguments.
            let fd = unsafe { libc::shm_open(libc::SHM_ANON, FLAGS, MODE) };
            Ok(MemoryObject::of(owned(fd)?, None, base))
        }
        DualStep::Memfd => {
            let name = request.name.unwrap_or(c"hostmem");
            // SAFETY: the name is a C string, borrowed for the call.
            let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
            Ok(MemoryObject::of(owned(fd)?, None, base))
        }
        DualStep::AnonShmLarge => {
            let (index, page) = large(request)?;
            // Memory may be moved to make room, but nobody waits for ever.
            let policy = libc::SHM_LARGEPAGE_ALLOC_DEFAULT;
            // SAFETY: as for shm_open above.
            let fd =
                unsafe { libc::shm_create_largepage(libc::SHM_ANON, FLAGS, index, policy, MODE) };
            Ok(MemoryObject::of(owned(fd)?, None, page))
        }
        _ => Err(ErrorKind::Unsupported.into()),
    }
}

fn owned(fd: c_int) -> Result<OwnedFd, Error> {
    let fd = check(fd).map_err(error)?;
    // SAFETY: a descriptor that the system just made, and no other code knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns the large pages asked for, and which of the system's sizes that is.
fn large(request: &DualRequest<'_>) -> Result<(c_int, PageSize), Error> {
    let PageWish::Large { bytes, .. } = request.pages else {
        return Err(ErrorKind::InvalidArgument.into());
    };
    let page = PageSize::new(bytes).ok_or(ErrorKind::InvalidArgument)?;
    if !page.is_aligned(request.len) {
        return Err(ErrorKind::InvalidArgument.into());
    }
    let index = page_sizes().iter().position(|&size| size == bytes);
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
    match filled {
        Ok(_) => sizes,
        Err(Errno { .. }) => [0; MAX_LARGE_SIZES],
    }
}
