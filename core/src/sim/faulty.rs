//! A provider that fails on demand.

use crate::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        AddressSpace, Capabilities, Clock, Commit, CoreSync, DualError, DualMapProvider,
        DualMapping, DualRequest, Dump, Error, ErrorKind, Leave, MapEntry, PageProvider,
        ProcessMap, Purged, Request, Resource,
    },
};
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

bitflags::bitflags! {
    /// Calls of the seam that can fail.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Calls: u32 {
        /// [`PageProvider::reserve`].
        const RESERVE = 1 << 0;
        /// [`PageProvider::commit`].
        const COMMIT = 1 << 1;
        /// [`PageProvider::protect`].
        const PROTECT = 1 << 2;
        /// [`PageProvider::decommit`].
        const DECOMMIT = 1 << 3;
        /// [`PageProvider::release`].
        const RELEASE = 1 << 4;
        /// [`DualMapProvider::map_dual`].
        const MAP_DUAL = 1 << 5;
        /// [`DualMapProvider::unmap_dual`].
        const UNMAP_DUAL = 1 << 6;
        /// [`DualMapProvider::purge_dual`].
        const PURGE_DUAL = 1 << 7;
        /// [`DualMapProvider::fork_child_dual`].
        const FORK_CHILD_DUAL = 1 << 8;
        /// [`CoreSync::sync_cores`].
        const SYNC_CORES = 1 << 9;
        /// [`PageProvider::purge`].
        const PURGE = 1 << 10;
        /// [`PageProvider::move_pages`].
        const MOVE_PAGES = 1 << 11;
        /// [`DualMapProvider::refill_dual`].
        const REFILL_DUAL = 1 << 12;
    }
}

/// Never: the number that no call has.
const NEVER: u64 = u64::MAX;

/// Fails chosen calls to `P` without making them; used by reference, as it counts.
///
/// A failed call reports [`ErrorKind::Exhausted`] with errno 12, which is `ENOMEM` everywhere,
/// unless told otherwise.
#[derive(Debug)]
pub struct Faulty<P> {
    inner: P,
    error: Error,
    calls: AtomicU64,
    failures: AtomicU64,
    fail_at: AtomicU64,
    seed: AtomicU64,
    one_in: AtomicU64,
    eligible: AtomicU32,
    partial: AtomicBool,
}

impl<P> Faulty<P> {
    /// Passes every call on, until told to fail one.
    pub const fn new(inner: P) -> Self {
        Self {
            inner,
            error: Error::os(ErrorKind::Exhausted, 12),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            fail_at: AtomicU64::new(NEVER),
            seed: AtomicU64::new(0),
            one_in: AtomicU64::new(0),
            eligible: AtomicU32::new(Calls::all().bits()),
            partial: AtomicBool::new(false),
        }
    }

    /// Fails with `error` instead.
    #[must_use]
    pub const fn with_error(mut self, error: Error) -> Self {
        self.error = error;
        self
    }

    /// Fails and counts only these calls from now on.
    pub fn only(&self, calls: Calls) {
        self.eligible.store(calls.bits(), Relaxed);
    }

    /// Fails the `n`th call from now, the next one being the 0th, and no other.
    pub fn fail_nth(&self, n: u64) {
        self.one_in.store(0, Relaxed);
        self.fail_at
            .store(self.calls.load(Relaxed).saturating_add(n), Relaxed);
    }

    /// Fails about one call in `one_in`, chosen by `seed`; the same calls for the same seed.
    pub fn fail_randomly(&self, seed: u64, one_in: u64) {
        self.fail_at.store(NEVER, Relaxed);
        self.seed.store(seed, Relaxed);
        self.one_in.store(one_in, Relaxed);
    }

    /// Fails no call from now on.
    pub fn fail_none(&self) {
        self.fail_at.store(NEVER, Relaxed);
        self.one_in.store(0, Relaxed);
    }

    /// Sets whether [`PageProvider::protect`] of several pages changes the first half of them
    /// before it fails, as hosts do at their limit of mappings.
    pub fn fail_partially(&self, partially: bool) {
        self.partial.store(partially, Relaxed);
    }

