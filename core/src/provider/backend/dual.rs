//! What a provider does with the calls for dual mappings.

use super::{
    System, SystemProvider, both_or_neither, order_for,
    views::{hide_views, leave_views, part_of, reserve_lost},
};
use crate::{
    page::{PageRange, PageSize},
    provider::{
        DualError, DualMapProvider, DualMapping, DualRequest, DualStep, DualStepError, DualSteps,
        Error, ErrorKind, Leave, PageProvider, run_dual,
    },
};
use core::ffi::CStr;

/// Both views of a dual mapping that was made just now.
#[derive(Clone, Copy, Debug)]
pub struct MappedViews {
    /// The writable and the executable view.
    pub both: (PageRange, PageRange),
    /// The size of the pages got.
    pub page: PageSize,
    /// Whether [`DualSystem::purge_dual`] serves the mapping.
    pub purges: bool,
}

/// The calls of a system for dual mappings.
///
/// # Safety
///
/// The promises of [`DualMapProvider`], for what [`DualSystem::map_views`] maps; what the other
/// calls say.
pub unsafe trait DualSystem: System {
    /// The system.
    const SYSTEM: Self;

    /// Whether pages can be asked to refuse indirect branches that do not land on a landing pad.
    const LANDING_PADS: bool = false;

    /// The strategies to try, best first: where the host's pages are asked for, where large ones
    /// are and the host's will do, and where only large ones will do; directories come last.
    const ORDERS: [&'static [DualStep]; 3];

    /// Returns the strategies to try, best first, where `directories` directories were given; see
    /// [`DualSteps::dual_order`]. By default those of [`DualSystem::ORDERS`].
    fn dual_order(&self, request: &DualRequest<'_>, directories: usize) -> &'static [DualStep] {
        order_for(Self::ORDERS, request, directories)
    }

    /// Says whether a strategy wants a hole; see [`DualSteps::wants_hole`].
    fn wants_hole(&self, step: DualStep) -> bool {
        let _ = step;
        false
    }

    /// Maps the views by one strategy; `directory` is the one that [`DualStep::Directory`] means.
    /// What fails is undone.
    ///
    /// # Errors
    ///
    /// What the system says, and whether a target range was lost.
    ///
    /// # Safety
    ///
    /// A range in [`Target::Into`](crate::provider::Target::Into) is the caller's, and no other
    /// code uses it.
    unsafe fn map_views(
        &self,
        step: DualStep,
        directory: Option<&CStr>,
        request: &DualRequest<'_>,
    ) -> Result<MappedViews, DualStepError>;

    /// Gives pages of a writable view back, whose mapping [purges](DualMapping::purges).
    ///
    /// # Errors
    ///
    /// What the system says; by default [`ErrorKind::Unsupported`], since most have no advice that
    /// empties pages of a shared object.
    ///
    /// # Safety
    ///
    /// See [`DualMapProvider::purge_dual`].
    unsafe fn purge_dual(&self, pages: PageRange) -> Result<(), Error> {
        let _ = pages;
        Err(ErrorKind::Unsupported.into())
    }

    /// Gives pages of a writable view memory after they were purged. By default nothing was.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Safety
    ///
    /// See [`DualMapProvider::refill_dual`].
    unsafe fn refill_dual(&self, pages: PageRange) -> Result<(), Error> {
        let _ = pages;
        Ok(())
    }
}

// SAFETY: the views are what the system promises; what fails is undone.
unsafe impl<S: DualSystem> DualSteps for SystemProvider<S> {
    fn dual_order(&self, request: &DualRequest<'_>) -> &'static [DualStep] {
        self.system.dual_order(request, self.directories.len())
    }

    fn wants_hole(&self, step: DualStep) -> bool {
        self.system.wants_hole(step)
    }

    unsafe fn dual_step(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError> {
        let directory = match step {
            DualStep::Directory(n) => {
                let directory = self.directories.get(usize::from(n));
                Some(*directory.ok_or(Error::of(ErrorKind::Unsupported))?)
            }
            _ => None,
        };
        if request.landing_pads && !S::LANDING_PADS {
            return Err(Error::of(ErrorKind::Unsupported).into());
        }
        // SAFETY: a target range is the caller's, and no other code uses it.
        let views = unsafe { self.system.map_views(step, directory, request)? };
        let both = views.both;
        // SAFETY: mapped above, and no other code has their addresses yet.
        let hidden = unsafe { hide_views(&self.system, both, request) };
        // SAFETY: mapped above, and no other code has their addresses yet.
        let (rw, rx) = unsafe { both_or_neither(&self.system, both, request, hidden)? };
        for view in [rw, rx] {
            // SAFETY: mapped above, and no other code has its address yet.
            unsafe { self.system.advise(view, request.pages) };
        }
        // SAFETY: two views of the same pages, equally long, apart since both are mapped, and no
        // other code has their addresses yet.
        let mapping = unsafe { DualMapping::from_parts(rw, rx, step, views.page, request.fork) };
        Ok(if views.purges {
            mapping
        } else {
            mapping.without_purge()
        })
    }
}

// SAFETY: DualSteps, implemented above, keeps the promises; the loop over its strategies adds their
// order alone.
unsafe impl<S: DualSystem> DualMapProvider for SystemProvider<S> {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        // SAFETY: a target range is the caller's, and no other code uses it.
        unsafe { run_dual(self, request, self.page_size()) }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        // SAFETY: the mapping came from this provider, and no other code uses either view.
        let result = unsafe { leave_views(&self.system, &mapping, leave) };
        result.map_err(|error| (mapping, error))
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let pages = part_of(mapping, offset, len, self.page_size())?;
        if !mapping.purges() {
            return Err(ErrorKind::Unsupported.into());
        }
        // SAFETY: the mapping came from this provider, and no other code uses those pages.
        unsafe { self.system.purge_dual(pages) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let pages = part_of(mapping, offset, len, self.page_size())?;
        // SAFETY: the mapping came from this provider.
        unsafe { self.system.refill_dual(pages) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        reserve_lost(&self.system, mapping)
    }
}
