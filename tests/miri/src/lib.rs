//! A provider for Miri: each reservation is an allocation of its own, so that what strays from one
//! into the next is seen, and memory that is not committed is uninitialised, so that reading it is.

use hostmem_core::{
    page::{Access, PageRange, PageSize},
    provider::{
        Capabilities, Commit, CoreSync, DualError, DualMapProvider, DualMapping, DualRequest,
        Error, ErrorKind, Leave, PageProvider, PageWish, Place, Request,
    },
};
use std::{
    alloc::{Layout, alloc, dealloc},
    collections::BTreeMap,
    mem::MaybeUninit,
    ptr::NonNull,
    sync::{Mutex, MutexGuard},
};

const PAGE: PageSize = PageSize::KIB_4;

/// A reservation.
struct Reservation {
    base: NonNull<u8>,
    layout: Layout,
    /// Bytes of it that were not released.
    left: usize,
}

// SAFETY: it owns its allocation.
unsafe impl Send for Reservation {}

/// The provider, used by reference.
pub struct Host {
    capabilities: Capabilities,
    reservations: Mutex<BTreeMap<usize, Reservation>>,
}

impl Host {
    /// Makes a host that can do this.
    pub const fn new(capabilities: Capabilities) -> Self {
        Self {
            capabilities,
            reservations: Mutex::new(BTreeMap::new()),
        }
    }

    /// Returns how many reservations there are.
    pub fn reservations(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Reservation>> {
        self.reservations.lock().expect("no test panics in here")
    }
}

/// Makes memory uninitialised.
///
/// # Safety
///
/// It is reserved, and nothing refers to it.
unsafe fn forget(range: PageRange) {
    let nothing = Box::<[u8]>::new_uninit_slice(range.len_bytes());
    let to = range.start().cast::<MaybeUninit<u8>>().as_ptr();
    // SAFETY: as many bytes are there, by the caller's promise, and in the box, which is apart.
    unsafe { to.copy_from_nonoverlapping(nothing.as_ptr(), range.len_bytes()) }
}

// SAFETY: every reservation is an allocation of its own; commit writes zeros.
unsafe impl PageProvider for Host {
    fn page_size(&self) -> PageSize {
        PAGE
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(PAGE)?;
        if let Place::Exact(_) = request.placement.place {
            return Err(ErrorKind::Taken.into());
        }
        let align = request.placement.align.max(PAGE.bytes());
        let layout = Layout::from_size_align(plan.total(), align);
        let layout = layout.map_err(|_| ErrorKind::InvalidArgument)?;
        // SAFETY: the length of a plan is not zero.
        let base = NonNull::new(unsafe { alloc(layout) }).ok_or(ErrorKind::Exhausted)?;
        let left = layout.size();
        let reservation = Reservation { base, layout, left };
        self.lock().insert(base.addr().get(), reservation);
        PageRange::new(base, left, PAGE).ok_or(ErrorKind::Exhausted.into())
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        if let PageWish::Large { or_base: false, .. } = how.pages {
            return Err(ErrorKind::Unsupported.into());
        }
        // SAFETY: reserved, and nothing refers to it, by the caller's promise.
        unsafe { range.start().write_bytes(0, range.len_bytes()) };
        Ok(PAGE)
    }

    unsafe fn protect(&self, _: PageRange, _: Access) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller vouches for reserved pages that nothing refers to.
        unsafe { forget(range) };
        Ok(())
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller vouches for reserved pages that nothing refers to.
        unsafe { forget(range) };
        let mut reservations = self.lock();
        let found = reservations.range_mut(..=range.addr()).next_back();
        let (&key, reservation) = found.expect("it was reserved");
        reservation.left -= range.len_bytes();
        if reservation.left == 0
            && let Some(Reservation { base, layout, .. }) = reservations.remove(&key)
        {
            // SAFETY: allocated so by `reserve`, and all of it was released.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
        Ok(())
    }
}

// SAFETY: it makes no mapping.
unsafe impl DualMapProvider for Host {
    unsafe fn map_dual(&self, _: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        Err(DualError::of(ErrorKind::Unsupported))
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        _: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        Err((mapping, ErrorKind::Unsupported.into()))
    }

    unsafe fn purge_dual(&self, _: &DualMapping, _: usize, _: usize) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }

    unsafe fn refill_dual(&self, _: &DualMapping, _: usize, _: usize) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }

    unsafe fn fork_child_dual(&self, _: &DualMapping) -> Result<(), Error> {
        Ok(())
    }
}

// SAFETY: no code is executed.
unsafe impl CoreSync for Host {
    fn sync_cores(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A xorshift generator.
pub struct Random(pub u64);

impl Random {
    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}
