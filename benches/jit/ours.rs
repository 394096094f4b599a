//! hostmem's `JitAllocator`: all contact of this benchmark with its interface.

use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig, JitError, Reset, Span, Words},
    provider::Placement,
};
use hostmem_bench::subject::{Jit, Piece, Subject, Usage};
use std::ptr::NonNull;

/// Pieces that are written as one.
pub const BATCH: usize = 64;

/// How code gets into memory that held code.
#[derive(Clone, Copy)]
pub enum Recycling {
    /// By a batch.
    Batch,
    /// Piece by piece, with one barrier for all.
    Deferred,
    /// Piece by piece, with a barrier each.
    Now,
}

/// hostmem's `JitAllocator`. It maps everything twice, as always.
pub struct Ours {
    jit: JitAllocator<OsProvider, OsProvider, OsLock>,
}

impl Ours {
    /// Makes an allocator with the default configuration.
    ///
    /// # Errors
    ///
    /// Where the host gives no memory.
    pub fn new() -> Result<Self, JitError> {
        Self::with(JitConfig::new())
    }

    /// Makes an allocator whose first block holds `len_bytes`, a power of two.
    ///
    /// # Errors
    ///
    /// Where the host gives no memory.
    pub fn with_first_block(len_bytes: usize) -> Result<Self, JitError> {
        let most = JitConfig::new().max_block_size_bytes();
        Self::with(JitConfig::new().block_size(len_bytes, most))
    }

    fn with(config: JitConfig) -> Result<Self, JitError> {
        let os = OsProvider::new();
        let jit = JitAllocator::on(os, os, config)?;
        Ok(Self { jit })
    }

    /// Returns the granule in bytes.
    pub fn granule(&self) -> usize {
        self.jit.config().granularity_bytes()
    }

    /// Makes an allocator whose spans carry a word of 64 bits.
    ///
    /// # Errors
    ///
    /// Where the host gives no memory.
    pub fn with_words() -> Result<Self, JitError> {
        Self::with(JitConfig::new().words(Words::Bits64))
    }

    /// Allocates, writes, publishes and releases [`BATCH`] pieces.
    pub fn recycle(&self, code: &[u8], how: Recycling) {
        let mut spans: [Option<Span>; BATCH] = std::array::from_fn(|_| Some(self.span(code.len())));
        match how {
            Recycling::Batch => {
                let mut batch = self.jit.batch();
                for span in spans.iter_mut().flatten() {
                    let written = batch.write(span, 0, code);
                    written.expect("a live span refuses to be written");
                }
                batch.finish().expect("cores cannot be synchronized");
            }
            Recycling::Deferred => {
                for span in spans.iter_mut().flatten() {
                    let written = self.jit.write_deferred(span, 0, code);
                    written.expect("a live span refuses to be written");
                }
                self.jit.publish().expect("cores cannot be synchronized");
            }
            Recycling::Now => {
                for span in spans.iter_mut().flatten() {
                    self.publish(span, code);
                }
            }
        }
        self.release_tokens(&mut spans, false);
    }

    /// Releases spans, at once or one by one.
    pub fn release_tokens(&self, spans: &mut [Option<Span>], at_once: bool) {
        if at_once {
            assert_eq!(
                self.jit.release_many(spans),
                0,
                "live spans are not taken back"
            );
            return;
        }
        for span in spans.iter_mut().filter_map(Option::take) {
            let released = self.jit.release(span);
            released.expect("a live span is not taken back");
        }
    }

    /// Allocates within 2 GiB of an anchor.
    pub fn alloc_near(&self, size: usize, anchor: usize) -> Piece {
        let span = self.jit.alloc_with(size, Placement::near(anchor, 2 << 30));
        piece(&span.expect("hostmem has no memory"))
    }

    /// Asks for a piece in a window that has no room for one; says whether it was refused.
    pub fn refuse(&self, size: usize, window: Placement) -> bool {
        self.jit.alloc_with(size, window).is_err()
    }

