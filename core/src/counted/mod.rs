//! A provider that counts what goes through it, remembers high-water marks and keeps limits.

use crate::{
    fork::{ForkChild, Renewable},
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        AddressSpace, Capabilities, Clock, Commit, CoreSync, DualError, DualMapProvider,
        DualMapping, DualRequest, Dump, Error, ErrorKind, Leave, MapEntry, PageProvider, PageWish,
        ProcessMap, Purged, Request, Resource, Target,
    },
    range_map::RangeMap,
    sync::{Guard, Lock, RawMutex, Spin},
};
use core::{
    ffi::CStr,
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// The bound of the book-keeping: 16 bytes for each separate committed range, a million of them.
const METADATA: usize = 16 << 20;

/// An amount in bytes, and the most it ever was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    /// Bytes now.
    pub now: usize,
    /// The high-water mark in bytes.
    pub high: usize,
}

/// A gauge that is whole after every step, so that a forked child needs no lock to read it.
#[derive(Default)]
struct Level {
    now: AtomicUsize,
    high: AtomicUsize,
}

impl Level {
    fn add(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Relaxed) + bytes;
        self.high.fetch_max(now, Relaxed);
    }

    fn sub(&self, bytes: usize) {
        let was = self.now.fetch_sub(bytes, Relaxed);
        debug_assert!(bytes <= was, "no more goes than came");
    }

    fn get(&self) -> Gauge {
        Gauge {
            now: self.now.load(Relaxed),
            high: self.high.load(Relaxed),
        }
    }
}

/// What a [`Counted`] provider holds. A failed call changes none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Addresses reserved, committed ones included, dual views excluded.
    pub reserved: Gauge,
    /// Memory committed in those.
    pub committed: Gauge,
    /// Memory of dual mappings, once for both views.
    pub dual: Gauge,
}

/// The most that a [`Counted`] provider gives, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses reserved.
    pub reserved: usize,
    /// Memory: committed and dual together.
    pub memory: usize,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self {
        reserved: usize::MAX,
        memory: usize::MAX,
    };
}

/// Counts, per name, what goes through it to `P`; used by reference, as it has state.
///
/// Its lock is held across calls of the inner provider, so that a limit is exact.
///
/// A forked child counts on from what was there. What a thread of the parent was doing may be
/// missing: a reservation that it never returned is not counted, one that it was releasing still
/// is.
pub struct Counted<P: PageProvider + Copy, R = Spin> {
    inner: P,
    name: &'static str,
    limits: Limits,
    /// Makes limits exact, and guards nothing that is not whole by itself.
    turn: Renewable<Lock<(), R>>,
    committed: RangeMap<(), P, R>,
    /// The most that was committed.
    committed_high: AtomicUsize,
    reserved: Level,
    dual: Level,
    calls: AtomicU64,
    failures: AtomicU64,
}

impl<P: PageProvider + Copy, R: RawMutex> Counted<P, R> {
    /// Counts what goes to `inner` under `name`. The book-keeping comes from `inner`, uncounted.
    ///
    /// # Errors
    ///
    /// What `inner` says of that reservation.
    pub fn new(inner: P, name: &'static str, limits: Limits) -> Result<Self, Error> {
        Self::with_metadata(inner, name, limits, METADATA)
    }

