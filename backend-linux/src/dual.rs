//! Dual mappings: two shared views of one memory file.

use crate::{
    LinuxProvider,
    errno::error,
    object::{Execution, MemoryFile},
    pages::{
        Was, advise_wish, keep, landing_pads, map_at, map_over, page_size, pointer, protection,
        unmap,
    },
};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering},
};
use hostmem_core::{
    page::{Access, PageRange, PageSize},
    provider::{
        DualError, DualMapProvider, DualMapping, DualRequest, DualStep, DualStepError, DualSteps,
        Error, ErrorKind, Leave, PageProvider, PageWish, Placement, Request, Target, order,
        run_dual,
    },
};
use rustix::{
    fd::BorrowedFd,
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap},
};

/// Strategies before the directories in [`order::LINUX`].
const BEFORE_DIRECTORIES: usize = 2;

/// One view to be made.
struct View<'fd> {
    file: BorrowedFd<'fd>,
    protection: ProtFlags,
    len: usize,
    page: PageSize,
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
        let range = LinuxProvider::new().reserve(&request)?;
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
        let null = core::ptr::null_mut();
        // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
        let got = unsafe {
            mmap(
                null,
                self.len,
                self.protection,
                MapFlags::SHARED,
                self.file,
                0,
            )
        };
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
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: FIXED replaces what is there, which is the caller's to give up.
        match unsafe {
            mmap(
                pointer(range),
                self.len,
                self.protection,
                flags,
                self.file,
                0,
            )
        } {
            Ok(_) => Ok(()),
            Err(errno) => Err(keep(range, self.page, errno)),
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
            let restored = unsafe { map_over(range, Was::View, Access::None) };
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
    // SAFETY: this advice changes nothing in this process.
    unsafe { madvise(pointer(view), view.len_bytes(), Advice::LinuxDontFork) }.map_err(error)
}

/// Maps both views of a file, and then gives it its memory: a file system that allows no execution,
/// or an address space without room, is found out before anything is filled.
///
/// # Safety
///
/// A range in [`Target::Into`] is the caller's, and no other code uses it.
unsafe fn map_views(
    file: &MemoryFile,
    request: &DualRequest<'_>,
    execution: ProtFlags,
) -> Result<(PageRange, PageRange), DualStepError> {
    let page = file.page();
    let view = |file, protection| View {
        file,
        protection,
        len: request.len,
        page,
    };
    let rw = view(file.file(), protection(Access::ReadWrite));
    match file.execution()? {
        Execution::ReadOnly(read_only) => {
            // SAFETY: the caller's promise about Into targets.
            let rx = unsafe { view(read_only, execution).map(request.rx)? };
            // SAFETY: the caller's promise about Into targets.
            let rw = match unsafe { rw.map(request.rw) } {
                Ok(rw) => rw,
                // SAFETY: mapped above, and no other code has its address yet.
                Err(failure) => return Err(unsafe { undone(failure, rx, request.rx) }),
            };
            allocated(file, (rw, rx), request)
        }
        Execution::Sealed => {
            // SAFETY: the caller's promise about Into targets.
            let rw = unsafe { rw.map(request.rw)? };
            // A view from before the seal could be made writable.
            let sealed = file.seal().map_err(DualStepError::from);
            let rx = view(file.file(), execution);
            // SAFETY: the caller's promise about Into targets.
            match sealed.and_then(|()| unsafe { rx.map(request.rx) }) {
                Ok(rx) => allocated(file, (rw, rx), request),
                // SAFETY: mapped above, and no other code has its address yet.
                Err(failure) => Err(unsafe { undone(failure, rw, request.rw) }),
            }
        }
    }
}

/// Gives a file that both views show its memory, or takes the views back.
fn allocated(
    file: &MemoryFile,
    (rw, rx): (PageRange, PageRange),
    request: &DualRequest<'_>,
) -> Result<(PageRange, PageRange), DualStepError> {
    match file.allocate() {
        Ok(()) => Ok((rw, rx)),
        Err(error) => {
            // SAFETY: mapped just now, and no other code has its address yet.
            let failure = unsafe { undone(error.into(), rx, request.rx) };
            // SAFETY: as above.
            Err(unsafe { undone(failure, rw, request.rw) })
        }
    }
}

/// Takes a view back because of what failed after it, and notes whether its target was lost.
///
/// # Safety
///
/// The promises of [`undo`].
unsafe fn undone(mut failure: DualStepError, view: PageRange, target: Target) -> DualStepError {
    // SAFETY: the caller's promise.
    failure.lost = failure.lost.or(unsafe { undo(view, target) });
    failure
}

