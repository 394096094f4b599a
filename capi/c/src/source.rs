//! Where memory comes from: the host, a window of its addresses, or a region.

use crate::{
    abi::Grows,
    host::Host,
    object::{self, Object},
    provider::{Foreign, hm_provider},
    region::{Region, RegionObject, hm_region},
    status::{Fault, invalid},
    types::window,
};
use core::ffi::CStr;
use hostmem::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Commit, CoreSync, DualError, DualMapProvider, DualMapping, DualRequest, Dump,
        Error, Leave, PageProvider, Purged, Request, Resource, Within,
    },
};

/// Where memory comes from. A null pointer to one, or all zeros, is the host. Begin with
/// `HM_SOURCE_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_source {
    /// The size of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// A region in which everything is placed, or null. It must not be closed before what is made
    /// on it.
    pub region: *mut hm_region,
    /// The lowest address that may be used.
    pub first: usize,
    /// The highest address that may be used; 0 for no bound.
    pub last: usize,
    /// A provider of the program's own, or null: then there is no region. It stays as long as what
    /// is made on it.
    pub provider: *const hm_provider,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_source {
    const FIRST: usize = 40;
}

const _: () = assert!(size_of::<hm_source>() == 40);

/// A provider that is the host, or a region, kept within a window.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Os(Host),
    Window(Within<Host>),
    Region(&'static Region),
    Part(Within<&'static Region>, &'static Region),
    Foreign(Foreign),
    ForeignPart(Within<Foreign>, Foreign),
}

impl Source {
    /// The host.
    pub(crate) const OS: Self = Self::Os(Host::new());

    /// Makes a provider of what C says; with it the region that it uses, if it does.
    ///
    /// # Safety
    ///
    /// `from` is null, or as long as its first field says; its region is null or one of this
    /// library, which is not closed as long as the provider is used; its provider is null or a
    /// table that does what it says, and stays as long.
    pub(crate) unsafe fn new(
        from: *const hm_source,
    ) -> Result<(Self, Option<&'static Object<RegionObject>>), Fault> {
        // SAFETY: null, or as long as its first field says, by this function's condition.
        let from = unsafe { crate::abi::read_struct(from)? };
        let range = window(from.first, from.last)?;
        if from.reserved != 0 {
            return Err(invalid(c"a reserved field that is not zero"));
        }
        if !from.provider.is_null() {
            if !from.region.is_null() {
                return Err(invalid(c"a provider and a region"));
            }
            // SAFETY: a table that does what it says, and stays as long as the provider is used, by
            // this function's condition.
            let provider = unsafe { Foreign::new(from.provider)? };
            let source = if range == AddressRange::ALL {
                Self::Foreign(provider)
            } else {
                Self::ForeignPart(Within::new(provider, range), provider)
            };
            return Ok((source, None));
        }
        if from.region.is_null() {
            let host = Host::new();
            let source = if range == AddressRange::ALL {
                Self::Os(host)
            } else {
                Self::Window(Within::new(host, range))
            };
            return Ok((source, None));
        }
        // SAFETY: a region of this library which is not closed as long as the provider is used, by
        // this function's condition.
        let (object, region) = unsafe { object::get::<RegionObject, _>(from.region)? };
        let region: &'static Region = region;
        let source = if range == AddressRange::ALL {
            Self::Region(region)
        } else {
            Self::Part(Within::new(region, range), region)
        };
        Ok((source, Some(object)))
    }
}

impl Source {
    /// Returns where metadata of what is made on it comes from: a window is for what is asked for,
    /// and keeps its addresses for that.
    pub(crate) const fn for_metadata(self) -> Self {
        match self {
            Self::Os(_) | Self::Window(_) => Self::OS,
            Self::Region(region) | Self::Part(_, region) => Self::Region(region),
            Self::Foreign(provider) | Self::ForeignPart(_, provider) => Self::Foreign(provider),
        }
    }
}

impl Source {
    /// Says whether it is a provider of the program's own.
    pub(crate) const fn is_foreign(self) -> bool {
        matches!(self, Self::Foreign(_) | Self::ForeignPart(..))
    }
}

