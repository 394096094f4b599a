//! Dual mappings: two shared views of one memory object.
//!
//! On FreeBSD each view is mapped with a `PROT_MAX` of just its own access, so that neither can
//! ever be given the other's. Elsewhere the executable view shows a descriptor opened for reading
//! only.

use crate::{
    BsdProvider,
    errno::{check, error},
    object::MemoryObject,
    pages::{
        INHERIT_NONE, SUPERPAGE_ALIGNED, Was, keep, map_at, most, page_size, pointer, protection,
        reserve_over, unmap,
    },
    probe::ORDER,
};
use core::ptr::NonNull;
use hostmem_core::{
    page::{Access, PageRange, PageSize},
    provider::{
        DualError, DualMapProvider, DualMapping, DualRequest, DualStep, DualStepError, DualSteps,
        Error, ErrorKind, Leave, PageProvider, PageWish, Placement, Request, Target, run_dual,
    },
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    mm::{MapFlags, mmap},
};

/// One view to be made.
struct View<'fd> {
    file: BorrowedFd<'fd>,
    access: Access,
    len: usize,
    page: PageSize,
    /// Flags beside `MAP_SHARED`.
    flags: MapFlags,
    /// Flags where the system chooses the place.
    anywhere: MapFlags,
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
        let align = placement.align.max(self.page.bytes());
        let placement = Placement { align, ..placement };
        let request = Request::bytes(self.len).placement(placement);
        if request.plan(page_size())?.unconstrained() && align == page_size().bytes() {
            return self.map_anywhere();
        }
        // The place is reserved first, so that mapping there replaces nothing but our own.
        let range = BsdProvider::new().reserve(&request)?;
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

    fn map_anywhere(&self) -> Result<PageRange, Error> {
        let access = protection(self.access) | most(protection(self.access));
        let flags = MapFlags::SHARED | self.flags | self.anywhere;
        let null = core::ptr::null_mut();
        // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
        let got = unsafe { mmap(null, self.len, access, flags, self.file, 0) };
        let start = NonNull::new(got.map_err(error)?.cast());
        let range = start.and_then(|start| PageRange::new(start, self.len, page_size()));
        range.ok_or(ErrorKind::Other.into())
    }

    /// Replaces a range by the view.
    ///
    /// # Safety
    ///
    /// The range is the caller's, and no other code uses it.
    unsafe fn map_onto(&self, range: PageRange) -> Result<(), Error> {
        if !self.page.is_aligned(range.addr()) || range.len_bytes() != self.len {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let access = protection(self.access) | most(protection(self.access));
        let flags = MapFlags::SHARED | MapFlags::FIXED | self.flags;
        // SAFETY: FIXED replaces what is there, which is the caller's to give up.
        match unsafe { mmap(pointer(range), self.len, access, flags, self.file, 0) } {
            Ok(_) => Ok(()),
            Err(errno) => Err(keep(range, Was::Plain, error(errno))),
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

/// Keeps a view out of forked children.
///
/// # Safety
///
/// The view is the caller's.
unsafe fn hide_from_children(view: PageRange) -> Result<(), Error> {
    // SAFETY: this changes nothing in this process.
    let returned = unsafe { libc::minherit(pointer(view), view.len_bytes(), INHERIT_NONE) };
    check(returned).map(drop).map_err(error)
}

// SAFETY: the views are shared mappings of one object that nobody else can open; protections are
// as promised; what fails is undone.
unsafe impl DualSteps for BsdProvider {
    fn dual_order(&self, request: &DualRequest<'_>) -> &'static [DualStep] {
        // The directories come last in every order: those that were not given are cut off.
        let cut = |order: &'static [DualStep]| {
            let given = |step: &DualStep| match step {
                DualStep::Directory(n) => usize::from(*n) < self.directories().len(),
                _ => true,
            };
            &order[..order.iter().take_while(|step| given(step)).count()]
        };
        match request.pages {
            PageWish::Large { or_base: false, .. } => ORDER.only_large,
            PageWish::Large { .. } => cut(ORDER.large),
            _ => cut(ORDER.base),
        }
    }

    unsafe fn dual_step(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError> {
        if request.landing_pads {
            return Err(Error::of(ErrorKind::Unsupported).into());
        }
        let object = self.memory_object(step, request, page_size())?;
        let MemoryObject { page, flags, .. } = object;
        let len = request.len;
        let anywhere = match request.pages {
            PageWish::Transparent => SUPERPAGE_ALIGNED,
            _ => MapFlags::empty(),
        };
        let rw = View {
            file: object.file.as_fd(),
            access: Access::ReadWrite,
            len,
            page,
            flags,
            anywhere,
        };
        // SAFETY: the caller's promise about Into targets.
        let rw = unsafe { rw.map(request.rw)? };
        let read_only = object.read_only.as_ref();
        let rx = View {
            file: read_only.map_or(object.file.as_fd(), AsFd::as_fd),
            access: Access::ReadExec,
            len,
            page,
            flags,
            anywhere,
        };
        // SAFETY: the caller's promise about Into targets.
        let rx = match unsafe { rx.map(request.rx) } {
            Ok(rx) => rx,
            Err(mut failure) => {
                // SAFETY: mapped above, and no other code has its address yet.
                failure.lost = failure.lost.or(unsafe { undo(rw, request.rw) });
                return Err(failure);
            }
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
        // SAFETY: two views of the same object, equally long, apart since both are mapped, and
        // no other code has their addresses yet.
        let mapping = unsafe { DualMapping::from_parts(rw, rx, step, page, request.fork) };
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
unsafe impl DualMapProvider for BsdProvider {
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
        // Advice leaves the contents of shared objects, and to punch a hole takes a descriptor.
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
