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
    NetBsdProvider,
    errno::{check, error},
    object::MemoryObject,
    pages::{
        Was, keep, map_at, may_become, page_size, pointer, protection, range_at, reserve_over,
        unmap,
    },
};
use core::{ffi::c_void, ptr::null_mut};
use duplicate::duplicate;
use hostmem_core::{
    page::{Access, PageRange},
    provider::{
        DualError, DualMapProvider, DualMapping, DualRequest, DualStep, DualStepError, DualSteps,
        Error, ErrorKind, Leave, PageProvider, PageWish, Placement, Request, Target, order,
        run_dual,
    },
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    io::Errno,
    mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect},
};

/// One view to be made by `mmap(2)`.
struct View<'fd> {
    /// What it shows; `None` for new shared memory.
    file: Option<BorrowedFd<'fd>>,
    access: ProtFlags,
    len: usize,
}

impl View<'_> {
    /// Maps the view at its target.
    ///
    /// # Safety
    ///
    /// A range in [`Target::Into`] is the caller's, and no other code uses it.
    unsafe fn map(&self, target: Target) -> Result<PageRange, DualStepError> {
        match target {
            Target::Find(placement) => Ok(self.map_found(placement)?),
            // SAFETY: the caller's promise.
            Target::Into(range) => match unsafe { self.map_onto(range) } {
                Ok(()) => Ok(range),
                Err(error) => {
                    let lost = error.kind() == ErrorKind::RangeLost;
                    Err(DualStepError {
                        error,
                        lost: lost.then_some(range),
                    })
                }
            },
        }
    }

    fn map_found(&self, placement: Placement) -> Result<PageRange, Error> {
        let request = Request::bytes(self.len).placement(placement);
        let plan = request.plan(page_size())?;
        if plan.unconstrained() && plan.align() == page_size().bytes() {
            // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
            let got = unsafe { self.mmap(null_mut(), MapFlags::SHARED) };
            return range_at(got.map_err(error)?, self.len);
        }
        // The place is reserved first, so that mapping there replaces nothing but our own.
        let range = NetBsdProvider::new().reserve(&request)?;
        // SAFETY: reserved just now, and no other code has its address yet.
        unsafe { self.map_onto(range) }
            .map(|()| range)
            .inspect_err(|error| {
                if error.kind() != ErrorKind::RangeLost {
                    // SAFETY: as above; a failure wastes addresses and no more.
                    let _ = unsafe { unmap(range) };
                }
            })
    }

    /// Replaces a range by the view.
    ///
    /// # Safety
    ///
    /// The range is the caller's, and no other code uses it.
    unsafe fn map_onto(&self, range: PageRange) -> Result<(), Error> {
        if range.len_bytes() != self.len {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: FIXED replaces what is there, which is the caller's to give up.
        match unsafe { self.mmap(pointer(range), flags) } {
            Ok(_) => Ok(()),
            Err(errno) => Err(keep(range, Was::Plain, errno)),
        }
    }

    /// # Safety
    ///
    /// With [`MapFlags::FIXED`], the range is the caller's, and no other code uses it.
    unsafe fn mmap(&self, at: *mut c_void, flags: MapFlags) -> Result<*mut c_void, Errno> {
        match self.file {
            // SAFETY: the caller's promise.
            Some(file) => unsafe { mmap(at, self.len, self.access, flags, file, 0) },
            // SAFETY: the caller's promise.
            None => unsafe { mmap_anonymous(at, self.len, self.access, flags) },
        }
    }
}

/// Takes a view back that a later part of a strategy could not go with. Returns the target range,
/// if that was lost.
///
/// # Safety
///
/// The view was just mapped at `target`, and no other code uses it.
unsafe fn undo(view: PageRange, target: Target) -> Option<PageRange> {
    match target {
        Target::Find(_) => {
            // SAFETY: the caller's promise. Whole mappings can be unmapped; if not, they leak.
            let _ = unsafe { unmap(view) };
            None
        }
        Target::Into(range) => {
            // SAFETY: the caller's promise.
            let restored = unsafe { reserve_over(range, Was::View) };
            restored
                .err()
                .filter(|e| e.kind() == ErrorKind::RangeLost)
                .map(|_| range)
        }
    }
}

