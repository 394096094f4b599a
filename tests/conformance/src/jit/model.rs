//! A JIT allocator with an oracle beside it, that knows what every call must do.

use super::{JitProvider, shadow::Shadow};
use alloc::vec::Vec;
use core::{ptr::NonNull, slice};
use hostmem_core::{
    jit::{JitAllocator, JitError, JitStatistics, Span, SpanInfo},
    provider::{ErrorKind, PageProvider},
};

/// A live span and what was written to it: the whole of it, at first.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) span: Span,
    contents: Vec<u8>,
}

impl Live {
    pub(super) fn rx(&self) -> usize {
        self.span.rx().addr().get()
    }

    pub(super) fn len(&self) -> usize {
        self.span.len_bytes()
    }

    pub(super) fn info(&self) -> SpanInfo {
        SpanInfo {
            rx: self.span.rx(),
            rw: self.span.rw(),
            len: self.len(),
        }
    }

    /// Asserts that a view shows what was written. `at` is the view's start of the span.
    #[track_caller]
    fn expect_view(&self, at: NonNull<u8>, view: &str) {
        // SAFETY: the span is live, so its bytes are mapped in both views and readable, and only
        // the model writes to it, which is borrowed here.
        let bytes = unsafe { slice::from_raw_parts(at.as_ptr(), self.contents.len()) };
        if bytes == self.contents {
            return;
        }
        let wrong = bytes
            .iter()
            .zip(&self.contents)
            .position(|(found, written)| found != written);
        assert_eq!(
            wrong, None,
            "{:?}: the {view} view differs at this offset",
            self.span
        );
    }
}

/// Makes `len` bytes of a 64-bit pattern.
pub(super) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = seed.to_le_bytes().repeat(len.div_ceil(8));
    bytes.truncate(len);
    bytes
}

/// An allocator, its live spans, and what its statistics must be.
pub(super) struct Model<P: JitProvider, M: PageProvider + Copy = P> {
    pub(super) jit: JitAllocator<P, M>,
    pub(super) live: Vec<Live>,
    shadow: Shadow,
    used: usize,
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

    /// Allocates `size` bytes and fills the span with the pattern of `seed`. An error has changed
    /// nothing; the span is lost to nobody if only the write fails.
    #[track_caller]
    pub(super) fn alloc(&mut self, size: usize, seed: u64) -> Result<(), JitError> {
        let before = self.jit.statistics();
        let mut span = self
            .jit
            .alloc(size)
            .inspect_err(|_| self.expect_unchanged(before))?;
        let len = size.next_multiple_of(self.granularity());
        assert_eq!(
            span.len_bytes(),
            len,
            "a span is as long as asked for, in whole granules"
        );
        for at in [span.rx(), span.rw()] {
            assert!(
                at.addr().get().is_multiple_of(self.granularity()),
                "{span:?} is misaligned"
            );
        }
        let contents = pattern(len, seed);
        let written = self.jit.write(&mut span, 0, &contents);
        let live = Live { span, contents };
        self.shadow.insert(live.info());
        self.used += len;
        live.expect_view(live.span.rx(), "executable");
        let found = self.jit.query(live.rx() + (len - 1) / 2);
        assert_eq!(found, Some(live.info()), "a query finds the whole span");
        self.live.push(live);
        self.expect_statistics();
        Self::only_sync(written)
    }

    /// Takes a failure to synchronize other cores for what it is: everything was written.
    fn only_sync(written: Result<(), JitError>) -> Result<(), JitError> {
        match written {
            Ok(()) | Err(JitError::SyncCores(_)) => Ok(()),
            error => error,
        }
    }

    /// Writes the pattern of `seed` to a part of the nth span.
    #[track_caller]
    pub(super) fn write(&mut self, n: usize, offset: usize, len: usize, seed: u64) {
        let bytes = pattern(len, seed);
        let live = &mut self.live[n];
        let result = self.jit.write(&mut live.span, offset, &bytes);
        if offset
            .checked_add(len)
            .is_some_and(|end| end <= live.contents.len())
        {
            Self::only_sync(result).expect("a write inside a span succeeds");
            live.contents[offset..offset + len].copy_from_slice(&bytes);
        } else {
            assert_eq!(
                result,
                Err(JitError::OutOfBounds),
                "a write that leaves its span"
            );
        }
        self.expect_intact(n);
    }

    /// Shrinks the nth span, or asks for what must be refused.
    #[track_caller]
    pub(super) fn shrink(&mut self, n: usize, new_len: usize) {
        let granularity = self.granularity();
        let live = &mut self.live[n];
        let old = live.info();
        let result = self.jit.shrink(&mut live.span, new_len);
        match new_len.checked_next_multiple_of(granularity) {
            Some(0) | None => assert_eq!(result, Err(JitError::InvalidSize), "shrink to {new_len}"),
            Some(len) if len > old.len => {
                let refused = matches!(result, Err(JitError::Grow | JitError::InvalidSize));
                assert!(
                    refused,
                    "shrink to {new_len}: {result:?}, but it would grow"
                );
            }
            Some(len) => {
                assert_eq!(result, Ok(()), "shrink to {new_len} from {}", old.len);
                live.contents.truncate(len);
                self.shadow.remove(old);
                self.shadow.insert(SpanInfo { len, ..old });
                self.used -= old.len - len;
            }
        }
        self.expect_info(n, self.shadow.around(old.rx.addr().get()));
        self.expect_statistics();
        self.expect_intact(n);
    }

    #[track_caller]
    fn expect_info(&self, n: usize, expected: Option<SpanInfo>) {
        let live = &self.live[n];
        assert_eq!(
            Some(live.info()),
            expected,
            "the token says how long the span is"
        );
        assert_eq!(self.jit.query(live.rx()), expected, "and so does the query");
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
        live.expect_view(live.span.rx(), "executable");
        live.expect_view(live.span.rw(), "writable");
        let info = live.info();
        self.shadow.remove(info);
        self.used -= info.len;
        self.jit
            .release(live.span)
            .expect("an owned span is taken back");
        self.expect_query(info.rx.addr().get());
        self.expect_statistics();
    }

    #[track_caller]
    pub(super) fn release_all(&mut self) {
        while !self.live.is_empty() {
            self.release(self.live.len() / 2);
        }
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
    pub(super) fn expect_intact(&self, n: usize) {
        let live = &self.live[n];
        live.expect_view(live.span.rx(), "executable");
        live.expect_view(live.span.rw(), "writable");
    }

    #[track_caller]
    pub(super) fn expect_all_intact(&self) {
        (0..self.live.len()).for_each(|n| self.expect_intact(n));
    }

    /// Asserts that a failed call changed no statistics; metadata that was committed for it stays.
    #[track_caller]
    pub(super) fn expect_unchanged(&self, before: JitStatistics) {
        let after = self.jit.statistics();
        let before = JitStatistics {
            metadata: after.metadata,
            ..before
        };
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
}

/// Returns the kind of the provider's error behind an error of the allocator.
pub(super) fn cause(error: JitError) -> Option<ErrorKind> {
    match error {
        JitError::Metadata(e) | JitError::SyncCores(e) => Some(e.kind()),
        JitError::Map(e) => Some(e.kind()),
        _ => None,
    }
}
