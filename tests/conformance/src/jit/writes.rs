//! Calls of the model that change what spans hold, and how long they are.

use super::{JitProvider, live::pattern, model::Model};
use alloc::vec::Vec;
use hostmem_core::{
    jit::{JitError, SpanInfo},
    provider::PageProvider,
};

impl<P: JitProvider, M: PageProvider + Copy> Model<P, M> {
    /// Takes a failure to synchronize other cores for what it is: everything was written.
    pub(super) fn only_sync(written: Result<(), JitError>) -> Result<(), JitError> {
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
        self.live[n].expect_intact();
    }

    /// Shrinks the nth span, or asks for what must be refused.
    #[track_caller]
    pub(super) fn shrink(&mut self, n: usize, new_len: usize) {
        let old = self.live[n].info();
        let result = self.jit.shrink(&mut self.live[n].span, new_len);
        self.shrunk(n, old, new_len, result);
    }

    /// Fills the nth span in place with the pattern of `seed`, and asks to keep so much of it.
    #[track_caller]
    pub(super) fn write_with(&mut self, n: usize, keep: Option<usize>, seed: u64) {
        let live = &mut self.live[n];
        let old = live.info();
        let bytes = pattern(old.len, seed);
        let result = self.jit.write_with(&mut live.span, |writer| {
            assert_eq!(writer.rx(), old.rx, "the writer knows where code will run");
            assert!(
                writer.bytes_mut() == live.contents,
                "the writer sees what the span held"
            );
            writer.bytes_mut().copy_from_slice(&bytes);
            if let Some(keep) = keep {
                writer.shrink_to(keep);
            }
        });
        live.contents = bytes;
        self.shrunk(n, old, keep.unwrap_or(old.len), Self::only_sync(result));
    }

    /// Writes to `count` spans from the nth on in one batch: to some a few bytes, to some
    /// everything, of which some keep a part only.
    #[track_caller]
    pub(super) fn batch(&mut self, n: usize, count: usize, seed: u64) {
        let mut batch = self.jit.batch();
        let mut shrunk = Vec::new();
        for (at, live) in self.live.iter_mut().enumerate().skip(n).take(count) {
            let old = live.info();
            if at % 3 == 0 {
                let bytes = pattern(old.len / 2, seed);
                let result = batch.write(&mut live.span, old.len / 4, &bytes);
                result.expect("a write inside a span succeeds");
                live.contents[old.len / 4..][..bytes.len()].copy_from_slice(&bytes);
                continue;
            }
            let keep = if at % 3 == 1 { old.len } else { old.len / 2 };
            live.contents = pattern(old.len, seed);
            let result = batch.write_with(&mut live.span, |writer| {
                writer.bytes_mut().copy_from_slice(&live.contents);
                writer.shrink_to(keep);
            });
            shrunk.push((at, old, keep, result));
        }
        if seed.is_multiple_of(4) {
            batch.finish_without_sync();
        } else {
            Self::only_sync(batch.finish()).expect("a batch ends");
        }
        for (at, old, keep, result) in shrunk {
            self.book_shrink(at, old, keep, result);
        }
        self.expect_statistics();
        let last = self.live.len().min(n.saturating_add(count));
        (n..last).for_each(|at| self.live[at].expect_intact());
    }

    /// Checks the answer to a request to keep so much of the nth span, and books it.
    #[track_caller]
    fn shrunk(&mut self, n: usize, old: SpanInfo, new_len: usize, result: Result<(), JitError>) {
        self.book_shrink(n, old, new_len, result);
        self.expect_statistics();
        self.live[n].expect_intact();
    }

    #[track_caller]
    fn book_shrink(
        &mut self,
        n: usize,
        old: SpanInfo,
        new_len: usize,
        result: Result<(), JitError>,
    ) {
        let live = &mut self.live[n];
        match new_len.checked_next_multiple_of(live.granule) {
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
                // SAFETY: the tail lies in the span that it was cut from.
                let tail = unsafe { old.rx.add(len) };
                self.expect_pattern(tail, old.len - len, "the tail of a span that shrank");
            }
        }
        self.expect_info(n, self.shadow.around(old.rx.addr().get()));
    }
}
