//! Places what is mapped in addresses that belong to the host.
//!
//! ```text
//!   pages      F F F F . . . R R C C C . . D D . . F F F . . C C F F …    to the top
//!   free       ─ ─ ─ ─ 3 ─── ─ ─ ─ ─ ─ 2 ─ ─ ─ 2 ─ ─ ─ ─ 2 ─ ─ ─ ─ ─
//!
//!   F  not the allocator's: a mapping of somebody else, or nothing      .  free
//!   R  reserved   C  committed, with its access   D  a view of a dual mapping
//! ```
//!
//! One [tree](crate::range_map) of the whole address space knows the state of every page; a gap in
//! it is what is free. Pages that are not the allocator's are in it like any others, so that there
//! are no regions to be told apart: those that touch are one.
//!
//! Free and reserved pages are inaccessible reservations of the provider below, all alike, so that
//! a host joins them; taking addresses is no system call, and to map or to unmap is one.

use super::{
    PageState, RegionRange, SignalHook,
    fork::Parts,
    lock::Held,
    record::{Mark, Names, Record},
};
use crate::{
    fork::Renewable,
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{Capabilities, Error, ErrorKind, PageProvider, Place, Plan},
    range_map::{Pages, Path, Wanted, Writer},
    sync::{RawMutex, Spin},
};
use core::{
    fmt,
    ptr::{NonNull, with_exposed_provenance_mut},
    sync::atomic::{AtomicBool, Ordering},
};

/// Which free addresses are taken first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The lowest.
    #[default]
    Lowest,
    /// The highest.
    Highest,
    /// Those nearest to what was taken last.
    Recent,
}

/// The configuration of a [`RegionAllocator`].
#[derive(Clone, Copy, Debug)]
pub struct RegionConfig {
    order: Order,
    metadata_bytes: usize,
    mapping_limit: usize,
    signals: Option<SignalHook>,
}

impl RegionConfig {
    /// The defaults: lowest addresses first, up to 64 MiB of metadata, which serve about three
    /// million ranges, a limit of 65,530 mappings of the host, as Linux has it, and no hook for
    /// signals.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            order: Order::Lowest,
            metadata_bytes: 64 << 20,
            mapping_limit: 65_530,
            signals: None,
        }
    }

    /// Sets which free addresses are taken first.
    #[must_use]
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets how many bytes the metadata may take: addresses for so many are reserved at once, or
    /// for fewer where address space is short.
    #[must_use]
    pub const fn metadata(mut self, max_bytes: usize) -> Self {
        self.metadata_bytes = max_bytes;
        self
    }
}

/// Mapping limits and signals.
impl RegionConfig {
    /// Sets how many mappings the host allows a process: `vm.max_map_count` on Linux, which is in the
    /// [probe](crate::probe::Probe::max_map_count). See [`RegionAllocator::mapping_pressure`].
    #[must_use]
    pub const fn mapping_limit(mut self, mappings: usize) -> Self {
        self.mapping_limit = mappings;
        self
    }

    /// Sets what keeps signals away from a thread that holds the lock, so that handlers may map and
    /// unmap, too.
    #[must_use]
    pub const fn signals(mut self, hook: SignalHook) -> Self {
        self.signals = Some(hook);
        self
    }
}

impl Default for RegionConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// So many mappings that the host may soon refuse more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingPressure {
    /// Mappings that the host keeps for the regions, [counted](RegionAllocator::host_mappings).
    pub mappings: usize,
    /// How many it allows the whole process.
    pub limit: usize,
}

/// What a [`RegionAllocator`] holds, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionStatistics {
    /// Addresses that were adopted and not returned.
    pub adopted: usize,
    /// Addresses given out.
    pub used: usize,
    /// Ranges in the tree, those of others included.
    pub ranges: usize,
    /// Metadata committed.
    pub metadata: usize,
    /// Metadata that a forked child left behind: the lock was held when it was forked, and what the
    /// lock guarded was built anew. It is not in `metadata`, and goes with the allocator.
    pub abandoned: usize,
}

