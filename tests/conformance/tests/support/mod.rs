//! Providers with one fault each, to see that the suite finds it.

mod views;

use hostmem_core::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Clock, Commit, CoreSync, DualError, DualMapProvider, DualMapping,
        DualRequest, DualStep, DualStepError, DualSteps, Error, ErrorKind, Leave, MapEntry,
        PageProvider, Place, ProcessMap, Request, Target,
    },
};
use hostmem_linux::LinuxProvider;
use std::{
    fs::File,
    os::fd::{FromRawFd, OwnedFd},
};

/// What is wrong with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    DecommitKeepsContents,
    ReleaseDoesNothing,
    ProtectDoesNothing,
    GuardsAreAccessible,
    ZeroLengthIsAPage,
    ExactReplaces,
    FailedExactUnmaps,
    HintIsIgnored,
    NearIsIgnored,
    WithinIsIgnored,
    AlignmentIsIgnored,
    ViewsShowDifferentPages,
    ExecutableViewIsWritable,
    ExecutableViewCanBecomeWritable,
    WritableViewIsExecutable,
    PurgeDoesNothing,
    PurgeTakesTooMuch,
    ReservedViewsAreHoles,
    FailedDualReleasesTargets,
    FailedDualLeaksAView,
    ChildrenShare,
    ChildrenLoseBoth,
    ForkChildDoesNothing,
    DetachingKeepsThePages,
    DescriptorsLeak,
    DescriptorsSurviveExec,
}

/// Linux with a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faulted {
    inner: LinuxProvider,
    fault: Fault,
}