/// Says whether this kernel can be asked to give pages their memory (Linux 5.14 and newer).
fn populates() -> bool {
    const NO: u8 = 1;
    const YES: u8 = 2;
    static CACHED: AtomicU8 = AtomicU8::new(0);
    match CACHED.load(Ordering::Relaxed) {
        NO => false,
        YES => true,
        _ => {
            let nowhere = core::ptr::null_mut();
            // SAFETY: advice about no bytes; EINVAL says that the kernel does not know it.
            let known = unsafe { madvise(nowhere, 0, Advice::LinuxPopulateWrite) }.is_ok();
            CACHED.store(if known { YES } else { NO }, Ordering::Relaxed);
            known
        }
    }
}

/// Returns the pages of the writable view that a purge or a refill is about.
fn part_of(mapping: &DualMapping, offset: usize, len: usize) -> Result<PageRange, Error> {
    let page = mapping.page_size();
    let aligned = page.is_aligned(offset) && page.is_aligned(len);
    let part = mapping.rw().part(offset, len, page_size());
    part.filter(|_| aligned)
        .ok_or(ErrorKind::InvalidArgument.into())
}

// SAFETY: the views are shared mappings of one file that nobody else can open; protections are as
// promised; what fails is undone.
unsafe impl DualSteps for LinuxProvider {
    fn dual_order(&self, request: &DualRequest<'_>) -> &'static [DualStep] {
        let directories = self.directories().len();
        match request.pages {
            PageWish::Large { or_base: false, .. } => order::LINUX_ONLY_LARGE,
            PageWish::Large { .. } => &order::LINUX_LARGE[..1 + BEFORE_DIRECTORIES + directories],
            _ => &order::LINUX[..BEFORE_DIRECTORIES + directories],
        }
    }

    unsafe fn dual_step(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError> {
        let mut execution = protection(Access::ReadExec);
        if request.landing_pads {
            execution |= landing_pads()?;
        }
        let file = self.memory_file(step, request, page_size())?;
        // SAFETY: the caller's promise about Into targets.
        let (rw, rx) = unsafe { map_views(&file, request, execution)? };
        let page = file.page();
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
        for view in [rw, rx] {
            // SAFETY: mapped above, and no other code has its address yet.
            unsafe { advise_wish(view, request.pages) };
        }
        // SAFETY: two views of the same file, equally long, apart since both are mapped, and known
        // to nobody else.
        let mapping = unsafe { DualMapping::from_parts(rw, rx, step, page, request.fork) };
        let refills = file.refills(populates);
        file.close();
        Ok(if refills {
            mapping
        } else {
            mapping.without_purge()
        })
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
        Leave::Reserved => unsafe { map_over(view, Was::View, Access::None) },
    }
}

/// Returns both views as one range, where one begins at the end of the other: a kernel that chooses
/// their places puts them so.
fn side_by_side(mapping: &DualMapping) -> Option<PageRange> {
    let (rw, rx) = (mapping.rw(), mapping.rx());
    let first = if rw.end() == rx.addr() {
        rw
    } else if rx.end() == rw.addr() {
        rx
    } else {
        return None;
    };
    let len = rw.len_bytes().checked_add(rx.len_bytes())?;
    PageRange::new(first.start(), len, page_size())
}

// SAFETY: as for DualSteps; core's loop adds nothing but the order.
unsafe impl DualMapProvider for LinuxProvider {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        // SAFETY: the caller's promise about Into targets.
        unsafe { run_dual(self, request, page_size()) }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        if leave == Leave::Hole
            && let Some(both) = side_by_side(&mapping)
        {
            // One call takes both, or neither: the kernel cuts no mapping for it, so that it fails
            // before it changes anything.
            // SAFETY: the caller's promise.
            return unsafe { unmap(both) }.map_err(|error| (mapping, error));
        }
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
        let part = part_of(mapping, offset, len)?;
        if !mapping.purges() {
            return Err(ErrorKind::Unsupported.into());
        }
        // SAFETY: the caller's promise: no other code uses those pages. Punching them out of the
        // file empties both views.
        unsafe { madvise(pointer(part), len, Advice::LinuxRemove) }.map_err(error)
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let part = part_of(mapping, offset, len)?;
        // SAFETY: the view is mapped, by the caller's promise; this advice changes no contents.
        match unsafe { madvise(pointer(part), len, Advice::LinuxPopulateWrite) } {
            Ok(()) => Ok(()),
            // An access would have been answered by SIGBUS: the file system, the pool of large
            // pages or the memory that may be charged is used up.
            Err(Errno::FAULT) => Err(Error::os(ErrorKind::Exhausted, Errno::FAULT.raw_os_error())),
            // Kernels that do not know the advice: only what gets memory on access purges there.
            Err(Errno::INVAL) if !populates() => Ok(()),
            Err(errno) => Err(error(errno)),
        }
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