impl RegionStatistics {
    /// Returns the bytes that are free.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.adopted - self.used
    }
}

/// What the lock guards.
pub(super) struct State {
    pub(super) writer: Writer,
    /// Pages adopted and not returned.
    pub(super) adopted: u64,
    /// Pages given out.
    pub(super) used: u64,
    /// Where was something taken last?
    pub(super) recent: u64,
}

/// An allocator of addresses that it was given: the calls of `mmap`, inside.
///
/// It begins as a pass-through to the provider below: what is asked of it is asked there. Once it
/// has [adopted](RegionAllocator::adopt) addresses, everything new is placed in them and nowhere
/// else; what was mapped before stays valid, and goes back where it came from.
///
/// It is a provider itself, wherever `&RegionAllocator` is used as one. `M` gives the memory for its
/// book-keeping, which must come from somewhere else. A call holds the lock while it asks the provider
/// below, so that finding and mapping are one step for all threads.
///
/// ```
/// # use hostmem_core::{page::Access, provider::{Commit, Error, PageProvider, ProcessMap, Request}};
/// # use hostmem_core::region::{ClaimRequest, RegionAllocator, RegionConfig, claim};
/// # fn above<P: PageProvider + ProcessMap + Copy>(os: P) -> Result<(), Error> {
/// let host: RegionAllocator<P> = RegionAllocator::on(os, os, RegionConfig::new())?;
/// let mut slots = [None; 256];
/// let claim = claim(os, &ClaimRequest::above(4 << 30), &mut slots)?;
/// for range in claim.usable() {
///     // SAFETY: claimed just now; the claim is not given back.
///     unsafe { host.adopt(range)? };
/// }
/// let mapped = host.map(&Request::bytes(1 << 20), Commit::READ_WRITE, 0)?;
/// assert!(mapped.addr() >= 4 << 30);
/// # Ok(())
/// # }
/// ```
pub struct RegionAllocator<P: PageProvider + Copy, M: PageProvider + Copy = P, R = Spin> {
    pub(super) inner: P,
    pub(super) page: PageSize,
    order: Order,
    active: AtomicBool,
    pub(super) parts: Renewable<Parts<M, R>>,
    pub(super) signals: Option<SignalHook>,
    mapping_limit: usize,
    pub(super) metadata: M,
    pub(super) metadata_bytes: usize,
    pub(super) names: Names,
}

impl<P: PageProvider + Copy + Default, M: PageProvider + Copy + Default, R: RawMutex>
    RegionAllocator<P, M, R>
{
    /// Makes an allocator without addresses on providers that need no arguments, such as an
    /// operating system's.
    ///
    /// # Errors
    ///
    /// The errors of [`RegionAllocator::on`].
    pub fn new(config: RegionConfig) -> Result<Self, Error> {
        Self::on(P::default(), M::default(), config)
    }
}

