//! A host that is a provider of the program's own, on systems for which there is no backend. It has
//! no clock, no map of the process and no signals that could be blocked.

use crate::{
    provider::{Foreign, hm_provider},
    region::Region,
    status::{Fault, HM_EXISTS, HM_UNSUPPORTED},
};
use core::{
    ptr::{from_ref, null_mut},
    sync::atomic::{
        AtomicPtr,
        Ordering::{AcqRel, Acquire},
    },
};
use hostmem::{
    page::{Access, PageRange, PageSize},
    probe::Probe,
    provider::{
        Capabilities, Commit, CoreSync, DualError, DualMapProvider, DualMapping, DualRequest,
        Error, ErrorKind, Leave, PageProvider, Purged, Request,
    },
    range_map,
    region::{self, ClaimReport, ClaimRequest},
    sync::Spin,
};

/// Waiting threads spin: there is nothing in which they could sleep.
pub(crate) type HostLock = Spin;

static SET: AtomicPtr<hm_provider> = AtomicPtr::new(null_mut());

const NO_HOST: Fault = Fault::Plain(
    HM_UNSUPPORTED,
    c"this system has no such thing: set a host, or name a provider",
);

pub(crate) fn set(provider: Foreign) -> Result<(), Fault> {
    let table = from_ref(provider.table()).cast_mut();
    match SET.compare_exchange(null_mut(), table, AcqRel, Acquire) {
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::Plain(HM_EXISTS, c"a host is set already")),
    }
}

pub(crate) fn now_ms() -> Option<u64> {
    None
}

pub(crate) fn probe() -> Result<Probe, Fault> {
    Err(NO_HOST)
}

pub(crate) unsafe fn adopt_claim(_: &Region, _: &ClaimRequest) -> Result<ClaimReport, Error> {
    Err(ErrorKind::Unsupported.into())
}

pub(crate) fn for_regions() -> Result<region::SignalHook, Fault> {
    Err(NO_HOST)
}

pub(crate) fn for_maps() -> Result<range_map::SignalHook, Fault> {
    Err(NO_HOST)
}

/// Prints on standard error.
#[cfg(panic = "abort")]
pub(crate) fn print(line: &[u8]) {
    // Windows counts them by 32 bits; a line is shorter.
    let len = line.len().try_into().unwrap_or(0);
    // SAFETY: that many bytes are there.
    unsafe { libc::write(2, line.as_ptr().cast(), len) };
}

/// The provider that is set, or one that has nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Host;

impl Host {
    pub(crate) const fn new() -> Self {
        Self
    }

    fn get(self) -> Result<Foreign, Error> {
        let table = SET.load(Acquire);
        // SAFETY: null, or a table that `hm_set_host` has checked; its caller promises that it does
        // what it says and stays until the program ends.
        unsafe { Foreign::new(table) }.map_err(|_| ErrorKind::Unsupported.into())
    }
}

// SAFETY: every call is passed on unchanged, so that the promises of the provider that is set are
// kept; without one nothing is reserved.
unsafe impl PageProvider for Host {
    fn page_size(&self) -> PageSize {
        const LEAST: PageSize = PageSize::new(4096).expect("a power of two");
        self.get().map_or(LEAST, |host| host.page_size())
    }

    fn capabilities(&self) -> Capabilities {
        let none = Capabilities::empty();
        self.get().map_or(none, |host| host.capabilities())
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        self.get()?.reserve(request)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        let host = self.get()?;
        // SAFETY: the range is the caller's, from this provider, which has it from the one that is
        // set; it is reserved and not committed, as this method asks.
        unsafe { host.commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        let host = self.get()?;
        // SAFETY: the range is the caller's, from this provider, which has it from the one that is
        // set; it is committed, as this method asks.
        unsafe { host.protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        let host = self.get()?;
        // SAFETY: the range is the caller's, from this provider, which has it from the one that is
        // set; its contents are not used any more.
        unsafe { host.decommit(range) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        let host = self.get()?;
        // SAFETY: the range is the caller's, from this provider, which has it from the one that is
        // set; it is committed, and its contents are not needed, as this method asks.
        unsafe { host.purge(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        let host = self.get()?;
        // SAFETY: the range is the caller's, from this provider, which has it from the one that is
        // set; the caller gives it up.
        unsafe { host.release(range) }
    }
}

// SAFETY: every call is passed on unchanged, so that the views are those of the provider that is
// set, which keeps the trait's promises for them.
unsafe impl DualMapProvider for Host {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        let host = self.get()?;
        // SAFETY: a range of `Target::Into` is reserved by the caller from this provider, which has
        // it from the one that is set, and no other code uses it.
        unsafe { host.map_dual(request) }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        match self.get() {
            // SAFETY: the mapping came from this provider, which has it from the one that is set,
            // and no other code uses either view.
            Ok(host) => unsafe { host.unmap_dual(mapping, leave) },
            Err(error) => Err((mapping, error)),
        }
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let host = self.get()?;
        // SAFETY: the mapping came from this provider, which has it from the one that is set, and
        // no other code uses those pages until they are refilled.
        unsafe { host.purge_dual(mapping, offset, len) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let host = self.get()?;
        // SAFETY: the mapping came from this provider, which has it from the one that is set.
        unsafe { host.refill_dual(mapping, offset, len) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        let host = self.get()?;
        // SAFETY: the caller is the only thread of a child forked since the mapping was made, and
        // calls once for it.
        unsafe { host.fork_child_dual(mapping) }
    }
}

// SAFETY: the call is passed on unchanged to the provider that is set, which keeps the promise.
unsafe impl CoreSync for Host {
    fn sync_cores(&self) -> Result<(), Error> {
        self.get()?.sync_cores()
    }
}
