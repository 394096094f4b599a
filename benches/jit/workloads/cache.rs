//! What a code cache does beside churn: it writes where code was, is flushed and filled again,
//! drops many pieces at once, asks for pieces near each other, and looks through all of them.

use crate::{
    ours::{BATCH, Ours, Recycling},
    trace::Trace,
    workloads::churn::Churn,
};
use hostmem::{
    OsProvider,
    page::AddressRange,
    provider::{CoreSync, Placement},
};
use hostmem_bench::{
    asmjit::AsmJit,
    clock::CpuTime,
    lane::Lane,
    random::Random,
    subject::{Jit, Piece, Subject},
};
use std::{hint::black_box, time::Duration};

/// The code: it is never executed.
static CODE: [u8; 128] = [0xcc; 128];

/// Pieces that are allocated, written and released, by batches.
pub struct Recycle<'a> {
    ours: &'a Ours,
    how: Recycling,
}

impl<'a> Recycle<'a> {
    pub const fn new(ours: &'a Ours, how: Recycling) -> Self {
        Self { ours, how }
    }
}

impl Lane for Recycle<'_> {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps / BATCH {
            self.ours.recycle(&CODE, self.how);
        }
        start.elapsed()
    }

    fn batch(&self) -> Option<usize> {
        Some(BATCH * 64)
    }
}

/// The same of the peer, which has no barrier.
pub struct RecyclePeer<'a>(pub &'a AsmJit);

impl Lane for RecyclePeer<'_> {
    fn name(&self) -> &'static str {
        AsmJit::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps / BATCH {
            let pieces: [Piece; BATCH] =
                std::array::from_fn(|_| self.0.alloc_written(CODE.len(), &CODE));
            for piece in pieces {
                // SAFETY: allocated just now; no other code uses its memory.
                unsafe { self.0.release(piece) };
            }
        }
        start.elapsed()
    }

    fn batch(&self) -> Option<usize> {
        Some(BATCH * 64)
    }
}

/// Barriers alone.
pub struct Barriers;

impl Lane for Barriers {
    fn name(&self) -> &'static str {
        "barrier"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            let synced = OsProvider::new().sync_cores();
            synced.expect("the host cannot synchronize cores");
        }
        start.elapsed()
    }
}

/// Releases of random pieces of a live set, which is filled up again afterwards.
pub struct Releases<'a> {
    ours: &'a Ours,
    at_once: bool,
    live: Vec<Option<hostmem::jit::Span>>,
    sizes: Vec<usize>,
    random: Random,
}

impl<'a> Releases<'a> {
    pub fn new(ours: &'a Ours, trace: &Trace, at_once: bool, random: Random) -> Self {
        let mut releases = Self {
            ours,
            at_once,
            live: Vec::new(),
            sizes: trace.fill().to_vec(),
            random,
        };
        releases.fill();
        releases.run(releases.live.len() / 2);
        releases
    }

    fn fill(&mut self) {
        while self.live.len() < self.sizes.len() {
            let size = self.sizes[self.random.below(self.sizes.len())];
            self.live.push(Some(self.ours.span(size)));
        }
    }
}

impl Lane for Releases<'_> {
    fn name(&self) -> &'static str {
        if self.at_once {
            "at once"
        } else {
            "one by one"
        }
    }

    fn run(&mut self, steps: usize) -> Duration {
        let steps = steps.min(self.live.len());
        let mut chosen = Vec::with_capacity(steps);
        for _ in 0..steps {
            let at = self.random.below(self.live.len());
            chosen.push(self.live.swap_remove(at));
        }
        let start = CpuTime::now();
        self.ours.release_tokens(&mut chosen, self.at_once);
        let took = start.elapsed();
        self.fill();
        took
    }

    fn batch(&self) -> Option<usize> {
        Some(8192)
    }
}

/// Ours with every piece near its first one.
pub struct Near<'a> {
    ours: &'a Ours,
    anchor: usize,
}

impl<'a> Near<'a> {
    pub fn new(ours: &'a Ours) -> Self {
        // It stays: whatever comes is near it.
        let anchor = ours.alloc(64).address();
        Self { ours, anchor }
    }
}

impl Subject for Near<'_> {
    const NAME: &'static str = "near";

    fn alloc(&self, size: usize) -> Piece {
        self.ours.alloc_near(size, self.anchor)
    }

    unsafe fn release(&self, piece: Piece) {
        // SAFETY: the caller's promise.
        unsafe { self.ours.release(piece) };
    }
}