/// Making one, and looking at it.
impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Makes an allocator without addresses: a pass-through to `inner`.
    ///
    /// # Errors
    ///
    /// What `metadata` says of the reservation for the book-keeping.
    pub fn on(inner: P, metadata: M, config: RegionConfig) -> Result<Self, Error> {
        let page = inner.page_size();
        let end = 1 << (u64::BITS - page.bytes().trailing_zeros());
        let mut parts: Parts<M, R> = Parts::new(metadata, config.metadata_bytes, end)?;
        let writer = &mut parts.state.get_mut().writer;
        parts
            .tree
            .insert(writer, &parts.arena, (0, end), Record::Foreign)?;
        Ok(Self {
            inner,
            page,
            order: config.order,
            active: AtomicBool::new(false),
            parts: Renewable::new(parts),
            signals: config.signals,
            mapping_limit: config.mapping_limit,
            metadata,
            metadata_bytes: config.metadata_bytes,
            names: Names::new(),
        })
    }

    /// Takes a reservation over; from the first one on, the allocator is no pass-through any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Taken`] where some of it was adopted already; [`ErrorKind::Exhausted`] and what
    /// else the metadata's provider says. Nothing changes then.
    ///
    /// # Safety
    ///
    /// The range is reserved from the provider below, inaccessible, and from now on nobody's but the
    /// allocator's.
    pub unsafe fn adopt(&self, range: PageRange) -> Result<(), Error> {
        let mut held = self.lock();
        let pages = self.pages(range)?;
        let mut foreign = held.parts.entries(pages);
        if foreign.any(|(_, record)| record != Some(Record::Foreign)) {
            return Err(ErrorKind::Taken.into());
        }
        // What is placed in it is reached by its address.
        let _ = range.start().as_ptr().expose_provenance();
        loop {
            let parts = held.parts;
            let mut foreign = parts.entries(pages);
            while let Some((piece, _)) = foreign.find(|(_, r)| *r == Some(Record::Foreign)) {
                parts.tree.remove(&mut held.writer, &parts.arena, piece)?;
                held.adopted += piece.1 - piece.0;
            }
            if self.parts.is_current(parts) {
                break;
            }
            // A child that was forked meanwhile, and may not have it.
            drop(held);
            held = self.lock();
        }
        self.active.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives free addresses back to the provider below, in pieces of `least` bytes or more; returns
    /// how many bytes went.
    ///
    /// # Errors
    ///
    /// What that provider says of the first piece that it does not take; those before it are gone.
    pub fn release_unused(&self, least: usize) -> Result<usize, Error> {
        let mut held = self.lock();
        let least = self
            .page
            .round_up(least.max(1))
            .ok_or(ErrorKind::InvalidArgument)?;
        let least = self.page_of(least);
        let (mut from, mut released) = (0, 0);
        while let Some(gap) = held.parts.tree.next_gap(from, self.end()) {
            let len = gap.1 - gap.0;
            if len >= least {
                let parts = held.parts;
                parts.tree.prepare(&mut held.writer, &parts.arena, 2)?;
                // Given up before it goes: a child forked in between must not find it free.
                self.record(&mut held, gap, Some(Record::Foreign))?;
                held.adopted -= len;
                if !self.parts.is_current(parts) {
                    // A child that was forked meanwhile, and may place something there.
                    drop(held);
                    held = self.lock();
                    continue;
                }
                // SAFETY: free pages are reservations of the provider below that were adopted.
                if let Err(error) = unsafe { self.inner.release(self.range(gap)) } {
                    let had = parts.tree.remove(&mut held.writer, &parts.arena, gap)?;
                    held.adopted += had;
                    return Err(error);
                }
                released += len;
            }
            from = gap.1;
            if from >= self.end() {
                break;
            }
        }
        Ok(self.bytes(released))
    }

    /// Says whether the allocator has adopted addresses, so that it places things itself.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Returns what is known of the page around `addr`; `None` where it is free or not the
    /// allocator's. Takes no lock, and may be called from a signal handler.
    pub fn query(&self, addr: usize) -> Option<RegionRange> {
        let entry = self.parts.current().tree.query(self.page_of(addr))?;
        self.described(entry.start, entry.end(), entry.value::<Record>())
    }

    /// Yields what was given out in `window`, whole and in order. Each step looks anew, without a
    /// lock: what changes meanwhile is seen or not.
    pub fn ranges(&self, window: AddressRange) -> impl Iterator<Item = RegionRange> + '_ {
        let mut from = self.page_of(window.start());
        let last = self.page_of(window.last());
        core::iter::from_fn(move || {
            loop {
                let tree = &self.parts.current().tree;
                let entry = tree.next_from(from).filter(|e| e.start <= last)?;
                from = entry.end();
                let record = entry.value::<Record>();
                if let Some(range) = self.described(entry.start, entry.end(), record) {
                    return Some(range);
                }
            }
        })
    }

    /// Yields the free addresses in `window`, cut off at its ends, in order. Each step takes the
    /// lock for itself.
    pub fn gaps(&self, window: AddressRange) -> impl Iterator<Item = AddressRange> + '_ {
        let window = self.pages_inside(window);
        let mut from = window.map_or(0, |(low, _)| low);
        core::iter::from_fn(move || {
            let (_, high) = window.filter(|(_, high)| from < *high)?;
            let gap = self.lock().parts.tree.next_gap(from, high)?;
            from = gap.1;
            Some(self.addresses(gap))
        })
    }

    /// Returns the longest free piece of `window`, the lowest one of several.
    pub fn largest_gap(&self, window: AddressRange) -> Option<AddressRange> {
        let (low, high) = self.pages_inside(window)?;
        let held = self.lock();
        let tree = &held.parts.tree;
        tree.largest_gap(low, high).map(|gap| self.addresses(gap))
    }

    /// Returns what is held now.
    pub fn statistics(&self) -> RegionStatistics {
        let held = self.lock();
        RegionStatistics {
            adopted: self.bytes(held.adopted),
            used: self.bytes(held.used),
            ranges: held.writer.ranges(),
            metadata: held.parts.arena.committed_bytes(),
            abandoned: held.parts.abandoned,
        }
    }

    /// Warns where the regions take more than three quarters of the mappings that the host allows
    /// ([`RegionConfig::mapping_limit`]): at the limit it refuses to map, and to unmap a part of a
    /// mapping. Looks at every range, where there are so many that it could be.
    pub fn mapping_pressure(&self) -> Option<MappingPressure> {
        let limit = self.mapping_limit;
        let many = limit - limit / 4;
        // Each range is one mapping at most, and so is what is free behind it.
        let could_be = 2 * self.lock().writer.ranges() + 1 > many;
        let mappings = could_be.then(|| self.host_mappings());
        let mappings = mappings.filter(|mappings| *mappings > many)?;
        Some(MappingPressure { mappings, limit })
    }

    /// Counts the mappings that the host keeps for what was adopted, if it joins neighbours that
    /// are alike: what its limit (`vm.max_map_count` on Linux) counts. Looks at every range.
    ///
    /// What was [mapped by the caller](RegionAllocator::map_with), moved, or is a view of a dual
    /// mapping, counts by itself. A host may join some of that (parts of a file that lie side by
    /// side in it, too): then there are fewer. On Linux there may be more where pages that were
    /// written to while they lay apart are joined by what is mapped between them.
    pub fn host_mappings(&self) -> usize {
        let held = self.lock();
        let apart = Capabilities::NAMES | Capabilities::CORE_FILES | Capabilities::PAGE_ADVICE;
        let can = self.inner.capabilities_among(apart);
        let (mut count, mut before) = (0, None);
        for (_, record) in held.parts.entries((0, self.end())) {
            let seen = match record {
                Some(Record::Foreign) => None,
                Some(Record::Ours(state, mark)) => {
                    let access = match state {
                        PageState::Committed(access) => Some(access),
                        PageState::Reserved | PageState::Interrupted => Some(Access::None),
                        // A view tells itself apart.
                        PageState::Dual => None,
                    };
                    Some((access, mark.seen_by(can)))
                }
                None => Some((Some(Access::None), Mark::of(0))),
            };
            count += usize::from(seen.is_some() && seen != before);
            before = seen;
        }
        count
    }
}

