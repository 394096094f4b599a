//! What this host allows, found by asking it.

use crate::{
    LinuxProvider,
    errno::error,
    pages::{address_bits, keeps_names, landing_pads, page_size, protection, takes_page_advice},
    raw,
    sync::OsLock,
};
use core::{
    ffi::CStr,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, Ordering},
};
use hostmem_core::{
    page::{Access, Ceiling, PageSize, RwxOptIn},
    probe::{LargePages, MAX_LARGE_SIZES, Probe, Setting},
    provider::{
        Capabilities, Commit, DualMapProvider, DualRequest, DualStep, DualSteps, Error, ErrorKind,
        Leave, MAX_DUAL_STEPS, PageProvider, PageWish, ProcessMap, Request,
    },
    sync::Once,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, RawDir, open, openat},
    io::{Errno, read},
    mm::{MapFlags, mmap_anonymous},
    thread::{MembarrierCommand, membarrier_query},
};

const LARGE_PAGES: &CStr = c"/sys/kernel/mm/hugepages";

impl LinuxProvider {
    /// Returns what this host allows to a provider with the default directories, found out at the
    /// first call. A process that tightens its own policy later asks [`LinuxProvider::probe_now`].
    #[must_use]
    pub fn probe() -> &'static Probe {
        static CACHED: Once<Probe, OsLock> = Once::new();
        CACHED.get_or_make(|| Self::new().probe_now())
    }

    /// Finds out what this host allows. Everything is tried for real, except writable and
    /// executable memory, which is never mapped; nothing is left behind.
    #[must_use]
    pub fn probe_now(&self) -> Probe {
        let large_pages = large_pages();
        Probe {
            page_size: page_size(),
            large_pages,
            address_bits: address_bits(),
            rwx: rwx(),
            toggle_exec: self.toggle_exec(),
            dual: self.try_steps(large_pages[0].map(|large| large.size)),
            landing_pads: landing_pads().map(drop),
            core_sync: core_sync(),
            deny_write_execute: match raw::denies_exec_gain() {
                Ok(true) => Setting::On,
                Ok(false) => Setting::Off,
                Err(_) => Setting::Absent,
            },
            read_implies_exec: match raw::read_implies_exec() {
                Ok(true) => Setting::On,
                Ok(false) => Setting::Off,
                Err(_) => Setting::Absent,
            },
            memfd_noexec: read_number(None, c"/proc/sys/vm/memfd_noexec")
                .and_then(|n| u8::try_from(n).ok()),
            max_map_count: read_number(None, c"/proc/sys/vm/max_map_count"),
            process_map: self.walk(&mut |_| false),
        }
    }

    /// Returns what can be done as far as the kernel tells when asked. Nothing is tried, since a
    /// filter may punish trying: the probe does that, for who wants to know.
    pub(crate) fn current_capabilities(&self) -> Capabilities {
        self.capabilities_of(Capabilities::all())
    }

    /// Returns which of `wanted` can be done, as [`LinuxProvider::current_capabilities`] does, and
    /// asks the kernel for nothing else.
    pub(crate) fn capabilities_of(&self, wanted: Capabilities) -> Capabilities {
        let mut found = host_capabilities(wanted);
        let gained = Capabilities::RWX | Capabilities::TOGGLE_EXEC;
        if wanted.intersects(gained) && raw::denies_exec_gain() == Ok(true) {
            found.remove(gained);
        }
        // Not known is not promised. Asked every time, since a thread can change it.
        let asked = wanted.contains(Capabilities::EXEC_ONLY_WHERE_ASKED);
        let explicit = asked && raw::read_implies_exec() == Ok(false);
        found.set(Capabilities::EXEC_ONLY_WHERE_ASKED, explicit);
        let of = |one| wanted.contains(one);
        found.set(Capabilities::CORE_FILES, of(Capabilities::CORE_FILES));
        let names = of(Capabilities::NAMES) && keeps_names();
        found.set(Capabilities::NAMES, names);
        let advice = of(Capabilities::PAGE_ADVICE) && takes_page_advice();
        found.set(Capabilities::PAGE_ADVICE, advice);
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
                .filter(|_| step == DualStep::MemfdLarge)
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

/// Returns which of `wanted` the host has. Each that has to be asked for, and does not change while
/// a process runs, is asked for once.
fn host_capabilities(wanted: Capabilities) -> Capabilities {
    static KNOWN: AtomicU32 = AtomicU32::new(0);
    static FOUND: AtomicU32 = AtomicU32::new(0);
    let asked: [(Capabilities, fn() -> bool); 3] = [
        (Capabilities::LANDING_PADS, || landing_pads().is_ok()),
        (Capabilities::CORE_SYNC, || core_sync().is_ok()),
        (Capabilities::LARGE_PAGES, || large_pages()[0].is_some()),
    ];
    let known = Capabilities::from_bits_truncate(KNOWN.load(Ordering::Acquire));
    let mut absent = Capabilities::empty();
    for (capability, ask) in asked {
        if wanted.contains(capability) && !known.contains(capability) {
            if ask() {
                FOUND.fetch_or(capability.bits(), Ordering::Relaxed);
            }
            KNOWN.fetch_or(capability.bits(), Ordering::Release);
        }
        absent |= capability;
    }
    absent -= Capabilities::from_bits_truncate(FOUND.load(Ordering::Relaxed));
    wanted - absent
}

/// Says whether writable and executable memory could be mapped, without mapping any: the length is
/// one that no address space has. Policy is checked before that (security modules, system-call
/// filters), or asked for by name (memory-deny-write-execute).
fn rwx() -> Result<(), Error> {
    if raw::denies_exec_gain() == Ok(true) {
        return Err(Error::os(ErrorKind::Denied, Errno::ACCESS.raw_os_error()));
    }
    let too_long = page_size().round_down(usize::MAX / 2);
    // SAFETY: consent to what is never mapped.
    let access = protection(Access::ReadWriteExec(unsafe { RwxOptIn::accept() }));
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping, if there were one; nothing is replaced.
    match unsafe { mmap_anonymous(core::ptr::null_mut(), too_long, access, flags) } {
        Err(Errno::NOMEM) => Ok(()),
        Err(errno) => Err(error(errno)),
        Ok(_) => Err(ErrorKind::Other.into()),
    }
}

fn core_sync() -> Result<(), Error> {
    let query = membarrier_query();
    if query.contains_command(MembarrierCommand::PrivateExpeditedSyncCore) {
        Ok(())
    } else {
        Err(ErrorKind::Unsupported.into())
    }
}

/// Lists the sizes of large pages, smallest first.
fn large_pages() -> [Option<LargePages>; MAX_LARGE_SIZES] {
    let mut found = [None; MAX_LARGE_SIZES];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = open(LARGE_PAGES, flags, Mode::empty()) else {
        return found;
    };
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&directory, &mut buffer);
    let mut slots = found.iter_mut();
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        let Some(size) = size_in(name.to_bytes()) else {
            continue;
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(pool) = openat(&directory, name, flags, Mode::empty()) else {
            continue;
        };
        let Some(slot) = slots.next() else { break };
        *slot = Some(LargePages {
            size,
            total: read_number(Some(&pool), c"nr_hugepages"),
            free: read_number(Some(&pool), c"free_hugepages"),
        });
    }
    found.sort_unstable_by_key(|large| large.map_or(usize::MAX, |large| large.size.bytes()));
    found
}

