//! What this host allows, found by asking it.

use crate::{
    NetBsdProvider,
    errno::error,
    map::sysctl_int,
    pages::{address_bits, page_size, protection},
    sync::{OsLock, core_sync},
};
use core::ffi::c_int;
use hostmem_core::{
    page::{Access, Ceiling, RwxOptIn},
    probe::{MAX_LARGE_SIZES, Probe, Setting},
    provider::{
        Capabilities, Commit, DualMapProvider, DualRequest, DualStep, DualSteps, Error, ErrorKind,
        Leave, MAX_DUAL_STEPS, PageProvider, ProcessMap, Request,
    },
    sync::Once,
};
use rustix::{
    io::Errno,
    mm::{MapFlags, mmap_anonymous},
};

/// `PROC_PID_PAXFLAGS` of `sys/sysctl.h`.
const PROC_PID_PAXFLAGS: c_int = 6;
/// `CTL_PROC_PAXFLAGS_MPROTECT`.
const PAXFLAGS_MPROTECT: c_int = 2;

/// What every NetBSD has. Code can be toggled under PaX too, where the commit's ceiling says so.
const CAPABILITIES: Capabilities = Capabilities::TOGGLE_EXEC
    .union(Capabilities::RWX)
    .union(Capabilities::DUAL)
    .union(Capabilities::EXEC_ONLY_WHERE_ASKED);

impl NetBsdProvider {
    /// Returns what this host allows to a provider with the default directories, found out at the
    /// first call. A process that tightens its own policy later asks [`NetBsdProvider::probe_now`].
    #[must_use]
    pub fn probe() -> &'static Probe {
        static CACHED: Once<Probe, OsLock> = Once::new();
        CACHED.get_or_make(|| Self::new().probe_now())
    }

    /// Finds out what this host allows. Everything is tried for real, except writable and
    /// executable memory, which is never mapped; nothing is left behind.
    #[must_use]
    pub fn probe_now(&self) -> Probe {
        Probe {
            page_size: page_size(),
            large_pages: [None; MAX_LARGE_SIZES],
            address_bits: address_bits(),
            rwx: rwx(),
            toggle_exec: self.toggle_exec(),
            dual: self.try_steps(),
            landing_pads: Err(ErrorKind::Unsupported.into()),
            core_sync: core_sync(),
            deny_write_execute: pax_mprotect(),
            read_implies_exec: Setting::Absent,
            memfd_noexec: None,
            max_map_count: None,
            process_map: self.walk(&mut |_| false),
        }
    }

    /// Returns what can be done as far as the kernel tells when asked. Nothing is tried: the probe
    /// does that, for who wants to know.
    pub(crate) fn current_capabilities(&self) -> Capabilities {
        match pax_mprotect() {
            Setting::On => CAPABILITIES.difference(Capabilities::RWX),
            _ => CAPABILITIES,
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
        // SAFETY: as above; committed if Ok.
        let toggled = committed.and_then(|_| unsafe { self.protect(range, Access::ReadExec) });
        // SAFETY: as above. A failure wastes a page of addresses.
        let _ = unsafe { self.release(range) };
        toggled
    }

    /// Tries every strategy for dual mappings with one page.
    fn try_steps(&self) -> [Option<(DualStep, Result<(), Error>)>; MAX_DUAL_STEPS] {
        let request = DualRequest::bytes(page_size().bytes());
        let mut results = [None; MAX_DUAL_STEPS];
        for (slot, &step) in results.iter_mut().zip(self.dual_order(&request)) {
            // SAFETY: neither target is a range of anybody's.
            let works = match unsafe { self.dual_step(step, &request) } {
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

/// Says whether PaX MPROTECT is on for this process.
fn pax_mprotect() -> Setting {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    match sysctl_int(&[libc::CTL_PROC, process, PROC_PID_PAXFLAGS]) {
        None => Setting::Absent,
        Some(flags) if flags & PAXFLAGS_MPROTECT != 0 => Setting::On,
        Some(_) => Setting::Off,
    }
}

/// Says whether writable and executable memory could be mapped, without mapping any: the length is
/// one that no address space has. Policy is checked before that, or asked for by name.
fn rwx() -> Result<(), Error> {
    if pax_mprotect() == Setting::On {
        return Err(Error::os(ErrorKind::Denied, Errno::ACCESS.raw_os_error()));
    }
    let too_long = page_size().round_down(usize::MAX / 2);
    // SAFETY: consent to what is never mapped.
    let access = protection(Access::ReadWriteExec(unsafe { RwxOptIn::accept() }));
    // SAFETY: a new mapping, if there were one; nothing is replaced.
    match unsafe { mmap_anonymous(core::ptr::null_mut(), too_long, access, MapFlags::PRIVATE) } {
        Err(Errno::NOMEM) => Ok(()),
        Err(errno) => Err(error(errno)),
        Ok(_) => Err(ErrorKind::Other.into()),
    }
}