/// What the calls have in common. The lock is held where a state is asked for.
impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Chooses free pages for a request. `way`, which is not known before, becomes the way to the
    /// page before them if that is known.
    pub(super) fn choose(
        &self,
        held: &Held<'_, M, R>,
        plan: &Plan,
        way: &mut Path,
    ) -> Result<Pages, Error> {
        let tree = &held.parts.tree;
        let len = self.page_of(plan.total());
        if let Place::Exact(base) | Place::Hint(base) = plan.place() {
            let exact = matches!(plan.place(), Place::Exact(_));
            let usable = self.page.is_aligned(base) && plan.aligned(base) && plan.fits(base);
            if exact || usable {
                let start = self.page_of(base);
                match self.free(held.parts, start, len) {
                    Ok(()) => return Ok((start, start + len)),
                    Err(error) if exact => return Err(error),
                    Err(_) => {}
                }
            }
        }
        let (low, high) = self
            .pages_inside(plan.within())
            .ok_or(ErrorKind::Exhausted)?;
        let wanted = Wanted {
            len,
            align: self.page_of(plan.align()),
            shift: self.page_of(plan.before()),
            low,
            high,
        };
        let start = match (plan.place(), self.order) {
            (Place::Near(addr), _) => tree.find_nearest(&wanted, self.page_of(addr)),
            (_, Order::Lowest) => tree.find_lowest_way(&wanted, way),
            (_, Order::Highest) => tree.find_highest(&wanted),
            (_, Order::Recent) => tree.find_nearest(&wanted, held.recent),
        };
        start
            .map(|start| (start, start + len))
            .ok_or(ErrorKind::Exhausted.into())
    }

    /// Chooses free pages for a request: all that it asks for, or as many as there are where it
    /// settles for fewer.
    pub(super) fn choose_longest(
        &self,
        held: &Held<'_, M, R>,
        plan: &Plan,
        way: &mut Path,
    ) -> Result<Pages, Error> {
        let tree = &held.parts.tree;
        let error = match self.choose(held, plan, way) {
            Err(error) if plan.min_total() < plan.total() => error,
            result => return result,
        };
        let gap = match plan.place() {
            Place::Exact(base) => {
                let start = self.page_of(base);
                self.free(held.parts, start, 1)?;
                let gap = tree.next_gap(start, self.end());
                gap.filter(|gap| gap.0 == start)
            }
            _ => {
                let window = self.pages_inside(plan.within());
                window.and_then(|(low, high)| tree.largest_gap(low, high))
            }
        };
        let gap = gap.map(|gap| self.addresses(gap)).ok_or(error)?;
        let start = plan.start_at_or_above(gap.start()).ok_or(error)?;
        let room = gap.last().checked_sub(start).map_or(0, |n| n + 1);
        if room >= plan.min_total() {
            return self.choose(held, &plan.of_total(room.min(plan.total())), way);
        }
        // A shorter gap may be aligned better than the longest one.
        plan.halving(|plan| self.choose(held, plan, way))
    }

    /// Says why pages are not all free, if so.
    fn free(&self, parts: &Parts<M, R>, start: u64, len: u64) -> Result<(), Error> {
        let end = start.checked_add(len).filter(|end| *end <= self.end());
        let end = end.ok_or(ErrorKind::OutsideRange)?;
        for (_, record) in parts.entries((start, end)) {
            match record {
                None => {}
                Some(Record::Foreign) => return Err(ErrorKind::OutsideRange.into()),
                Some(Record::Ours(..)) => return Err(ErrorKind::Taken.into()),
            }
        }
        Ok(())
    }

    /// Gives pages that are the allocator's a record, or makes them free, and counts. Cannot fail
    /// behind a `Tree::prepare`.
    pub(super) fn record(
        &self,
        held: &mut Held<'_, M, R>,
        pages: Pages,
        record: Option<Record>,
    ) -> Result<(), Error> {
        self.record_at(held, pages, record, None)
    }

    /// As [`RegionAllocator::record`], where the way to the page before them may be known.
    #[inline]
    pub(super) fn record_at(
        &self,
        held: &mut Held<'_, M, R>,
        pages: Pages,
        record: Option<Record>,
        path: Option<&Path>,
    ) -> Result<(), Error> {
        let parts = held.parts;
        let state: &mut State = held;
        let writer = &mut state.writer;
        let had = parts
            .tree
            .set_at(writer, &parts.arena, pages, record, path)?;
        state.used -= had;
        if let Some(Record::Ours(..)) = record {
            state.used += pages.1 - pages.0;
            state.recent = pages.1;
        }
        Ok(())
    }

    /// Makes pages somebody else's: the provider below lost them.
    pub(super) fn lose(&self, held: &mut Held<'_, M, R>, pages: Pages) {
        // Without memory for that the pages stay the allocator's on paper. They are given out once
        // more at worst, and the provider below refuses them.
        if self.record(held, pages, Some(Record::Foreign)).is_ok() {
            held.adopted -= pages.1 - pages.0;
        }
    }

    fn described(&self, start: u64, end: u64, record: Record) -> Option<RegionRange> {
        match record {
            Record::Foreign => None,
            Record::Ours(state, mark) => Some(RegionRange {
                addresses: self.addresses((start, end)),
                state,
                tag: mark.tag,
            }),
        }
    }
}

