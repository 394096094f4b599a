//! A JIT allocator with an oracle beside it, that knows what every call must do.

use super::{
    JitProvider,
    live::{Live, pattern},
    shadow::Shadow,
};
use alloc::vec::Vec;
use core::mem;
use hostmem_core::{
    jit::{JitAllocator, JitError, JitStatistics, Reset, Span},
    provider::{Capabilities, ErrorKind, PageProvider, Placement},
};

/// An allocator, its live spans, and what its statistics must be.
pub(super) struct Model<P: JitProvider, M: PageProvider + Copy = P> {
    pub(super) jit: JitAllocator<P, M>,
    pub(super) live: Vec<Live>,
    pub(super) shadow: Shadow,
    pub(super) used: usize,
}

impl<P: JitProvider, M: PageProvider + Copy> Model<P, M> {
    pub(super) fn new(jit: JitAllocator<P, M>) -> Self {
        assert_eq!(
            jit.statistics(),
            JitStatistics::default(),
            "a new allocator holds nothing"
        );
        Self {
            jit,
            live: Vec::new(),
            shadow: Shadow::default(),
            used: 0,
        }
    }

    pub(super) fn granularity(&self) -> usize {
        self.jit.config().granularity_bytes()
    }

    /// Returns how many empty blocks may be kept.
    pub(super) fn most_empty(&self) -> usize {
        if self.jit.config().releases_immediately() {
            0
        } else {
            self.jit.config().pool_count()
        }
    }

    /// Allocates `size` bytes and fills the span with the pattern of `seed`. An error has changed
    /// nothing; the span is lost if only the write fails.
    #[track_caller]
    pub(super) fn alloc(&mut self, size: usize, seed: u64) -> Result<(), JitError> {
        let before = self.jit.statistics();
        let span = self
            .jit
            .alloc(size)
            .inspect_err(|_| self.expect_unchanged(before))?;
        self.adopt(span, size, false, seed)
    }

    /// Allocates as [`Model::alloc`] does, where `placement` says.
    #[track_caller]
    pub(super) fn alloc_with(
        &mut self,
        size: usize,
        placement: Placement,
        seed: u64,
    ) -> Result<(), JitError> {
        let before = self.jit.statistics();
        let span = self
            .jit
            .alloc_with(size, placement)
            .inspect_err(|_| self.expect_unchanged(before))?;
        let start = span.rx().addr().get();
        assert!(
            start.is_multiple_of(placement.align),
            "{span:?} is not aligned to {:#x}",
            placement.align
        );
        let within = placement.within;
        let last = start + (span.len_bytes() - 1);
        assert!(
            within.contains(start) && within.contains(last),
            "{span:?} lies outside {within:?}"
        );
        // Where a window has no room for a block, holes of another pool serve.
        self.adopt(span, size, within != Placement::ANYWHERE.within, seed)
    }

    /// Checks a new span, fills it with the pattern of `seed`, and adds it.
    #[track_caller]
    fn adopt(
        &mut self,
        span: Span,
        size: usize,
        in_any_pool: bool,
        seed: u64,
    ) -> Result<(), JitError> {
        let mut span = span;
        let granule = self.granule_of(&span, size, in_any_pool);
        assert_eq!(
            span.len_bytes(),
            size.next_multiple_of(granule),
            "a span is as long as asked for, in whole granules"
        );
        for at in [span.rx(), span.rw()] {
            assert!(
                at.addr().get().is_multiple_of(self.granularity()),
                "{span:?} is misaligned"
            );
        }
        let len = span.len_bytes();
        self.shadow.insert(span.info());
        self.used += len;
        self.expect_pattern(span.rx(), len, "a span that is not written yet");
        let contents = pattern(len, seed);
        let written = self.jit.write(&mut span, 0, &contents);
        let live = Live {
            span,
            contents,
            granule,
        };
        live.expect_view(live.span.rx(), "executable");
        let found = self.jit.query(live.rx() + (len - 1) / 2);
        assert_eq!(found, Some(live.info()), "a query finds the whole span");
        self.live.push(live);
        self.expect_statistics();
        Self::only_sync(written)
    }

    /// Checks both views of the nth span and releases it.
    #[track_caller]
    pub(super) fn release(&mut self, n: usize) {
        let live = self.live.swap_remove(n);
        self.release_taken(live);
    }

    /// Checks both views of a span that was taken out of the live ones, and releases it.
    #[track_caller]
    pub(super) fn release_taken(&mut self, live: Live) {
        live.expect_intact();
        let info = live.info();
        self.shadow.remove(info);
        self.used -= info.len;
        self.jit
            .release(live.span)
            .expect("an owned span is taken back");
        self.expect_query(info.rx.addr().get());
        self.expect_statistics();
        let filled = self.jit.config().fill_kind().pattern().is_some();
        if filled && self.block_at(info.rx).is_some() {
            self.expect_pattern(info.rx, info.len, "a span that was released");
        }
    }

    #[track_caller]
    pub(super) fn release_all(&mut self) {
        while !self.live.is_empty() {
            self.release(self.live.len() / 2);
        }
    }

    /// Releases all spans at once; their tokens must be refused afterwards.
    #[track_caller]
    pub(super) fn reset(&mut self, how: Reset) {
        self.expect_all_intact();
        (self.shadow, self.used) = (Shadow::default(), 0);
        // SAFETY: no other code executes what the model wrote, and no other call is under way.
        unsafe { self.jit.reset(how) };
        self.expect_statistics();
        self.expect_blocks();
        let blocks = self.jit.statistics().blocks;
        let most = if how == Reset::Hard {
            0
        } else {
            self.most_empty()
        };
        assert!(blocks <= most, "{blocks} blocks are left after {how:?}");
        for live in mem::take(&mut self.live) {
            self.expect_query(live.rx());
            self.expect_not_owned(live.span);
        }
        self.expect_statistics();
    }

    /// Gives unused pages back; live spans must stay as they are.
    #[track_caller]
    pub(super) fn decommit(&self, able: Capabilities) {
        let before = self.jit.statistics();
        let bytes = self.jit.decommit_unused();
        assert_eq!(self.jit.statistics(), before, "no block and no span goes");
        assert!(
            bytes <= before.unused(),
            "{bytes} bytes given back of {before:?}"
        );
        let kept = self.jit.config().fill_kind().pattern().is_some();
        if kept || !able.contains(Capabilities::PURGE_DUAL) {
            assert_eq!(bytes, 0, "what has a pattern, or cannot go, stays");
        }
        self.expect_all_intact();
    }
}

/// Returns the kind of the provider's error behind an error of the allocator.
pub(super) fn cause(error: JitError) -> Option<ErrorKind> {
    match error {
        JitError::Metadata(e) | JitError::SyncCores(e) | JitError::Protect(e) => Some(e.kind()),
        JitError::Map(e) => Some(e.kind()),
        _ => None,
    }
}
