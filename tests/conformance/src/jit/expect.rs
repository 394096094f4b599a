//! What must hold between two calls.

use super::{JitProvider, live::first_unlike, model::Model};
use alloc::vec::Vec;
use core::ptr::NonNull;
use hostmem_core::{
    jit::{CodeBlock, JitError, JitStatistics, Mapping, Span, SpanInfo},
    provider::PageProvider,
};

impl<P: JitProvider, M: PageProvider + Copy> Model<P, M> {
    /// Returns the granule of the block that a span of `size` bytes was put into: the largest that
    /// divides it, unless that could not be had.
    #[track_caller]
    pub(super) fn granule_of(&self, span: &Span, size: usize, in_any_pool: bool) -> usize {
        let config = self.jit.config();
        let granules = size.div_ceil(self.granularity());
        let last = config.pool_count() - 1;
        let pool = last.min(granules.trailing_zeros() as usize);
        let expected = self.granularity() << pool;
        let may_be_alone = size > config.max_block_size_bytes();
        if last == 0 && !may_be_alone {
            return expected;
        }
        let found = self.block_at(span.rx()).expect("a span lies in a block");
        // A span that is longer than every ordinary block may have one to itself, of longer
        // granules.
        if may_be_alone && found.granularity > expected {
            assert_eq!(found.spans, 1, "{found:?} is for one span");
            assert!(
                found.granularity <= size >> 15,
                "{found:?} for {size} bytes"
            );
            return found.granularity;
        }
        let in_any_pool = in_any_pool || config.limit_bytes() != usize::MAX;
        assert!(
            found.granularity == expected || in_any_pool,
            "{size} bytes belong into granules of {expected}, not into {found:?}"
        );
        found.granularity
    }

    pub(super) fn block_at(&self, rx: NonNull<u8>) -> Option<CodeBlock> {
        self.jit.blocks().find(|b| b.rx.contains(rx.addr().get()))
    }

    /// Asserts that memory of a block that was never written reads as the fill pattern, if any.
    #[track_caller]
    pub(super) fn expect_pattern(&self, start: NonNull<u8>, len: usize, what: &str) {
        if let Some(pattern) = self.jit.config().fill_kind().pattern() {
            // SAFETY: blocks are readable, granules and pages are aligned, and no code writes now.
            let wrong = unsafe { first_unlike(start, len, pattern) };
            assert_eq!(
                wrong, None,
                "{what}: not the pattern {start:?} behind, of {len}"
            );
        }
    }

    /// Asserts that every byte of every block that belongs to no span reads as the fill pattern.
    #[track_caller]
    pub(super) fn expect_filled(&self) {
        if self.jit.config().fill_kind().pattern().is_none() {
            return;
        }
        for block in self.jit.blocks() {
            let mut at = block.rx.addr();
            let spans = self.shadow.within(at, block.rx.end());
            let ends = spans.map(|s| (s.rx.addr().get(), s.len));
            for (start, len) in ends.chain([(block.rx.end(), 0)]) {
                // SAFETY: at lies within the block, or at its end.
                let gap = unsafe { block.rx.start().add(at - block.rx.addr()) };
                self.expect_pattern(gap, start - at, "unused memory");
                at = start + len;
            }
        }
    }