/// Looking.
impl<M: PageProvider + Copy, R> Parts<M, R> {
    /// Yields the pieces of a range of pages and their records; `None` for free ones.
    pub(super) fn entries(
        &self,
        (start, end): Pages,
    ) -> impl Iterator<Item = (Pages, Option<Record>)> + use<'_, M, R> {
        let mut at = start;
        core::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let next = self.tree.next_from(at).filter(|e| e.start < end);
            let (piece, record) = match next {
                Some(entry) if entry.start <= at => {
                    let record = entry.value::<Record>();
                    ((at, entry.end().min(end)), Some(record))
                }
                Some(entry) => ((at, entry.start), None),
                None => ((at, end), None),
            };
            at = piece.1;
            Some((piece, record))
        })
    }
}

/// Addresses and pages.
impl<P: PageProvider + Copy, M: PageProvider + Copy, R> RegionAllocator<P, M, R> {
    /// Returns the page behind the last one.
    pub(super) const fn end(&self) -> u64 {
        1 << (u64::BITS - self.page.bytes().trailing_zeros())
    }

    pub(super) const fn page_of(&self, addr: usize) -> u64 {
        (addr >> self.page.bytes().trailing_zeros()) as u64
    }

    fn bytes(&self, pages: u64) -> usize {
        let bytes = pages.saturating_mul(self.page.bytes() as u64);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Returns the pages of a range, which is in the host's pages.
    pub(super) fn pages(&self, range: PageRange) -> Result<Pages, Error> {
        let whole = self.page.is_aligned(range.addr()) && self.page.is_aligned(range.len_bytes());
        let pages = (self.page_of(range.addr()), self.page_of(range.end()));
        whole
            .then_some(pages)
            .ok_or(ErrorKind::InvalidArgument.into())
    }

    /// Returns the pages that lie wholly in a window.
    fn pages_inside(&self, window: AddressRange) -> Option<Pages> {
        let mask = self.page.bytes() - 1;
        let low = self.page_of(window.start()) + u64::from(window.start() & mask != 0);
        let high = self.page_of(window.last()) + u64::from(window.last() & mask == mask);
        (low < high).then_some((low, high))
    }

    /// Returns the address of a page of the address space.
    fn address_of(&self, page: u64) -> usize {
        let addr = page << self.page.bytes().trailing_zeros();
        usize::try_from(addr).unwrap_or(usize::MAX)
    }

    fn addresses(&self, (start, end): Pages) -> AddressRange {
        let last = self.address_of(end - 1) | (self.page.bytes() - 1);
        AddressRange::new(self.address_of(start), last).expect("ranges are not empty")
    }

    /// Describes pages that were adopted.
    pub(super) fn range(&self, (start, end): Pages) -> PageRange {
        let first = with_exposed_provenance_mut(self.address_of(start));
        let first = NonNull::new(first).expect("page 0 is never adopted");
        // Not all of the address space, so that the length is one too.
        let range = PageRange::new(first, self.address_of(end - start), self.page);
        range.expect("whole pages below the end of the address space")
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R> fmt::Debug for RegionAllocator<P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionAllocator")
            .field("order", &self.order)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}