/// Requests near an anchor whose reach has no room for them, though many holes that are too short.
pub struct Refusals<'a> {
    ours: &'a Ours,
    window: Placement,
    size: usize,
}

impl<'a> Refusals<'a> {
    /// Fills 60,000 pieces of a granule, and releases every other one: the window is all of them
    /// but the last.
    pub fn new(ours: &'a Ours) -> Self {
        let granule = ours.granule();
        let pieces: Vec<Piece> = (0..60_000).map(|_| ours.alloc(granule)).collect();
        let mut starts: Vec<usize> = pieces.iter().map(Piece::address).collect();
        starts.sort_unstable();
        // Of the block that has most of them: the others lie elsewhere.
        let last = starts.len() - 1;
        let end = starts[last];
        let start = starts.iter().rev().zip(starts.iter().rev().skip(1));
        let start = start.take_while(|(a, b)| **a - **b == granule).last();
        let start = start.map_or(end, |(_, before)| *before);
        for (n, piece) in pieces.into_iter().enumerate() {
            if n % 2 == 0 {
                // SAFETY: allocated just now; no other code uses its memory.
                unsafe { ours.release(piece) };
            }
        }
        let range = AddressRange::new(start, end + granule - 1).expect("not empty");
        Self {
            ours,
            window: Placement::within(range),
            size: 2 * granule,
        }
    }
}

impl Lane for Refusals<'_> {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            assert!(self.ours.refuse(self.size, self.window), "there is no room");
        }
        start.elapsed()
    }
}

/// Iteration over the live pieces of a churn.
pub struct Iteration<'a>(pub &'a Churn<'a, Ours>);

impl Lane for Iteration<'_> {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let ours = self.0.subject();
        let mut left = steps;
        let start = CpuTime::now();
        while left > 0 {
            left -= ours.walk(left).min(left);
        }
        start.elapsed()
    }
}

/// Queries that return the word too, of an allocator with words.
pub struct Tagged<'a>(pub &'a Ours);

impl Subject for Tagged<'_> {
    const NAME: &'static str = "tagged";

    fn alloc(&self, size: usize) -> Piece {
        self.0.alloc(size)
    }

    unsafe fn release(&self, piece: Piece) {
        // SAFETY: the caller's promise.
        unsafe { self.0.release(piece) };
    }
}

impl Jit for Tagged<'_> {
    fn query(&self, pc: usize) -> Option<(usize, usize)> {
        let (start, len, word) = self.0.query_tagged(pc)?;
        black_box(word);
        Some((start, len))
    }

    fn alloc_and_shrink(&self, size: usize, keep: usize) -> Piece {
        self.0.alloc_and_shrink(size, keep)
    }

    fn usage(&self) -> hostmem_bench::subject::Usage {
        self.0.usage()
    }
}

/// A cache of a length in pieces of 4 KiB, flushed when it is full.
pub struct Flushes<'a> {
    ours: &'a Ours,
    len: usize,
    /// Whether filling it again is measured, or flushing it.
    fills: bool,
}

impl<'a> Flushes<'a> {
    pub fn new(ours: &'a Ours, len: usize, fills: bool) -> Self {
        let flushes = Self { ours, len, fills };
        flushes.fill();
        flushes
    }

    fn fill(&self) -> Duration {
        let start = CpuTime::now();
        for _ in 0..self.len / 4096 {
            let _flushed_later = black_box(self.ours.alloc(4096));
        }
        start.elapsed()
    }

    fn flush(&self) -> Duration {
        let start = CpuTime::now();
        self.ours.flush();
        start.elapsed()
    }
}

impl Lane for Flushes<'_> {
    fn name(&self) -> &'static str {
        if self.fills { "refill" } else { "reset" }
    }

    fn run(&mut self, steps: usize) -> Duration {
        let mut took = Duration::ZERO;
        let each = if self.fills { self.len / 4096 } else { 1 };
        for _ in 0..steps.div_ceil(each) {
            let (flush, fill) = (self.flush(), self.fill());
            took += if self.fills { fill } else { flush };
        }
        took
    }

    fn batch(&self) -> Option<usize> {
        Some(if self.fills { self.len / 4096 } else { 1 })
    }
}
