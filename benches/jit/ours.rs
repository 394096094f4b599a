//! hostmem's `JitAllocator`: all contact of this benchmark with its interface.

use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig, JitError, Span},
};
use hostmem_bench::subject::{Jit, Piece, Subject, Usage};
use std::ptr::NonNull;

/// Pieces that are written as one.
pub const BATCH: usize = 64;

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

    fn span(&self, size: usize) -> Span {
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
