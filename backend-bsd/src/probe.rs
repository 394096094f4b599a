//! What this host allows, found by asking it.

#[cfg(target_os = "dragonfly")]
mod dragonfly;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "dragonfly")]
use dragonfly as host;
#[cfg(target_os = "freebsd")]
use freebsd as host;
#[cfg(target_os = "openbsd")]
use openbsd as host;

use crate::{
    BsdProvider,
    errno::error,
    pages::{address_bits, page_size, protection},
    sync::{OsLock, core_sync},
};
use core::sync::atomic::{AtomicU32, Ordering};
use hostmem_core::{
    page::{Access, Ceiling, PageSize, RwxOptIn},
    probe::{Probe, Setting},
    provider::{
        Capabilities, Commit, DualMapProvider, DualRequest, DualStep, DualSteps, Error, ErrorKind,
        Leave, MAX_DUAL_STEPS, PageProvider, PageWish, ProcessMap, Request,
    },
    sync::Once,
};
use rustix::{
    io::Errno,
    mm::{MapFlags, mmap_anonymous},
};

/// The strategies of this system for each wish.
pub(crate) struct Order {
    pub(crate) base: &'static [DualStep],
    pub(crate) large: &'static [DualStep],
    pub(crate) only_large: &'static [DualStep],
}

pub(crate) use host::ORDER;

impl BsdProvider {
    /// Returns what this host allows to a provider with the default directories, found out at the
    /// first call. A process that tightens its own policy later asks [`BsdProvider::probe_now`].
    #[must_use]
    pub fn probe() -> &'static Probe {
        static CACHED: Once<Probe, OsLock> = Once::new();
        CACHED.get_or_make(|| Self::new().probe_now())
    }

    /// Finds out what this host allows. Everything is tried for real, except writable and
    /// executable memory, which is never mapped; nothing is left behind.
    #[must_use]
    pub fn probe_now(&self) -> Probe {
        let large_pages = host::large_pages();
        Probe {
            page_size: page_size(),
            large_pages,
            address_bits: address_bits(),
            rwx: rwx(),
            toggle_exec: self.toggle_exec(),
            dual: self.try_steps(large_pages[0].map(|large| large.size)),
            landing_pads: Err(ErrorKind::Unsupported.into()),
            core_sync: core_sync(),
            deny_write_execute: host::deny_write_execute(),
            read_implies_exec: Setting::Absent,
            memfd_noexec: None,
            max_map_count: None,
            process_map: self.walk(&mut |_| false),
        }
    }

    /// Returns what can be done as far as the kernel tells when asked. Nothing is tried: the probe
    /// does that, for who wants to know.
    pub(crate) fn current_capabilities(&self) -> Capabilities {
        let mut found = host_capabilities();
        if host::deny_write_execute() == Setting::On {
            found.remove(Capabilities::RWX);
        }
        found
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
        // SAFETY: as above; committed if Ok.
        let toggled = committed.and_then(|_| unsafe { self.protect(range, Access::ReadExec) });
        // SAFETY: as above. A failure wastes a page of addresses.
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
            ..DualRequest::bytes(page_size().bytes())
        };
        let mut results = [None; MAX_DUAL_STEPS];
        for (slot, &step) in results.iter_mut().zip(self.dual_order(&request)) {
            let len = large
                .filter(|_| step == DualStep::AnonShmLarge)
                .unwrap_or(request.len);
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

/// Returns what does not change while a process runs, found out at the first call.
fn host_capabilities() -> Capabilities {
    /// Set when the rest is valid.
    const KNOWN: u32 = 1 << 31;
    static CACHED: AtomicU32 = AtomicU32::new(0);
    let cached = CACHED.load(Ordering::Relaxed);
    if cached & KNOWN != 0 {
        return Capabilities::from_bits_truncate(cached);
    }
    let mut found = host::CAPABILITIES;
    found.set(Capabilities::CORE_SYNC, core_sync().is_ok());
    found.set(Capabilities::LARGE_PAGES, host::large_pages()[0].is_some());
    CACHED.store(found.bits() | KNOWN, Ordering::Relaxed);
    found
}

/// Says whether writable and executable memory could be mapped, without mapping any: the length is
/// one that no address space has. Policy is checked before that, or asked for by name.
fn rwx() -> Result<(), Error> {
    if host::deny_write_execute() == Setting::On {
        return Err(Error::os(ErrorKind::Denied, Errno::ACCESS.raw_os_error()));
    }
    let too_long = page_size().round_down(usize::MAX / 2);
    // SAFETY: consent to what is never mapped.
    let access = protection(Access::ReadWriteExec(unsafe { RwxOptIn::accept() }));
    // SAFETY: a new mapping, if there were one; nothing is replaced.
    match unsafe { mmap_anonymous(core::ptr::null_mut(), too_long, access, MapFlags::PRIVATE) } {
        Err(Errno::NOMEM | Errno::INVAL) => Ok(()),
        Err(errno) => Err(error(errno)),
        Ok(_) => Err(ErrorKind::Other.into()),
    }
}
