//! What the two views of a dual mapping show: a memory object, by one strategy each.

use crate::{
    host,
    shared::{errno::error, object::MemoryObject, pages::page_size},
};
use core::ffi::CStr;
use hostmem_core::provider::{DualRequest, DualStep, Error};
use rustix::fs::ftruncate;

/// Makes the memory object of one strategy, `request.len` bytes long.
pub(crate) fn memory_object(
    step: DualStep,
    directory: Option<&CStr>,
    request: &DualRequest<'_>,
) -> Result<MemoryObject, Error> {
    let (len, page) = (request.len as u64, page_size());
    if let Some(directory) = directory {
        return MemoryObject::in_directory(directory, len, page);
    }
    let object = host::open(step, request, page)?;
    ftruncate(&object.file, len).map_err(error)?;
    Ok(object)
}