    /// Asserts that the blocks are as the spans and the statistics say: every span in one, none
    /// overlaps another, and no more are empty than may be kept.
    #[track_caller]
    pub(super) fn expect_blocks(&self) {
        let (found, config) = (self.jit.statistics(), self.jit.config());
        let blocks: Vec<CodeBlock> = self.jit.blocks().collect();
        let sum = |of: fn(&CodeBlock) -> usize| blocks.iter().map(of).sum::<usize>();
        let total = (
            blocks.len(),
            sum(|b| b.spans),
            sum(|b| b.used),
            sum(|b| b.rx.len_bytes()),
        );
        let expected = (found.blocks, found.spans, found.used, found.reserved);
        assert_eq!(total, expected, "the blocks add up to the statistics");
        assert!(
            found.reserved <= config.limit_bytes(),
            "more than the limit: {found:?}"
        );
        let (mapping, _) = self.jit.mapping();
        for (n, block) in blocks.iter().enumerate() {
            assert_eq!(
                block.rx == block.rw,
                mapping != Mapping::Dual,
                "{block:?} is mapped as {mapping:?}"
            );
            let ahead = &blocks[n + 1..];
            assert!(
                ahead.iter().all(|b| block.rx.end() <= b.rx.addr()
                    && (mapping != Mapping::Dual || !b.rw.overlaps(block.rw))),
                "{block:?} overlaps a later one of {ahead:?}"
            );
            let (mut spans, mut used) = (0, 0);
            for span in self.shadow.within(block.rx.addr(), block.rx.end()) {
                let offset = span.rx.addr().get() - block.rx.addr();
                assert!(
                    offset + span.len <= block.rx.len_bytes(),
                    "{span:?} leaves {block:?}"
                );
                assert_eq!(
                    span.rw.addr().get(),
                    block.rw.addr() + offset,
                    "both views of {span:?} lie alike in {block:?}"
                );
                (spans, used) = (spans + 1, used + span.len);
            }
            assert_eq!((block.spans, block.used), (spans, used), "{block:?}");
        }
        for pool in 0..config.pool_count() {
            let granule = self.granularity() << pool;
            let empty = |b: &&CodeBlock| b.granularity == granule && b.spans == 0;
            let empty = blocks.iter().filter(empty).count();
            assert!(
                empty <= usize::from(!config.releases_immediately()),
                "{empty} blocks of granules of {granule} are kept empty"
            );
        }
        self.expect_filled();
    }

    #[track_caller]
    pub(super) fn expect_info(&self, n: usize, expected: Option<SpanInfo>) {
        let live = &self.live[n];
        assert_eq!(
            Some(live.info()),
            expected,
            "the token says how long the span is"
        );
        assert_eq!(self.jit.query(live.rx()), expected, "and so does the query");
    }

    /// Asserts that a query of any address answers as the shadow does.
    #[track_caller]
    pub(super) fn expect_query(&self, addr: usize) {
        assert_eq!(
            self.jit.query(addr),
            self.shadow.around(addr),
            "query of {addr:#x}"
        );
    }

    #[track_caller]
    pub(super) fn expect_all_intact(&self) {
        self.live.iter().for_each(|live| live.expect_intact());
    }

    /// Asserts that a failed call changed no statistics; metadata that was committed for it stays.
    #[track_caller]
    pub(super) fn expect_unchanged(&self, mut before: JitStatistics) {
        let after = self.jit.statistics();
        before.metadata = after.metadata;
        assert_eq!(after, before, "a failed call changed the statistics");
    }

    #[track_caller]
    pub(super) fn expect_statistics(&self) {
        let found = self.jit.statistics();
        assert_eq!(found.spans, self.shadow.len(), "live spans: {found:?}");
        assert_eq!(found.used, self.used, "bytes in use: {found:?}");
        assert!(
            found.reserved >= found.used,
            "more used than mapped: {found:?}"
        );
        assert_eq!(
            found.blocks == 0,
            found.reserved == 0,
            "blocks have bytes: {found:?}"
        );
        assert!(
            found.blocks == 0 || found.metadata > 0,
            "blocks have metadata: {found:?}"
        );
    }

    /// Asserts that a token is refused by the calls that take one, and comes back where it can.
    #[track_caller]
    pub(super) fn expect_not_owned(&self, span: Span) {
        let mut span = span;
        assert_eq!(
            self.jit.write(&mut span, 0, &[0]),
            Err(JitError::NotOwned),
            "write"
        );
        assert_eq!(
            self.jit.shrink(&mut span, 1),
            Err(JitError::NotOwned),
            "shrink"
        );
        let written = self
            .jit
            .write_with(&mut span, |_| panic!("it must not be called"));
        assert_eq!(written, Err(JitError::NotOwned), "write_with");
        let mut batch = self.jit.batch();
        assert_eq!(
            batch.write(&mut span, 0, &[0]),
            Err(JitError::NotOwned),
            "a batch"
        );
        drop(batch);
        let refused = self.jit.release(span).expect_err("release");
        assert_eq!(refused.error, JitError::NotOwned, "release");
    }
}