    /// Returns how many calls were made, failed ones included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Returns how many calls failed by demand.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    fn check(&self, call: Calls) -> Result<(), Error> {
        if !Calls::from_bits_retain(self.eligible.load(Relaxed)).contains(call) {
            return Ok(());
        }
        let n = self.calls.fetch_add(1, Relaxed);
        let one_in = self.one_in.load(Relaxed);
        let chosen = one_in != 0
            && split_mix(self.seed.load(Relaxed).wrapping_add(n)).is_multiple_of(one_in);
        if chosen || n == self.fail_at.load(Relaxed) {
            self.failures.fetch_add(1, Relaxed);
            return Err(self.error);
        }
        Ok(())
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
/// Generators", 2014).
fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

// SAFETY: a call is passed on unchanged, or not made and reported as failed.
unsafe impl<P: PageProvider> PageProvider for Faulty<P> {
    fn page_size(&self) -> PageSize {
        self.inner.page_size()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        self.inner.capabilities_among(wanted)
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        self.check(Calls::RESERVE)?;
        self.inner.reserve(request)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        self.check(Calls::COMMIT)?;
        // SAFETY: the caller's range is reserved, as commit asks; it came from the inner provider.
        unsafe { self.inner.commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        if let Err(error) = self.check(Calls::PROTECT) {
            let page = self.inner.page_size();
            let half = page.round_down(range.len_bytes() / 2);
            if self.partial.load(Relaxed)
                && let Some(front) = range.part(0, half, page)
            {
                // SAFETY: a part of the caller's range, which is committed, as protect asks.
                unsafe { self.inner.protect(front, access)? };
            }
            return Err(error);
        }
        // SAFETY: the caller's range is committed, as protect asks; it came from the inner
        // provider.
        unsafe { self.inner.protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        self.check(Calls::DECOMMIT)?;
        // SAFETY: the caller's range is reserved or committed, and its contents are given up, as
        // decommit asks; it came from the inner provider.
        unsafe { self.inner.decommit(range) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        self.check(Calls::PURGE)?;
        // SAFETY: the caller's range is committed, and its contents are not needed, as purge asks;
        // it came from the inner provider.
        unsafe { self.inner.purge(range) }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        self.check(Calls::MOVE_PAGES)?;
        // SAFETY: `from` is committed and `to` reserved, as move_pages asks; both came from the
        // inner provider.
        unsafe { self.inner.move_pages(from, to) }
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: the caller owns the range, as describe asks; it came from the inner provider.
        unsafe { self.inner.describe(range, name, dump) }
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as avoid_large_pages asks; it came from the
        // inner provider.
        unsafe { self.inner.avoid_large_pages(range) }
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as wish_large_pages asks; it came from the inner
        // provider.
        unsafe { self.inner.wish_large_pages(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        self.check(Calls::RELEASE)?;
        // SAFETY: the caller owns the range, and no other code uses it, as release asks; it came
        // from the inner provider.
        unsafe { self.inner.release(range) }
    }

    fn left(&self, of: Resource) -> Option<usize> {
        self.inner.left(of)
    }

    fn large_page(&self) -> PageSize {
        self.inner.large_page()
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        self.inner.random_key()
    }

    fn addresses(&self) -> AddressRange {
        self.inner.addresses()
    }
}

// SAFETY: a call is passed on unchanged, or not made and reported as failed.
unsafe impl<P: DualMapProvider> DualMapProvider for Faulty<P> {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        self.check(Calls::MAP_DUAL)?;
        // SAFETY: Into targets are reservations of the caller's, as map_dual asks; they came from
        // the inner provider.
        unsafe { self.inner.map_dual(request) }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        if let Err(error) = self.check(Calls::UNMAP_DUAL) {
            return Err((mapping, error));
        }
        // SAFETY: no other code uses the mapping, as unmap_dual asks; the inner provider made it.
        unsafe { self.inner.unmap_dual(mapping, leave) }
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        self.check(Calls::PURGE_DUAL)?;
        // SAFETY: no other code uses those pages until they are refilled, as purge_dual asks; the
        // inner provider made the mapping.
        unsafe { self.inner.purge_dual(mapping, offset, len) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        self.check(Calls::REFILL_DUAL)?;
        // SAFETY: the mapping is one of this provider, as refill_dual asks; that is, of the inner
        // provider.
        unsafe { self.inner.refill_dual(mapping, offset, len) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        self.check(Calls::FORK_CHILD_DUAL)?;
        // SAFETY: this is the only thread of a forked child, and the one call for this mapping, as
        // fork_child_dual asks; the inner provider made it.
        unsafe { self.inner.fork_child_dual(mapping) }
    }
}

// SAFETY: a call is passed on unchanged, or not made and reported as failed.
unsafe impl<P: CoreSync> CoreSync for Faulty<P> {
    fn sync_cores(&self) -> Result<(), Error> {
        self.check(Calls::SYNC_CORES)?;
        self.inner.sync_cores()
    }
}

impl<P: Clock> Clock for Faulty<P> {
    fn now_ms(&self) -> Option<u64> {
        self.inner.now_ms()
    }
}

impl<P: ProcessMap> ProcessMap for Faulty<P> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.inner.walk(visit)
    }

    fn address_space(&self) -> AddressSpace {
        self.inner.address_space()
    }
}
