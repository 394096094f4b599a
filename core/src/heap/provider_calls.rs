//! The calls of the provider for blocks, counted.

use super::Heap;
use crate::{
    page::PageRange,
    provider::{Commit, Error, PageProvider, PageWish, Purged, Request},
    sync::RawMutex,
};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How often a heap has called its provider for memory of blocks, failed calls included; calls for
/// metadata are not counted. Counts wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderCalls {
    /// For addresses: segments and huge blocks.
    pub reserve: usize,
    /// For memory.
    pub commit: usize,
    /// To give memory back, of addresses that stay accessible.
    pub purge: usize,
    /// To move memory to other addresses.
    pub moves: usize,
    /// To give memory and access back: at the highest level of hardening, and where memory is
    /// exhausted.
    pub decommit: usize,
    /// To give addresses back, and their memory.
    pub release: usize,
}

/// The counts. They order nothing.
pub(super) struct Calls {
    reserve: AtomicUsize,
    commit: AtomicUsize,
    purge: AtomicUsize,
    moves: AtomicUsize,
    decommit: AtomicUsize,
    release: AtomicUsize,
}

impl Calls {
    pub(super) const fn new() -> Self {
        Self {
            reserve: AtomicUsize::new(0),
            commit: AtomicUsize::new(0),
            purge: AtomicUsize::new(0),
            moves: AtomicUsize::new(0),
            decommit: AtomicUsize::new(0),
            release: AtomicUsize::new(0),
        }
    }

    pub(super) fn counts(&self) -> ProviderCalls {
        ProviderCalls {
            reserve: self.reserve.load(Relaxed),
            commit: self.commit.load(Relaxed),
            purge: self.purge.load(Relaxed),
            moves: self.moves.load(Relaxed),
            decommit: self.decommit.load(Relaxed),
            release: self.release.load(Relaxed),
        }
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    pub(super) fn reserve_pages(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        self.calls.reserve.fetch_add(1, Relaxed);
        self.provider.reserve(request)
    }

    /// # Safety
    ///
    /// Those of [`PageProvider::commit`].
    pub(super) unsafe fn commit_pages(
        &self,
        range: PageRange,
        pages: PageWish,
    ) -> Result<(), Error> {
        self.calls.commit.fetch_add(1, Relaxed);
        let how = Commit {
            pages,
            ..Commit::READ_WRITE
        };
        // SAFETY: the provider asks what this function does of the range.
        unsafe { self.provider.commit(range, how) }.map(|_| ())
    }

    /// # Safety
    ///
    /// Those of [`PageProvider::purge`].
    pub(super) unsafe fn purge_pages(&self, range: PageRange) -> Result<Purged, Error> {
        self.calls.purge.fetch_add(1, Relaxed);
        // SAFETY: the provider asks what this function does of the range.
        unsafe { self.provider.purge(range) }
    }

    /// # Safety
    ///
    /// Those of [`PageProvider::move_pages`].
    pub(super) unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        self.calls.moves.fetch_add(1, Relaxed);
        // SAFETY: the provider asks what this function does of the two ranges.
        unsafe { self.provider.move_pages(from, to) }
    }

    /// # Safety
    ///
    /// Those of [`PageProvider::decommit`].
    pub(super) unsafe fn decommit_pages(&self, range: PageRange) -> Result<(), Error> {
        self.calls.decommit.fetch_add(1, Relaxed);
        // SAFETY: the provider asks what this function does of the range.
        unsafe { self.provider.decommit(range) }
    }

    /// # Safety
    ///
    /// Those of [`PageProvider::release`].
    pub(super) unsafe fn release_pages(&self, range: PageRange) -> Result<(), Error> {
        self.calls.release.fetch_add(1, Relaxed);
        // SAFETY: the provider asks what this function does of the range.
        unsafe { self.provider.release(range) }
    }
}
