//! OpenBSD: `shm_mkstemp(3)`, whose name is unlinked at once.

use super::MemoryObject;
use crate::{
    errno::{check, error},
    limits::ask_file_size,
};
use core::ffi::{CStr, c_char, c_int};
use hostmem_core::{
    page::PageSize,
    provider::{DualRequest, DualStep, Error, ErrorKind},
};
use rustix::{
    fd::{FromRawFd, OwnedFd},
    fs::Mode,
    io::{FdFlags, fcntl_setfd},
    shm,
};

unsafe extern "C" {
    /// Makes a new object under a name made of the template, which it replaces.
    fn shm_mkstemp(template: *mut c_char) -> c_int;
}

/// Makes the object of one strategy, empty as yet.
pub(super) fn open(
    step: DualStep,
    request: &DualRequest<'_>,
    base: PageSize,
) -> Result<MemoryObject, Error> {
    if step != DualStep::AnonShm {
        return Err(ErrorKind::Unsupported.into());
    }
    // Such an object is a file.
    let len = u64::try_from(request.len).map_err(|_| ErrorKind::InvalidArgument)?;
    ask_file_size(len, base)?;
    let mut name = *b"/tmp/hostmem-XXXXXXXXXX\0";
    // SAFETY: a C string that may be written to.
    let fd = check(unsafe { shm_mkstemp(name.as_mut_ptr().cast()) }).map_err(error)?;
    // SAFETY: a descriptor that the system just made, and no other code knows of.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| ErrorKind::Other)?;
    let read_only = shm::open(name, shm::OFlags::RDONLY, Mode::empty());
    shm::unlink(name).map_err(error)?;
    fcntl_setfd(&file, FdFlags::CLOEXEC).map_err(error)?;
    Ok(MemoryObject::of(file, read_only.ok(), base))
}
