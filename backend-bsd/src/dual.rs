//! Dual mappings: two shared views of one memory object.
//!
//! On FreeBSD each view is mapped with a `PROT_MAX` of just its own access, so that neither can
//! ever be given the other's. Elsewhere the executable view shows a descriptor opened for reading
//! only.

use crate::{host, object::memory_object, pages::Bsd, shared::pages::protection};
use core::ffi::CStr;
use hostmem_core::{
    page::Access,
    provider::{
        DualRequest, DualStep, DualStepError, PageWish,
        backend::{DualSystem, MappedViews},
    },
};
use rustix::mm::MapFlags;

// SAFETY: the views are shared mappings of one object that no other process can open; protections
// are as promised; what fails is undone.
unsafe impl DualSystem for Bsd {
    const SYSTEM: Self = Self;
    const ORDERS: [&'static [DualStep]; 3] = host::ORDERS;

    unsafe fn map_views(
        &self,
        step: DualStep,
        directory: Option<&CStr>,
        request: &DualRequest<'_>,
    ) -> Result<MappedViews, DualStepError> {
        let mut object = memory_object(step, directory, request)?;
        if directory.is_some() {
            object.flags = host::FILE;
        }
        let anywhere = match request.pages {
            PageWish::Transparent => host::SUPERPAGE_ALIGNED,
            _ => MapFlags::empty(),
        };
        let accesses = [Access::ReadWrite, Access::ReadExec];
        let protections =
            accesses.map(|access| protection(access) | host::most(protection(access)));
        // SAFETY: target ranges are the caller's, and no other code uses them.
        let both = unsafe { object.map_views(self, request, protections, anywhere)? };
        let (page, purges) = (object.page, false);
        Ok(MappedViews { both, page, purges })
    }
}
