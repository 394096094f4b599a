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
    SignalHook,
    config::{Order, RegionConfig},
    fork::Parts,
    lock::Held,
    record::{Names, Record},
};
use crate::{
    fork::Renewable,
    page::{PageRange, PageSize},
    provider::{Error, ErrorKind, PageProvider},
    range_map::{Pages, Path, Writer},
    sync::{RawMutex, Spin},
};
use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

/// The state that the lock guards.
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
/// It is a provider itself, wherever `&RegionAllocator` is used as one. `M` gives the memory for
/// its book-keeping, which must come from somewhere else. A call holds the lock while it asks the
/// provider below, so that finding and mapping are one step for all threads.
///
/// ```
/// # use hostmem_core::provider::{Commit, Error, PageProvider, ProcessMap, Request};
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
    pub(super) order: Order,
    active: AtomicBool,
    pub(super) parts: Renewable<Parts<M, R>>,
    pub(super) signals: Option<SignalHook>,
    pub(super) mapping_limit: usize,
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
    /// The range is reserved from the provider below, inaccessible, and from now on the
    /// allocator's alone.
    pub unsafe fn adopt(&self, range: PageRange) -> Result<(), Error> {
        let mut held = self.lock();
        let pages = self.pages(range)?;
        let mut foreign = held.parts.entries(pages);
        if foreign.any(|(_, record)| record != Some(Record::Foreign)) {
            return Err(ErrorKind::Taken.into());
        }
        // Memory that is placed in it is reached by its address.
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
    /// The provider's error for the first piece that it does not take; those before it are gone.
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
}

/// Records, which all calls make. The lock is held where a state is asked for.
impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
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
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R> fmt::Debug for RegionAllocator<P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionAllocator")
            .field("order", &self.order)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}