/// Maps new shared memory, and its duplicate.
///
/// # Safety
///
/// The promises of [`DualMapProvider::map_dual`].
unsafe fn map_duplicates(
    request: &DualRequest<'_>,
) -> Result<(PageRange, PageRange), DualStepError> {
    let view = View {
        file: None,
        access: protection(Access::ReadWrite) | may_become(protection(Access::ReadExec)),
        len: request.len,
    };
    // SAFETY: the caller's promise about Into targets.
    let rw = unsafe { view.map(request.rw)? };
    // SAFETY: the caller's promise about Into targets.
    let failure = match unsafe { duplicate(rw, request.rx) } {
        Ok(rx) => {
            let flags = MprotectFlags::from_bits_retain(protection(Access::ReadExec).bits());
            // SAFETY: mapped just now, and no other code has its address yet.
            match unsafe { mprotect(pointer(rx), request.len, flags) } {
                Ok(()) => return Ok((rw, rx)),
                Err(errno) => DualStepError {
                    error: error(errno),
                    // SAFETY: as above.
                    lost: unsafe { undo(rx, request.rx) },
                },
            }
        }
        Err(failure) => failure,
    };
    // SAFETY: mapped above, and no other code has its address yet.
    let lost = unsafe { undo(rw, request.rw) };
    Err(DualStepError {
        lost: failure.lost.or(lost),
        ..failure
    })
}

/// Maps two views of a memory object.
///
/// # Safety
///
/// The promises of [`DualMapProvider::map_dual`].
unsafe fn map_views(
    object: &MemoryObject,
    request: &DualRequest<'_>,
) -> Result<(PageRange, PageRange), DualStepError> {
    let rw = View {
        file: Some(object.file.as_fd()),
        access: protection(Access::ReadWrite),
        len: request.len,
    };
    // SAFETY: the caller's promise about Into targets.
    let rw = unsafe { rw.map(request.rw)? };
    let read_only = object.read_only.as_ref();
    let rx = View {
        file: Some(read_only.map_or(object.file.as_fd(), AsFd::as_fd)),
        access: protection(Access::ReadExec),
        len: request.len,
    };
    // SAFETY: the caller's promise about Into targets.
    match unsafe { rx.map(request.rx) } {
        Ok(rx) => Ok((rw, rx)),
        Err(mut failure) => {
            // SAFETY: mapped above, and no other code has its address yet.
            failure.lost = failure.lost.or(unsafe { undo(rw, request.rw) });
            Err(failure)
        }
    }
}

/// Keeps a view out of forked children.
///
/// # Safety
///
/// The view is the caller's.
unsafe fn hide_from_children(view: PageRange) -> Result<(), Error> {
    let none = libc::MAP_INHERIT_NONE;
    // SAFETY: this changes nothing in this process.
    let returned = unsafe { libc::minherit(pointer(view), view.len_bytes(), none) };
    check(returned).map(drop).map_err(error)
}

