//! What the two views of a dual mapping show, where they are no duplicates: a memory object, by
//! one strategy each.

use crate::probe::is_revision;
use core::ffi::{CStr, c_int, c_uint};
use hostmem_bsd::shared::{
    errno::{error, owned},
    object::MemoryObject,
    pages::page_size,
};
use hostmem_core::provider::{DualRequest, DualStep, Error, ErrorKind};
use rustix::{fs::ftruncate, io::Errno};

/// `SYS_memfd_create` of `sys/syscall.h`.
const SYS_MEMFD_CREATE: c_int = 500;
/// `MFD_CLOEXEC` of `sys/mman.h`.
const MFD_CLOEXEC: c_uint = 1;
/// `kern.osrevision` (as in `param(3)`) of the first kernel known to have the call. Among releases
/// that is 11.0 (`memfd_create(2)`, HISTORY), 1100000000; no 10 has it. It entered the development
/// of 11 in July 2023 and has been seen at work in 10.99.12: what lies between is not asked.
const FIRST_WITH_MEMFD: c_int = 1_099_001_200;

/// Makes the memory object of one strategy, `request.len` bytes long.
pub(crate) fn memory_object(
    step: DualStep,
    directory: Option<&CStr>,
    request: &DualRequest<'_>,
) -> Result<MemoryObject, Error> {
    let len = request.len as u64;
    match (step, directory) {
        (DualStep::Memfd, _) => memfd(request.name.unwrap_or(c"hostmem"), len),
        (DualStep::PosixShm, _) => {
            // A file of the `tmpfs` at `/var/shm`.
            let object = MemoryObject::named(len, page_size())?;
            object.fill(len)?;
            Ok(object)
        }
        (_, Some(directory)) => MemoryObject::in_directory(directory, len, page_size()),
        _ => Err(ErrorKind::Unsupported.into()),
    }
}

fn memfd(name: &CStr, len: u64) -> Result<MemoryObject, Error> {
    // Older kernels kill a process that makes an unknown call, by `SIGSYS`.
    if !is_revision(FIRST_WITH_MEMFD) {
        return Err(Error::os(
            ErrorKind::Unsupported,
            Errno::NOSYS.raw_os_error(),
        ));
    }
    // SAFETY: the call exists, and reads the name, a C string that is borrowed for the call.
    let fd = unsafe { libc::syscall(SYS_MEMFD_CREATE, name.as_ptr(), MFD_CLOEXEC) };
    // SAFETY: made just now, and no other code knows of it.
    let file = unsafe { owned(fd)? };
    ftruncate(&file, len).map_err(error)?;
    // Its mappings can never become what they are not mapped for.
    Ok(MemoryObject::new(file, None, page_size()))
}
