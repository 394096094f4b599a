//! What this host allows, found by asking it.

use crate::{
    pages::{Linux, NAMES, landing_pads, takes_page_advice},
    raw,
    sync::OsLock,
};
use core::{ffi::CStr, mem::MaybeUninit};
use hostmem_core::{
    page::PageSize,
    probe::{LargePageSize, MAX_LARGE_SIZES, Probe, ProbeSystem, Setting},
    provider::{Capabilities, Error, ErrorKind, backend::Answer},
    sync::Once,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, RawDir, open, openat},
    io::{Errno, read},
    thread::{MembarrierCommand, membarrier_query},
};

const LARGE_PAGES: &CStr = c"/sys/kernel/mm/hugepages";

impl ProbeSystem for Linux {
    type Lock = OsLock;

    fn cached() -> &'static Once<Probe, OsLock> {
        static CACHED: Once<Probe, OsLock> = Once::new();
        &CACHED
    }

    fn large_pages(&self) -> [Option<LargePageSize>; MAX_LARGE_SIZES] {
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
            let mut large = LargePageSize::of_size(size);
            large.total = read_number(Some(&pool), c"nr_hugepages");
            large.free = read_number(Some(&pool), c"free_hugepages");
            *slot = Some(large);
        }
        found.sort_unstable_by_key(|large| large.map_or(usize::MAX, |large| large.size.bytes()));
        found
    }

    fn core_sync(&self) -> Result<(), Error> {
        let query = membarrier_query();
        if query.contains_command(MembarrierCommand::PrivateExpeditedSyncCore) {
            Ok(())
        } else {
            Err(ErrorKind::Unsupported.into())
        }
    }

    fn deny_write_execute(&self) -> Setting {
        setting(raw::denies_exec_gain())
    }

    fn complete(&self, probe: &mut Probe) {
        probe.landing_pads = landing_pads().map(drop);
        probe.read_implies_exec = setting(raw::read_implies_exec());
        let noexec = read_number(None, c"/proc/sys/vm/memfd_noexec");
        probe.memfd_noexec = noexec.and_then(|n| u8::try_from(n).ok());
        probe.max_map_count = read_number(None, c"/proc/sys/vm/max_map_count");
    }
}

/// Tells how a setting is; one that cannot be asked for is absent.
fn setting(is_on: Result<bool, Errno>) -> Setting {
    match is_on {
        Ok(true) => Setting::On,
        Ok(false) => Setting::Off,
        Err(_) => Setting::Absent,
    }
}

/// Returns which of `wanted` can be done as far as the kernel tells when asked, and asks it for
/// nothing else. Nothing is tried, since a filter may punish trying: the probe does that, for who
/// wants to know.
pub(crate) fn capabilities_among(wanted: Capabilities) -> Capabilities {
    static LANDING_PADS: Answer = Answer::new();
    static CORE_SYNC: Answer = Answer::new();
    static LARGE_PAGES: Answer = Answer::new();
    static ADVICE: Answer = Answer::new();
    let found = LANDING_PADS.filter(wanted, Capabilities::LANDING_PADS, || {
        landing_pads().is_ok()
    });
    let found = CORE_SYNC.filter(found, Capabilities::CORE_SYNC, || Linux.core_sync().is_ok());
    let has_large_pages = || Linux.large_pages()[0].is_some();
    let mut found = LARGE_PAGES.filter(found, Capabilities::LARGE_PAGES, has_large_pages);
    let gained = Capabilities::RWX | Capabilities::TOGGLE_EXEC;
    if wanted.intersects(gained) && raw::denies_exec_gain() == Ok(true) {
        found.remove(gained);
    }
    // Not known is not promised. Asked every time, since a thread can change it.
    if found.contains(Capabilities::EXEC_ONLY_WHERE_ASKED) && raw::read_implies_exec() != Ok(false)
    {
        found.remove(Capabilities::EXEC_ONLY_WHERE_ASKED);
    }
    let found = NAMES.filter(found, Capabilities::NAMES, raw::keeps_names);
    ADVICE.filter(found, Capabilities::PAGE_ADVICE, takes_page_advice)
}

/// Returns the page size in a name like `hugepages-2048kB`.
fn size_in(name: &[u8]) -> Option<PageSize> {
    let digits = name.strip_prefix(b"hugepages-")?.strip_suffix(b"kB")?;
    PageSize::new(number(digits)?.checked_mul(1024)?)
}

/// Reads a number, with white space around it.
pub(crate) fn number(digits: &[u8]) -> Option<usize> {
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