impl Faulted {
    pub(crate) const fn new(fault: Fault) -> Self {
        Self {
            inner: LinuxProvider::new(),
            fault,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Maps over or unmaps whatever lies at an exact place.
    fn ruin(&self, request: &Request<'_>, unmap: bool) -> Option<PageRange> {
        let plan = request.plan(self.page_size()).ok()?;
        let Place::Exact(base) = plan.place() else {
            return None;
        };
        let start = core::ptr::NonNull::new(core::ptr::with_exposed_provenance_mut(base))?;
        let range = PageRange::new(start, plan.total(), self.page_size())?;
        if unmap {
            // SAFETY: none: this is the fault. The cases that it is run with own the place.
            unsafe { self.inner.release(range) }.ok()?;
        } else {
            // SAFETY: none: this is the fault. The cases that it is run with own the place.
            unsafe { self.inner.decommit(range) }.ok()?;
        }
        Some(range)
    }
}

// SAFETY: none: every value but that without a fault breaks one promise.
unsafe impl PageProvider for Faulted {
    fn page_size(&self) -> PageSize {
        self.inner.page_size()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let mut changed = *request;
        let placement = &mut changed.placement;
        match (self.fault, placement.place) {
            (Fault::ZeroLengthIsAPage, _) => changed.len = changed.len.max(1),
            (Fault::HintIsIgnored, Place::Hint(_)) => placement.place = Place::Anywhere,
            (Fault::NearIsIgnored, Place::Near(_)) => placement.place = Place::Anywhere,
            (Fault::WithinIsIgnored, _) => placement.within = AddressRange::ALL,
            (Fault::AlignmentIsIgnored, _) => placement.align = 1,
            _ => {}
        }
        let result = self.inner.reserve(&changed);
        match (self.fault, &result) {
            (Fault::ExactReplaces, Err(e)) if e.kind() == ErrorKind::Taken => {
                return self.ruin(request, false).ok_or(*e);
            }
            (Fault::FailedExactUnmaps, Err(e)) if e.kind() == ErrorKind::Taken => {
                self.ruin(request, true);
            }
            (Fault::GuardsAreAccessible, Ok(range)) => {
                // SAFETY: reserved just now, and no other code has its address yet.
                unsafe { self.inner.commit(*range, Commit::READ_WRITE) }?;
            }
            _ => {}
        }
        result
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // SAFETY: the caller vouches for reserved pages that are its own.
        unsafe { self.inner.commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        if self.has(Fault::ProtectDoesNothing) {
            return Ok(());
        }
        // SAFETY: the caller vouches for committed pages that no other code uses meanwhile.
        unsafe { self.inner.protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        if self.has(Fault::DecommitKeepsContents) {
            // SAFETY: the caller vouches for committed pages that no other code uses meanwhile.
            return unsafe { self.inner.protect(range, Access::None) };
        }
        // SAFETY: the caller vouches for committed pages that no other code uses.
        unsafe { self.inner.decommit(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        if self.has(Fault::ReleaseDoesNothing) {
            return Ok(());
        }
        // SAFETY: the caller vouches for reserved pages that no other code uses.
        unsafe { self.inner.release(range) }
    }
}

// SAFETY: as for PageProvider.
unsafe impl DualMapProvider for Faulted {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        if let Some(wrong) = self.wrong_views(request) {
            return wrong;
        }
        // SAFETY: the caller vouches for targets that no other code uses.
        let result = unsafe { self.inner.map_dual(request) };
        match (self.fault, &result) {
            (Fault::FailedDualReleasesTargets, Err(_)) => {
                for target in [request.rw, request.rx] {
                    if let Target::Into(range) = target {
                        // SAFETY: none: that the caller loses the range is the fault.
                        unsafe { self.inner.release(range) }?;
                    }
                }
            }
            (Fault::FailedDualLeaksAView, Err(_)) => {
                if let Target::Find(placement) = request.rw {
                    let leaked = Request::bytes(request.len).placement(placement);
                    let _ = self.inner.reserve(&leaked);
                }
            }
            _ => {}
        }
        result
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        let leave = match (self.fault, leave) {
            (Fault::ReservedViewsAreHoles, _) => Leave::Hole,
            (Fault::DetachingKeepsThePages, Leave::Reserved) => return Ok(()),
            (_, leave) => leave,
        };
        // SAFETY: the caller vouches for views that no other code uses.
        unsafe { self.inner.unmap_dual(mapping, leave) }
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let (offset, len) = match self.fault {
            Fault::PurgeDoesNothing => return Ok(()),
            Fault::PurgeTakesTooMuch => (0, mapping.len_bytes()),
            _ => (offset, len),
        };
        // SAFETY: the caller vouches for pages of the mapping that no other code uses meanwhile.
        unsafe { self.inner.purge_dual(mapping, offset, len) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the caller vouches for pages of the mapping that no other code uses meanwhile.
        unsafe { self.inner.refill_dual(mapping, offset, len) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        if self.has(Fault::ForkChildDoesNothing) || self.has(Fault::DetachingKeepsThePages) {
            return Ok(());
        }
        // SAFETY: the caller is the only thread of a forked child, and calls once.
        unsafe { self.inner.fork_child_dual(mapping) }
    }
}

// SAFETY: as for PageProvider.
unsafe impl DualSteps for Faulted {
    fn dual_order(&self, request: &DualRequest<'_>) -> &'static [DualStep] {
        self.inner.dual_order(request)
    }

    unsafe fn dual_step(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError> {
        // SAFETY: the path is a C string. Without O_CLOEXEC, which is the fault.
        let open = || unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
        // SAFETY: opened just now, and no other code's.
        let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        let _open = self.has(Fault::DescriptorsSurviveExec).then(|| own(open()));
        if self.has(Fault::DescriptorsLeak) {
            std::mem::forget(File::open("/dev/null"));
        }
        if let Some(wrong) = self.wrong_views(request) {
            return wrong.map_err(|error| error.cause().into());
        }
        // SAFETY: the caller vouches for targets that no other code uses.
        unsafe { self.inner.dual_step(step, request) }
    }
}

// SAFETY: the inner provider keeps the promise.
unsafe impl CoreSync for Faulted {
    fn sync_cores(&self) -> Result<(), Error> {
        self.inner.sync_cores()
    }
}

impl Clock for Faulted {
    fn now_ms(&self) -> Option<u64> {
        self.inner.now_ms()
    }
}

impl ProcessMap for Faulted {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.inner.walk(visit)
    }
}