    /// Counts, with book-keeping of at most `metadata` bytes, for a host that has few: 16 bytes for
    /// each separate committed range.
    ///
    /// # Errors
    ///
    /// The errors of [`Counted::new`].
    pub fn with_metadata(
        inner: P,
        name: &'static str,
        limits: Limits,
        metadata: usize,
    ) -> Result<Self, Error> {
        let committed = RangeMap::on(inner, AddressRange::ALL, inner.page_size(), metadata)?;
        Ok(Self {
            inner,
            name,
            limits,
            turn: Renewable::new(Lock::new(())),
            committed,
            committed_high: AtomicUsize::new(0),
            reserved: Level::default(),
            dual: Level::default(),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Returns the name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the limits.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the counters.
    pub fn counters(&self) -> Counters {
        let _turn = self.lock();
        self.counters_now()
    }

    /// Returns how many calls were made, failed ones included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Returns how many calls failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    fn lock(&self) -> Guard<'_, (), R> {
        loop {
            let turn = self.turn.current();
            let guard = turn.lock();
            // A handler may have forked before the lock was taken.
            if self.turn.is_current(turn) {
                return guard;
            }
        }
    }

    fn counters_now(&self) -> Counters {
        let pages = self.committed.statistics().pages;
        let committed = Gauge {
            now: pages * self.inner.page_size().bytes(),
            high: self.committed_high.load(Relaxed),
        };
        Counters {
            reserved: self.reserved.get(),
            committed,
            dual: self.dual.get(),
        }
    }

    /// Runs one call under the lock and counts it.
    fn counting<T, E>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let _turn = self.lock();
        self.calls.fetch_add(1, Relaxed);
        let result = call();
        self.failures.fetch_add(result.is_err().into(), Relaxed);
        result
    }

    /// Refuses what would go over the limit of memory.
    fn check_memory(&self, more: usize) -> Result<(), Error> {
        if more <= self.room() {
            Ok(())
        } else {
            Err(ErrorKind::Exhausted.into())
        }
    }

    /// Returns how much memory the limit leaves.
    fn room(&self) -> usize {
        let Counters {
            committed, dual, ..
        } = self.counters_now();
        let used = committed.now.saturating_add(dual.now);
        self.limits.memory.saturating_sub(used)
    }

    /// Books memory of `range` as come. Cannot fail behind [`RangeMap::prepare`].
    fn commit_booked(&self, range: PageRange) -> Result<(), Error> {
        self.committed.insert(range.addresses(), ())?;
        let now = self.counters_now().committed.now;
        self.committed_high.fetch_max(now, Relaxed);
        Ok(())
    }

    /// Books memory of `range` as gone. Cannot fail behind [`RangeMap::prepare`].
    fn uncommit(&self, range: PageRange) -> Result<(), Error> {
        self.committed.remove(range.addresses()).map(drop)
    }

    /// Says whether nothing of a range is committed.
    fn is_uncommitted(&self, range: PageRange) -> bool {
        let next = self.committed.next_from(range.addr());
        next.is_none_or(|(next, ())| next.start() >= range.end())
    }
}

// SAFETY: calls are passed on unchanged or refused; the inner provider keeps the promises.
unsafe impl<P: PageProvider + Copy, R: RawMutex> PageProvider for Counted<P, R>
where
    R: Send + Sync,
{
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
        self.counting(|| {
            let page = self.inner.page_size();
            let plan = request.plan(page)?;
            let room = self.limits.reserved.saturating_sub(self.reserved.get().now);
            let room = page.round_down(room);
            if plan.min_total() > room {
                return Err(ErrorKind::Exhausted.into());
            }
            let body = plan.body() - plan.total().saturating_sub(room);
            let range = self.inner.reserve(&Request {
                len: body,
                ..*request
            })?;
            self.reserved.add(range.len_bytes());
            Ok(range)
        })
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        self.counting(|| {
            self.check_memory(range.len_bytes())?;
            self.committed.prepare(1)?;
            debug_assert!(
                self.is_uncommitted(range),
                "only reserved pages are committed"
            );
            // SAFETY: the caller's promise, passed on.
            let page = unsafe { self.inner.commit(range, how)? };
            self.commit_booked(range)?;
            Ok(page)
        })
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        self.counting(|| unsafe { self.inner.protect(range, access) })
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        self.counting(|| {
            self.committed.prepare(1)?;
            // SAFETY: the caller's promise, passed on.
            let result = unsafe { self.inner.decommit(range) };
            match result {
                Ok(()) => self.uncommit(range)?,
                Err(e) if e.kind() == ErrorKind::RangeLost => {
                    self.uncommit(range)?;
                    self.reserved.sub(range.len_bytes());
                }
                Err(_) => {}
            }
            result
        })
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // What is committed may take memory again at any time, and counts as before.
        // SAFETY: the caller's promise, passed on.
        self.counting(|| unsafe { self.inner.purge(range) })
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        self.counting(|| {
            // One range more at most: `from` may be the middle of one, and `to` joins none.
            self.committed.prepare(2)?;
            // SAFETY: the caller's promise, passed on.
            let result = unsafe { self.inner.move_pages(from, to) };
            match result {
                Ok(()) => {
                    self.uncommit(from)?;
                    self.commit_booked(to)?;
                }
                Err(e) if e.kind() == ErrorKind::RangeLost => {
                    self.reserved.sub(to.len_bytes());
                }
                Err(_) => {}
            }
            result
        })
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.describe(range, name, dump) }
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.avoid_large_pages(range) }
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.wish_large_pages(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        self.counting(|| {
            self.committed.prepare(1)?;
            // SAFETY: the caller's promise, passed on.
            unsafe { self.inner.release(range)? };
            self.uncommit(range)?;
            self.reserved.sub(range.len_bytes());
            Ok(())
        })
    }

    fn left(&self, of: Resource) -> Option<usize> {
        let left = self.inner.left(of);
        let counters = self.counters();
        let own = match of {
            Resource::Addresses if self.limits.reserved != usize::MAX => {
                self.limits.reserved.saturating_sub(counters.reserved.now)
            }
            Resource::Memory if self.limits.memory != usize::MAX => {
                let used = counters.committed.now.saturating_add(counters.dual.now);
                self.limits.memory.saturating_sub(used)
            }
            _ => return left,
        };
        Some(left.map_or(own, |left| left.min(own)))
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

// SAFETY: as for PageProvider.
unsafe impl<P: PageProvider + DualMapProvider + Copy, R: RawMutex> DualMapProvider for Counted<P, R>
where
    R: Send + Sync,
{
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        self.counting(|| {
            request.validate(self.inner.page_size())?;
            let fixed = |target| matches!(target, Target::Into(_));
            let least = match (request.min_len, request.pages) {
                // Whole large pages are the affair of those who know how large they are.
                (Some(_), PageWish::Large { .. }) | (None, _) => request.len,
                (Some(_), _) if fixed(request.rw) || fixed(request.rx) => request.len,
                (Some(min_len), _) => min_len,
            };
            self.check_memory(least)?;
            let room = self.inner.page_size().round_down(self.room());
            let wanted = DualRequest {
                len: request.len.min(room.max(least)),
                ..*request
            };
            // SAFETY: the caller's promise, passed on.
            let result = unsafe { self.inner.map_dual(&wanted) };
            match &result {
                Ok(mapping) => self.dual.add(mapping.len_bytes()),
                Err(e) => {
                    if let Some(range) = e.lost() {
                        self.reserved.sub(range.len_bytes());
                    }
                }
            }
            if result.is_ok() {
                for target in [request.rw, request.rx] {
                    if let Target::Into(range) = target {
                        self.reserved.sub(range.len_bytes());
                    }
                }
            }
            result
        })
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        self.counting(|| {
            let len = mapping.len_bytes();
            // SAFETY: the caller's promise, passed on.
            let result = unsafe { self.inner.unmap_dual(mapping, leave) };
            match &result {
                Ok(()) => {
                    self.dual.sub(len);
                    if leave == Leave::Reserved {
                        self.reserved.add(2 * len);
                    }
                }
                Err((_, error)) if error.kind() == ErrorKind::RangeLost => {
                    self.dual.sub(len);
                }
                Err(_) => {}
            }
            result
        })
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        self.counting(|| unsafe { self.inner.purge_dual(mapping, offset, len) })
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        self.counting(|| unsafe { self.inner.refill_dual(mapping, offset, len) })
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        self.counting(|| unsafe { self.inner.fork_child_dual(mapping) })
    }
}