/// Returns the page size in a name like `hugepages-2048kB`.
fn size_in(name: &[u8]) -> Option<PageSize> {
    let digits = name.strip_prefix(b"hugepages-")?.strip_suffix(b"kB")?;
    PageSize::new(number(digits)?.checked_mul(1024)?)
}

fn number(digits: &[u8]) -> Option<usize> {
    core::str::from_utf8(digits).ok()?.trim_ascii().parse().ok()
}

/// Reads a file that holds one number.
pub(crate) fn read_number(directory: Option<&OwnedFd>, path: &CStr) -> Option<usize> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = match directory {
        Some(directory) => openat(directory, path, flags, Mode::empty()),
        None => open(path, flags, Mode::empty()),
    };
    let mut text = [0; 32];
    let len = read(file.ok()?.as_fd(), &mut text).ok()?;
    number(text.get(..len)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_names() {
        assert_eq!(size_in(b"hugepages-2048kB"), PageSize::new(2 << 20));
        assert_eq!(size_in(b"hugepages-1048576kB"), PageSize::new(1 << 30));
        for other in [
            &b"hugepages-3kB"[..],
            b"hugepages-kB",
            b".",
            b"hugepages-99999999999999999999kB",
        ] {
            assert_eq!(size_in(other), None);
        }
    }
}
