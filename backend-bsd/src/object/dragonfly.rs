//! DragonFly: `shm_open(3)` of a new name that is unlinked at once.

use super::{MODE, MemoryObject, with_new_name};
use crate::limits::ask_file_size;
use hostmem_core::{
    page::PageSize,
    provider::{DualRequest, DualStep, Error, ErrorKind},
};
use rustix::{fs::Mode, shm};

/// Makes the object of one strategy, empty as yet.
pub(super) fn open(
    step: DualStep,
    request: &DualRequest<'_>,
    base: PageSize,
) -> Result<MemoryObject, Error> {
    if step != DualStep::PosixShm {
        return Err(ErrorKind::Unsupported.into());
    }
    // Such an object is a file.
    let len = u64::try_from(request.len).map_err(|_| ErrorKind::InvalidArgument)?;
    ask_file_size(len, base)?;
    let (file, read_only) = with_new_name(b"/hostmem-", |name| {
        let new = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
        let file = shm::open(name, new, MODE)?;
        let read_only = shm::open(name, shm::OFlags::RDONLY, Mode::empty());
        shm::unlink(name)?;
        Ok((file, read_only.ok()))
    })?;
    Ok(MemoryObject::of(file, read_only, base))
}