// SAFETY: the inner provider keeps the promise.
unsafe impl<P: PageProvider + CoreSync + Copy, R: RawMutex + Send + Sync> CoreSync
    for Counted<P, R>
{
    fn sync_cores(&self) -> Result<(), Error> {
        self.inner.sync_cores()
    }
}

impl<P: PageProvider + Clock + Copy, R: RawMutex + Send + Sync> Clock for Counted<P, R> {
    fn now_ms(&self) -> Option<u64> {
        self.inner.now_ms()
    }
}

impl<P: PageProvider + ProcessMap + Copy, R: RawMutex + Send + Sync> ProcessMap for Counted<P, R> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.inner.walk(visit)
    }

    fn address_space(&self) -> AddressSpace {
        self.inner.address_space()
    }
}

// SAFETY: the lock is the child's own afterwards; all else is atomics, and a map that repairs
// itself.
unsafe impl<P: PageProvider + Copy, R: RawMutex> ForkChild for Counted<P, R> {
    unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: the caller's promise: the only thread of a child; the map's provider is `inner`.
        unsafe { self.committed.fork_child()? };
        let turn = self.turn.current();
        if turn.is_locked() {
            // SAFETY: as above; Drop disposes with the same provider.
            unsafe { self.turn.renew(&self.inner, || Lock::new(()))? };
            // SAFETY: as above; it was taken out of use just now.
            unsafe { turn.abandon() };
        }
        Ok(())
    }
}

impl<P: PageProvider + Copy, R> Drop for Counted<P, R> {
    fn drop(&mut self) {
        self.turn.dispose(&self.inner);
    }
}

impl<P: PageProvider + Copy, R> fmt::Debug for Counted<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
