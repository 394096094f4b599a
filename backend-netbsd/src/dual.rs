//! Dual mappings: a shared mapping and its duplicate, or two shared views of one memory object.
//!
//! ```text
//!   rw  mmap(RW | PROT_MPROTECT(EXEC), MAP_ANON | MAP_SHARED)
//!   rx  mremap(rw, MAP_REMAPDUP), then mprotect(RX)
//! ```
//!
//! The duplicate inherits what its source may become, so both are mapped with the leave for both;
//! each view has its own access, and PaX lets none have both. A view of a descriptor under PaX can
//! never become what it is not.

mod duplicate;

use crate::{
    object::memory_object,
    pages::{NetBsd, may_become},
};
use core::ffi::CStr;
use duplicate::duplicate;
use hostmem_bsd::shared::{
    errno::error,
    pages::{BsdCalls, page_size, protection},
};
use hostmem_core::{
    page::{Access, PageRange},
    provider::{
        DualRequest, DualStep, DualStepError, PageWish, Target,
        backend::{At, Calls, DualSystem, MappedViews, View, both_or_neither, order_for, undone},
        order,
    },
};
use rustix::mm::{MapFlags, mmap_anonymous};

/// Maps new shared memory, and its duplicate.
///
/// # Safety
///
/// A range in [`Target::Into`] is the caller's, and no other code uses it.
unsafe fn map_duplicates(
    request: &DualRequest<'_>,
) -> Result<(PageRange, PageRange), DualStepError> {
    let access = protection(Access::ReadWrite) | may_become(protection(Access::ReadExec));
    let map = |at: At| {
        let mut flags = MapFlags::SHARED;
        flags.set(MapFlags::FIXED, at.replaces());
        // SAFETY: FIXED replaces a range that the view's caller gives up; else it is a new mapping
        // wherever the kernel likes.
        unsafe { mmap_anonymous(at.pointer(), request.len, access, flags) }.map_err(error)
    };
    // SAFETY: the call maps as many bytes, and replaces no more than the range given.
    let view = unsafe { View::new(request.len, page_size(), map) };
    // SAFETY: the target range is the caller's, and no other code uses it.
    let rw = unsafe { view.map(&NetBsd, request.rw)? };
    // SAFETY: the target range is the caller's, and no other code uses it.
    let rx = match unsafe { duplicate(rw, request.rx) } {
        Ok(rx) => rx,
        // SAFETY: mapped above, and no other code has its address yet.
        Err(failure) => return Err(unsafe { undone(&NetBsd, failure, rw, request.rw) }),
    };
    // SAFETY: mapped just now, and no other code has its address yet.
    let protected = unsafe { BsdCalls.protect(rx, Access::ReadExec) };
    // SAFETY: mapped above, and no other code has their addresses yet.
    unsafe { both_or_neither(&NetBsd, (rw, rx), request, protected) }
}

// SAFETY: the views are shared mappings of memory that no other process can open; protections are
// as promised; what fails is undone.
unsafe impl DualSystem for NetBsd {
    const SYSTEM: Self = Self;
    const ORDERS: [&'static [DualStep]; 3] = [order::NETBSD, order::NETBSD, &[]];

    fn dual_order(&self, request: &DualRequest<'_>, directories: usize) -> &'static [DualStep] {
        match (request.pages, request.rx) {
            (PageWish::Large { or_base: false, .. }, _) | (_, Target::Find(_)) => {
                order_for(Self::ORDERS, request, directories)
            }
            // Directories do not come last here; those that were not given are no strategies.
            (_, Target::Into(_)) => order::NETBSD_INTO,
        }
    }

    fn wants_hole(&self, step: DualStep) -> bool {
        step == DualStep::RemapDup
    }

    unsafe fn map_views(
        &self,
        step: DualStep,
        directory: Option<&CStr>,
        request: &DualRequest<'_>,
    ) -> Result<MappedViews, DualStepError> {
        let both = if step == DualStep::RemapDup {
            // SAFETY: target ranges are the caller's, and no other code uses them.
            unsafe { map_duplicates(request)? }
        } else {
            let object = memory_object(step, directory, request)?;
            let accesses = [Access::ReadWrite, Access::ReadExec].map(protection);
            // SAFETY: target ranges are the caller's, and no other code uses them.
            unsafe { object.map_views(self, request, accesses, MapFlags::empty())? }
        };
        let (page, purges) = (page_size(), false);
        Ok(MappedViews { both, page, purges })
    }
}