/// Calls a method of the provider that it is.
macro_rules! pass {
    ($self:ident, $p:ident => $call:expr) => {
        match $self {
            Self::Os($p) => $call,
            Self::Window($p) => $call,
            Self::Region($p) => $call,
            Self::Part($p, _) => $call,
            Self::Foreign($p) => $call,
            Self::ForeignPart($p, _) => $call,
        }
    };
}

// SAFETY: every call is passed on unchanged, so that the promises of the provider inside are kept.
unsafe impl PageProvider for Source {
    fn page_size(&self) -> PageSize {
        pass!(self, p => p.page_size())
    }

    fn capabilities(&self) -> Capabilities {
        pass!(self, p => p.capabilities())
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        pass!(self, p => p.capabilities_among(wanted))
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        pass!(self, p => p.reserve(request))
    }

    fn reserve_committed(&self, request: &Request<'_>, how: Commit) -> Result<PageRange, Error> {
        pass!(self, p => p.reserve_committed(request, how))
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // SAFETY: the range is the caller's, from this provider, which has it from the one inside;
        // it is reserved and not committed, as this method asks.
        pass!(self, p => unsafe { p.commit(range, how) })
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the range is the caller's, from this provider, which has it from the one inside;
        // it is committed, as this method asks.
        pass!(self, p => unsafe { p.protect(range, access) })
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the range is the caller's, from this provider, which has it from the one inside;
        // its contents are not used any more.
        pass!(self, p => unsafe { p.decommit(range) })
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the range is the caller's, from this provider, which has it from the one inside;
        // it is committed, and its contents are not needed, as this method asks.
        pass!(self, p => unsafe { PageProvider::purge(p, range) })
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        // SAFETY: both ranges are the caller's, from this provider, which has them from the one
        // inside; the first is committed, the second reserved and not committed, as this method
        // asks.
        pass!(self, p => unsafe { p.move_pages(from, to) })
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: the range is the caller's, from this provider, which has it from the one inside.
        pass!(self, p => unsafe { PageProvider::describe(p, range, name, dump) });
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the range is the caller's, from this provider, which has it from the one inside.
        pass!(self, p => unsafe { p.avoid_large_pages(range) });
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the range is the caller's, from this provider, which has it from the one inside.
        pass!(self, p => unsafe { p.wish_large_pages(range) });
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the range is the caller's, from this provider, which has it from the one inside;
        // the caller gives it up.
        pass!(self, p => unsafe { p.release(range) })
    }

    fn left(&self, of: Resource) -> Option<usize> {
        pass!(self, p => p.left(of))
    }

    fn large_page(&self) -> PageSize {
        pass!(self, p => p.large_page())
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        pass!(self, p => p.random_key())
    }

    fn addresses(&self) -> AddressRange {
        pass!(self, p => p.addresses())
    }
}

// SAFETY: every call is passed on unchanged, so that the views are the provider's inside, which
// keeps the trait's promises for them.
unsafe impl DualMapProvider for Source {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        // SAFETY: a range of `Target::Into` is reserved by the caller from this provider, which has
        // it from the one inside, and no other code uses it.
        pass!(self, p => unsafe { p.map_dual(request) })
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        // SAFETY: the mapping came from this provider, which has it from the one inside, and no
        // other code uses either view.
        pass!(self, p => unsafe { p.unmap_dual(mapping, leave) })
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the mapping came from this provider, which has it from the one inside, and no
        // other code uses those pages until they are refilled.
        pass!(self, p => unsafe { p.purge_dual(mapping, offset, len) })
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the mapping came from this provider, which has it from the one inside.
        pass!(self, p => unsafe { p.refill_dual(mapping, offset, len) })
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: the caller is the only thread of a child forked since the mapping was made, and
        // calls once for it.
        pass!(self, p => unsafe { p.fork_child_dual(mapping) })
    }
}

// SAFETY: the call is passed on unchanged to the provider inside, which keeps the promise.
unsafe impl CoreSync for Source {
    fn sync_cores(&self) -> Result<(), Error> {
        pass!(self, p => p.sync_cores())
    }
}

/// Makes a provider of a source from C.
macro_rules! source {
    ($from:expr) => {{
        // SAFETY: the caller in C promises that it is null, or as long as its first field says, and
        // that its region is one which is not closed before what is made on it.
        unsafe { $crate::source::Source::new($from) }?
    }};
}
pub(crate) use source;
