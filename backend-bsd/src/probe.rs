//! What this host allows, found by asking it.

use crate::{host, pages::Bsd, sync::OsLock};
use hostmem_core::{
    probe::{LargePageSize, MAX_LARGE_SIZES, Probe, ProbeSystem, Setting},
    provider::{Capabilities, Error, backend::Answer},
    sync::Once,
};

impl ProbeSystem for Bsd {
    type Lock = OsLock;

    fn cached() -> &'static Once<Probe, OsLock> {
        static CACHED: Once<Probe, OsLock> = Once::new();
        &CACHED
    }

    fn large_pages(&self) -> [Option<LargePageSize>; MAX_LARGE_SIZES] {
        host::large_pages()
    }

    fn core_sync(&self) -> Result<(), Error> {
        host::core_sync()
    }

    fn deny_write_execute(&self) -> Setting {
        host::deny_write_execute()
    }
}

/// Returns which of `wanted` can be done as far as the kernel tells when asked. Nothing is tried:
/// the probe does that, for who wants to know.
pub(crate) fn capabilities_among(wanted: Capabilities) -> Capabilities {
    static CORE_SYNC: Answer = Answer::new();
    static LARGE_PAGES: Answer = Answer::new();
    let all = host::CAPABILITIES | Capabilities::CORE_SYNC | Capabilities::LARGE_PAGES;
    let found = CORE_SYNC.filter(all & wanted, Capabilities::CORE_SYNC, || {
        host::core_sync().is_ok()
    });
    let has_large_pages = || host::large_pages()[0].is_some();
    let mut found = LARGE_PAGES.filter(found, Capabilities::LARGE_PAGES, has_large_pages);
    if host::deny_write_execute() == Setting::On {
        found.remove(Capabilities::RWX);
    }
    found
}
