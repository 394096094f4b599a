//! A provider that counts what goes through it, remembers high-water marks and keeps limits.

mod ranges;

use crate::{
    arena::Arena,
    fork::ForkHooks,
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        AddressSpace, Capabilities, Clock, Commit, CoreSync, DualError, DualMapProvider,
        DualMapping, DualRequest, Error, ErrorKind, Leave, MapEntry, PageProvider, PageWish,
        ProcessMap, Purged, Request, Resource, Target,
    },
    sync::{Lock, RawMutex, Spin},
};
use core::{fmt, mem};
use ranges::RangeSet;

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

impl Gauge {
    fn add(&mut self, bytes: usize) {
        self.now += bytes;
        self.high = self.high.max(self.now);
    }

    fn sub(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.now, "no more goes than came");
        self.now = self.now.saturating_sub(bytes);
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
pub struct Counted<P: PageProvider + Copy, R = Spin> {
    inner: P,
    name: &'static str,
    limits: Limits,
    arena: Arena<P, R>,
    state: Lock<State, R>,
}

struct State {
    counters: Counters,
    committed: RangeSet,
    calls: u64,
    failures: u64,
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
    /// As of [`Counted::new`].
    pub fn with_metadata(
        inner: P,
        name: &'static str,
        limits: Limits,
        metadata: usize,
    ) -> Result<Self, Error> {
        let state = State {
            counters: Counters::default(),
            committed: RangeSet::new(),
            calls: 0,
            failures: 0,
        };
        let arena = Arena::new(inner, metadata)?;
        Ok(Self {
            inner,
            name,
            limits,
            arena,
            state: Lock::new(state),
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
        self.state.lock().counters
    }

    /// Returns how many calls were made, failed ones included.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Returns how many calls failed.
    pub fn failures(&self) -> u64 {
        self.state.lock().failures
    }

    /// Runs one call under the lock and counts it.
    fn counting<T, E>(&self, call: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
        let mut state = self.state.lock();
        state.calls += 1;
        let result = call(&mut state);
        state.failures += u64::from(result.is_err());
        result
    }

    /// Refuses what would go over the limit of memory.
    fn check_memory(&self, state: &State, more: usize) -> Result<(), Error> {
        if more <= self.room(state) {
            Ok(())
        } else {
            Err(ErrorKind::Exhausted.into())
        }
    }

    /// Returns how much memory the limit leaves.
    const fn room(&self, state: &State) -> usize {
        let Counters {
            committed, dual, ..
        } = state.counters;
        let used = committed.now.saturating_add(dual.now);
        self.limits.memory.saturating_sub(used)
    }

    /// Books memory of `range` as gone.
    fn uncommit(state: &mut State, range: PageRange) {
        let bytes = state.committed.remove(range.addr(), range.end());
        state.counters.committed.sub(bytes);
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
        self.counting(|state| {
            let plan = request.plan(self.inner.page_size())?;
            let room = self
                .limits
                .reserved
                .saturating_sub(state.counters.reserved.now);
            let room = self.inner.page_size().round_down(room);
            if plan.min_total() > room {
                return Err(ErrorKind::Exhausted.into());
            }
            let body = plan.body() - plan.total().saturating_sub(room);
            let range = self.inner.reserve(&Request {
                len: body,
                ..*request
            })?;
            state.counters.reserved.add(range.len_bytes());
            Ok(range)
        })
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        self.counting(|state| {
            self.check_memory(state, range.len_bytes())?;
            state.committed.make_room(&self.arena, 1)?;
            debug_assert!(
                state.committed.covered(range.addr(), range.end()) == 0,
                "only reserved pages are committed"
            );
            // SAFETY: the caller's promise, passed on.
            let page = unsafe { self.inner.commit(range, how)? };
            state.committed.insert(range.addr(), range.end());
            state.counters.committed.add(range.len_bytes());
            Ok(page)
        })
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        self.counting(|_| unsafe { self.inner.protect(range, access) })
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        self.counting(|state| {
            state.committed.make_room(&self.arena, 1)?;
            // SAFETY: the caller's promise, passed on.
            let result = unsafe { self.inner.decommit(range) };
            match result {
                Ok(()) => Self::uncommit(state, range),
                Err(e) if e.kind() == ErrorKind::RangeLost => {
                    Self::uncommit(state, range);
                    state.counters.reserved.sub(range.len_bytes());
                }
                Err(_) => {}
            }
            result
        })
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // What is committed may take memory again at any time, and counts as before.
        // SAFETY: the caller's promise, passed on.
        self.counting(|_| unsafe { self.inner.purge(range) })
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        self.counting(|state| {
            // One range more at most: `from` may be the middle of one, and `to` joins none.
            state.committed.make_room(&self.arena, 2)?;
            // SAFETY: the caller's promise, passed on.
            let result = unsafe { self.inner.move_pages(from, to) };
            match result {
                Ok(()) => {
                    state.committed.remove(from.addr(), from.end());
                    state.committed.insert(to.addr(), to.end());
                }
                Err(e) if e.kind() == ErrorKind::RangeLost => {
                    state.counters.reserved.sub(to.len_bytes());
                }
                Err(_) => {}
            }
            result
        })
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        self.counting(|state| {
            state.committed.make_room(&self.arena, 1)?;
            // SAFETY: the caller's promise, passed on.
            unsafe { self.inner.release(range)? };
            Self::uncommit(state, range);
            state.counters.reserved.sub(range.len_bytes());
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
        self.counting(|state| {
            request.validate(self.inner.page_size())?;
            let fixed = |target| matches!(target, Target::Into(_));
            let least = match (request.min_len, request.pages) {
                // Whole large pages are the affair of those who know how large they are.
                (Some(_), PageWish::Large { .. }) | (None, _) => request.len,
                (Some(_), _) if fixed(request.rw) || fixed(request.rx) => request.len,
                (Some(min_len), _) => min_len,
            };
            self.check_memory(state, least)?;
            let room = self.inner.page_size().round_down(self.room(state));
            let wanted = DualRequest {
                len: request.len.min(room.max(least)),
                ..*request
            };
            // SAFETY: the caller's promise, passed on.
            let result = unsafe { self.inner.map_dual(&wanted) };
            match &result {
                Ok(mapping) => state.counters.dual.add(mapping.len_bytes()),
                Err(e) => {
                    if let Some(range) = e.lost() {
                        state.counters.reserved.sub(range.len_bytes());
                    }
                }
            }
            if result.is_ok() {
                for target in [request.rw, request.rx] {
                    if let Target::Into(range) = target {
                        state.counters.reserved.sub(range.len_bytes());
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
        self.counting(|state| {
            let len = mapping.len_bytes();
            // SAFETY: the caller's promise, passed on.
            let result = unsafe { self.inner.unmap_dual(mapping, leave) };
            match &result {
                Ok(()) => {
                    state.counters.dual.sub(len);
                    if leave == Leave::Reserved {
                        state.counters.reserved.add(2 * len);
                    }
                }
                Err((_, error)) if error.kind() == ErrorKind::RangeLost => {
                    state.counters.dual.sub(len);
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
        self.counting(|_| unsafe { self.inner.purge_dual(mapping, offset, len) })
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        self.counting(|_| unsafe { self.inner.refill_dual(mapping, offset, len) })
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        self.counting(|_| unsafe { self.inner.fork_child_dual(mapping) })
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

// SAFETY: every change goes through the lock, which fork_prepare holds until the answering call.
unsafe impl<P: PageProvider + Copy, R: RawMutex> ForkHooks for Counted<P, R> {
    fn fork_prepare(&self) -> Result<(), Error> {
        mem::forget(self.state.lock());
        Ok(())
    }

    unsafe fn fork_parent(&self) {
        // SAFETY: fork_prepare forgot the guard on this thread, by the caller's promise.
        unsafe { self.state.unlock_forgotten() };
    }

    unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: as in fork_parent, by this thread's copy in the parent.
        unsafe { self.state.unlock_forgotten() };
        Ok(())
    }
}

impl<P: PageProvider + Copy, R> fmt::Debug for Counted<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
