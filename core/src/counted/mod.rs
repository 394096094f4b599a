//! A provider that counts what goes through it, remembers high-water marks and keeps limits.
//!
//! `pages` and `dual` have the calls that are counted, `counters` what they are counted in.

mod counters;
mod dual;
mod pages;

use counters::Level;
pub use counters::{Counters, Gauge, Limits};

use crate::{
    fork::{ForkChild, Renewable},
    page::{AddressRange, PageRange},
    provider::{
        AddressSpace, Clock, CoreSync, Error, ErrorKind, MapEntry, PageProvider, ProcessMap,
    },
    range_map::RangeMap,
    sync::{Guard, Lock, RawMutex, Spin},
};
use core::{
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// The bound of the book-keeping: 16 bytes for each separate committed range, a million of them.
const METADATA: usize = 16 << 20;

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
    lock: Renewable<Lock<(), R>>,
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
            lock: Renewable::new(Lock::new(())),
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
        let _locked = self.lock();
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
            let lock = self.lock.current();
            let guard = lock.lock();
            // A handler may have forked before the lock was taken.
            if self.lock.is_current(lock) {
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
        let _locked = self.lock();
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

// SAFETY: the inner provider makes all cores see new instructions before it returns `Ok`.
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
        // SAFETY: this is the only thread of a child, as fork_child asks; the map's provider is
        // `inner`, which is whole by now.
        unsafe { self.committed.fork_child()? };
        let lock = self.lock.current();
        if lock.is_locked() {
            // SAFETY: no other thread is there, as fork_child asks; Drop disposes with the same
            // provider.
            unsafe { self.lock.renew(&self.inner, || Lock::new(()))? };
            // SAFETY: the only thread of a forked child, which took the lock out of use just now.
            unsafe { lock.abandon() };
        }
        Ok(())
    }
}

impl<P: PageProvider + Copy, R> Drop for Counted<P, R> {
    fn drop(&mut self) {
        self.lock.dispose(&self.inner);
    }
}

impl<P: PageProvider + Copy, R> fmt::Debug for Counted<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