    /// Looks at up to so many live spans; returns how many there were.
    pub fn walk(&self, most: usize) -> usize {
        let spans = self.jit.spans().take(most);
        spans.map(std::hint::black_box).count()
    }

    /// Finds a span with its word.
    pub fn query_tagged(&self, pc: usize) -> Option<(usize, usize, u64)> {
        let found = self.jit.query_tagged(pc)?;
        Some((found.span.rx.addr().get(), found.span.len, found.word))
    }

    /// Releases everything, and keeps the blocks.
    pub fn flush(&self) {
        // SAFETY: no piece is used afterwards: they are measured, and nothing else.
        unsafe { self.jit.reset(Reset::Keep) };
    }

    /// Allocates as who keeps the token.
    pub fn span(&self, size: usize) -> Span {
        self.jit.alloc(size).expect("hostmem has no memory")
    }

    fn publish(&self, span: &mut Span, code: &[u8]) {
        let written = self.jit.write(span, 0, code);
        written.expect("a live span refuses to be written");
    }

    /// Allocates a piece for `code`, writes and publishes it.
    pub fn alloc_and_write(&self, code: &[u8]) -> Piece {
        let mut span = self.span(code.len());
        self.publish(&mut span, code);
        piece(&span)
    }

    /// As `alloc_and_write` without publishing: what is compared with it.
    pub fn alloc_and_copy(&self, code: &[u8]) -> Piece {
        let span = self.span(code.len());
        copy(&span, code);
        piece(&span)
    }

    /// Allocates [`BATCH`] pieces for `code`, writes and publishes them all, and appends them.
    pub fn alloc_and_write_batch(&self, code: &[u8], pieces: &mut Vec<Piece>) {
        let mut spans: [Span; BATCH] = std::array::from_fn(|_| self.span(code.len()));
        let mut batch = self.jit.batch();
        for span in &mut spans {
            let written = batch.write(span, 0, code);
            written.expect("a live span refuses to be written");
        }
        batch.finish().expect("memory that never held code");
        pieces.extend(spans.iter().map(piece));
    }

    /// As `alloc_and_write_batch` without publishing: what is compared with it.
    pub fn alloc_and_copy_batch(&self, code: &[u8], pieces: &mut Vec<Piece>) {
        let spans: [Span; BATCH] = std::array::from_fn(|_| self.span(code.len()));
        for span in &spans {
            copy(span, code);
        }
        pieces.extend(spans.iter().map(piece));
    }
}

/// Keeps of a span where it starts: the other tokens are one word too.
fn piece(span: &Span) -> Piece {
    Piece::new(span.rx().addr().get()).expect("no span starts at null")
}

fn copy(span: &Span, code: &[u8]) {
    assert!(code.len() <= span.len_bytes(), "the code does not fit");
    // SAFETY: the span was allocated by the caller just now, so its writable view is mapped and
    // no other code's, and has room for the code, which lies outside.
    unsafe {
        span.rw()
            .copy_from_nonoverlapping(NonNull::from(code).cast(), code.len());
    }
}

impl Subject for Ours {
    const NAME: &'static str = "ours";

    fn alloc(&self, size: usize) -> Piece {
        piece(&self.span(size))
    }

    unsafe fn release(&self, piece: Piece) {
        // SAFETY: a span starts there, which the caller owns; its token went when the piece was
        // made.
        let released = unsafe { self.jit.release_at(piece.address()) };
        released.expect("a live span is not taken back");
    }
}

impl Jit for Ours {
    fn query(&self, pc: usize) -> Option<(usize, usize)> {
        let found = self.jit.query(pc)?;
        Some((found.rx.addr().get(), found.len))
    }

    fn alloc_and_shrink(&self, size: usize, keep: usize) -> Piece {
        let mut span = self.span(size);
        let shrunk = self.jit.shrink(&mut span, keep);
        shrunk.expect("a live span does not shrink");
        piece(&span)
    }

    fn usage(&self) -> Usage {
        let statistics = self.jit.statistics();
        Usage {
            used: statistics.used,
            reserved: statistics.reserved,
            metadata: statistics.metadata,
        }
    }
}
