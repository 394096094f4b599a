//! The report of a provider over a system's calls.

use super::{LargePageSize, MAX_LARGE_SIZES, Probe, Setting};
use crate::{
    page::{Access, Ceiling, PageSize, RwxOptIn},
    provider::{
        Commit, DualMapProvider, DualRequest, DualStep, DualSteps, Error, ErrorKind, Leave,
        MAX_DUAL_STEPS, PageProvider, PageWish, ProcessMap, Request,
        backend::{Calls, DualSystem, SystemProvider, address_bits},
        linux,
    },
    sync::Once,
};

/// What a system tells of itself, for people who write providers; the rest of a [`Probe`] is tried.
pub trait ProbeSystem: DualSystem {
    /// A thread's way to wait for another's probe.
    type Lock: lock_api::RawMutex + 'static;

    /// Returns where the probe of a process is kept.
    fn cached() -> &'static Once<Probe, Self::Lock>;

    /// Lists the sizes of large pages, smallest first. By default there are none.
    fn large_pages(&self) -> [Option<LargePageSize>; MAX_LARGE_SIZES] {
        [None; MAX_LARGE_SIZES]
    }

    /// Says whether other cores can be made to see new instructions. By default they cannot.
    ///
    /// # Errors
    ///
    /// Why they cannot.
    fn core_sync(&self) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Returns the setting that keeps memory from being writable and executable.
    fn deny_write_execute(&self) -> Setting;

    /// Fills in what only this system has.
    fn complete(&self, probe: &mut Probe) {
        let _ = probe;
    }
}

impl<S: ProbeSystem> SystemProvider<S> {
    /// Returns what this host allows to a provider with the default directories, found out at the
    /// first call. A process that tightens its own policy later asks
    /// [`probe_now`](SystemProvider::probe_now).
    #[must_use]
    pub fn probe() -> &'static Probe {
        S::cached().get_or_make(|| Self::new().probe_now())
    }

    /// Finds out what this host allows. Everything is tried for real, except writable and
    /// executable memory, which is never mapped; nothing is left behind.
    #[must_use]
    pub fn probe_now(&self) -> Probe {
        let system = &self.system;
        let large_pages = system.large_pages();
        let mut probe = Probe {
            page_size: system.calls().page_size(),
            large_pages,
            address_bits: address_bits(system),
            rwx: self.rwx(),
            toggle_exec: self.toggle_exec(),
            dual: self.try_steps(large_pages[0].map(|large| large.size)),
            landing_pads: Err(ErrorKind::Unsupported.into()),
            core_sync: system.core_sync(),
            deny_write_execute: system.deny_write_execute(),
            read_implies_exec: Setting::Absent,
            memfd_noexec: None,
            max_map_count: None,
            process_map: self.walk(&mut |_| false),
        };
        system.complete(&mut probe);
        probe
    }

    /// Says whether writable and executable memory could be mapped, without mapping any: the length
    /// is one that no address space has. Policy is checked before that (security modules,
    /// system-call filters), or asked for by name.
    fn rwx(&self) -> Result<(), Error> {
        if self.system.deny_write_execute() == Setting::On {
            return Err(Error::os(ErrorKind::Denied, linux::EACCES.into()));
        }
        let too_long = self.system.calls().page_size().round_down(usize::MAX / 2);
        // SAFETY: consent to what is never mapped.
        let access = Access::ReadWriteExec(unsafe { RwxOptIn::accept() });
        match self.system.calls().map_fresh(too_long, access) {
            Err(error) if self.system.is_too_long(error) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(ErrorKind::Other.into()),
        }
    }

    /// Takes a page from writable to executable.
    fn toggle_exec(&self) -> Result<(), Error> {
        let range = self.reserve(&Request::bytes(1))?;
        let how = Commit {
            ceiling: Ceiling::WriteXorExec,
            ..Commit::READ_WRITE
        };
        // SAFETY: reserved just now, and no other code has its address yet.
        let committed = unsafe { self.commit(range, how) };
        // SAFETY: committed if Ok, and no other code has its address yet.
        let toggled = committed.and_then(|_| unsafe { self.protect(range, Access::ReadExec) });
        // SAFETY: no other code has its address yet. A failure wastes a page of addresses.
        let _ = unsafe { self.release(range) };
        toggled
    }

    /// Tries every strategy for dual mappings with one page.
    fn try_steps(
        &self,
        large: Option<PageSize>,
    ) -> [Option<(DualStep, Result<(), Error>)>; MAX_DUAL_STEPS] {
        let large = large.map(PageSize::bytes);
        let wish = large.map(|bytes| PageWish::Large {
            bytes,
            or_base: true,
        });
        let request = DualRequest {
            pages: wish.unwrap_or_default(),
            ..DualRequest::bytes(self.page_size().bytes())
        };
        let mut results = [None; MAX_DUAL_STEPS];
        for (slot, &step) in results.iter_mut().zip(self.dual_order(&request)) {
            let len = large.filter(|_| step.has_large_pages());
            let len = len.unwrap_or(request.len);
            // SAFETY: neither target is a range of anybody's.
            let works = match unsafe { self.dual_step(step, &DualRequest { len, ..request }) } {
                Ok(mapping) => {
                    // SAFETY: mapped just now, and no other code has its address yet.
                    unsafe { self.unmap_dual(mapping, Leave::Hole) }.map_err(|(_, error)| error)
                }
                Err(failure) => Err(failure.error),
            };
            *slot = Some((step, works));
        }
        results
    }
}