// SAFETY: the views are shared mappings of memory that nobody else can open; protections are as
// promised; what fails is undone.
unsafe impl DualSteps for NetBsdProvider {
    fn dual_order(&self, request: &DualRequest<'_>) -> &'static [DualStep] {
        let absent = order::MAX_DIRECTORIES - self.directories().len();
        match (request.pages, request.rx) {
            (PageWish::Large { or_base: false, .. }, _) => &[],
            // The directories come last: those that were not given are cut off.
            (_, Target::Find(_)) => &order::NETBSD[..order::NETBSD.len() - absent],
            // Here they do not; those that were not given are no strategies.
            (_, Target::Into(_)) => order::NETBSD_INTO,
        }
    }

    fn wants_hole(&self, step: DualStep) -> bool {
        step == DualStep::RemapDup
    }

    unsafe fn dual_step(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError> {
        if request.landing_pads {
            return Err(Error::of(ErrorKind::Unsupported).into());
        }
        let (rw, rx) = if step == DualStep::RemapDup {
            // SAFETY: the caller's promise about Into targets.
            unsafe { map_duplicates(request)? }
        } else {
            let object = self.memory_object(step, request)?;
            // SAFETY: the caller's promise about Into targets.
            unsafe { map_views(&object, request)? }
        };
        let (hide_rw, hide_rx) = request.fork.lost_views();
        for (view, hide) in [(rw, hide_rw), (rx, hide_rx)] {
            if !hide {
                continue;
            }
            // SAFETY: mapped above, and no other code has its address yet.
            if let Err(error) = unsafe { hide_from_children(view) } {
                // SAFETY: as above.
                let lost_rx = unsafe { undo(rx, request.rx) };
                // SAFETY: as above.
                let lost_rw = unsafe { undo(rw, request.rw) };
                return Err(DualStepError {
                    error,
                    lost: lost_rw.or(lost_rx),
                });
            }
        }
        // SAFETY: two views of the same memory, equally long, apart since both are mapped, and
        // no other code has their addresses yet.
        let mapping = unsafe { DualMapping::from_parts(rw, rx, step, page_size(), request.fork) };
        Ok(mapping.without_purge())
    }
}

/// Unmaps one view, or makes it a reservation again.
///
/// # Safety
///
/// The view is the caller's, and no other code uses it.
unsafe fn leave_view(view: PageRange, leave: Leave) -> Result<(), Error> {
    match leave {
        // SAFETY: the caller's promise.
        Leave::Hole => unsafe { unmap(view) },
        // SAFETY: the caller's promise.
        Leave::Reserved => unsafe { reserve_over(view, Was::View) },
    }
}

// SAFETY: as for DualSteps; core's loop adds nothing but the order.
unsafe impl DualMapProvider for NetBsdProvider {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        // SAFETY: the caller's promise about Into targets.
        unsafe { run_dual(self, request, page_size()) }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        // SAFETY: the caller's promise.
        if let Err(error) = unsafe { leave_view(mapping.rw(), leave) } {
            return Err((mapping, error));
        }
        // SAFETY: the caller's promise.
        let Err(error) = (unsafe { leave_view(mapping.rx(), leave) }) else {
            return Ok(());
        };
        // The first view is gone. Its place is kept, so that the call can be made again without
        // unmapping what somebody else put there.
        let lost =
            leave == Leave::Hole && map_at(mapping.rw().addr(), mapping.len_bytes()).is_err();
        let error = if lost {
            ErrorKind::RangeLost.into()
        } else {
            error
        };
        Err((mapping, error))
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let page = mapping.page_size();
        if !page.is_aligned(offset) || !page.is_aligned(len) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let part = mapping.rw().part(offset, len, page_size());
        part.ok_or(ErrorKind::InvalidArgument)?;
        // Advice leaves the contents of shared memory.
        Err(ErrorKind::Unsupported.into())
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let page = mapping.page_size();
        if !page.is_aligned(offset) || !page.is_aligned(len) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let part = mapping.rw().part(offset, len, page_size());
        // Nothing was purged.
        part.map(drop).ok_or(ErrorKind::InvalidArgument.into())
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        let (lost_rw, lost_rx) = mapping.fork().lost_views();
        for (view, lost) in [(mapping.rw(), lost_rw), (mapping.rx(), lost_rx)] {
            if lost && let Err(error) = map_at(view.addr(), view.len_bytes()) {
                let taken = error.kind() == ErrorKind::Taken;
                return Err(if taken {
                    ErrorKind::RangeLost.into()
                } else {
                    error
                });
            }
        }
        Ok(())
    }
}
