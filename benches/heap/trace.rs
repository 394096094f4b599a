//! What is asked for, drawn beforehand: the same for all subjects.

use crate::{sizes::Mix, subject::Subject};
use hostmem_bench::{prefetch, random::Random};
use std::{alloc::Layout, ptr::NonNull};

/// What every block is aligned to, as `malloc` does by itself.
const ALIGN: usize = 16;

/// Steps of a trace at least, so that no branch predictor knows them by heart, and at most.
const LEAST: usize = 1 << 16;
const MOST: usize = 1 << 22;

/// Bytes of the smallest pages of any host.
const PAGE: usize = 4096;

/// How many steps ahead the harness asks for its own table.
const AHEAD: usize = 16;

/// Returns what to ask for.
#[inline]
pub fn layout(size: u32) -> Layout {
    Layout::from_size_align(size as usize, ALIGN).expect("sizes are small")
}

/// A live block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    start: NonNull<u8>,
    size: u32,
}

// SAFETY: whoever has the token has the block, as the harness sees to; heaps take blocks from any
// thread.
unsafe impl Send for Block {}

impl Block {
    /// The token of no block: stands in tables that are touched before they are filled.
    pub const NONE: Self = Self {
        start: NonNull::dangling(),
        size: 0,
    };

    /// Allocates a block and writes its beginning, as everybody does.
    #[inline]
    pub fn new(subject: &impl Subject, size: u32) -> Self {
        let start = subject.alloc(layout(size));
        // SAFETY: a live block of eight bytes or more, aligned to sixteen.
        unsafe { start.cast::<u64>().write(u64::from(size)) };
        Self { start, size }
    }

    /// Returns how many bytes were asked for.
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Writes all of the block from the byte at `from` on.
    ///
    /// # Safety
    ///
    /// The block is live, no other code uses it, and `from` is at most its size.
    #[inline]
    pub unsafe fn fill(self, from: usize) {
        // SAFETY: `from` is at most the size of the live block, by the caller's promise.
        let start = unsafe { self.start.add(from) };
        // SAFETY: the rest of the block, which is live and nobody else's, by the caller's promise.
        unsafe { start.write_bytes(1, self.size() - from) };
    }

    /// Writes a byte of each page of the block, so that all of it has memory.
    ///
    /// # Safety
    ///
    /// The block is live, and nobody else uses it.
    pub unsafe fn touch(self) {
        for at in (0..self.size()).step_by(PAGE) {
            // SAFETY: below the size of the live block, by the caller's promise.
            let byte = unsafe { self.start.add(at) };
            // SAFETY: a byte of the block, which is live and nobody else's, by the caller's
            // promise. Volatile, as nothing reads it.
            unsafe { byte.write_volatile(1) };
        }
    }

    /// Frees the block.
    ///
    /// # Safety
    ///
    /// It came from this subject's heap, is live, and the token is used no more.
    #[inline]
    pub unsafe fn free(self, subject: &impl Subject) {
        // SAFETY: the caller's promise; the layout is the one of `new`.
        unsafe { subject.free(self.start, layout(self.size)) }
    }

    /// Makes the block as long as `size` says.
    ///
    /// # Safety
    ///
    /// It came from this subject's heap, and is live.
    #[inline]
    pub unsafe fn resize(&mut self, subject: &impl Subject, size: u32) {
        // SAFETY: the caller's promise; the layout is the one of `new`, and no size is zero.
        self.start = unsafe { subject.realloc(self.start, layout(self.size), size as usize) };
        self.size = size;
    }
}

/// A step: which of the live blocks, and what size to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub slot: u32,
    pub size: u32,
}

/// Steps over so many live blocks, again and again.
#[derive(Debug)]
pub struct Trace {
    count: usize,
    /// Ends with its first steps, so that one can always look ahead.
    steps: Vec<Step>,
}

impl Trace {
    /// Draws a trace.
    pub fn new(mix: Mix, count: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let draw = |_| Step {
            slot: u32::try_from(random.below(count)).expect("blocks are few"),
            size: u32::try_from(mix.draw(&mut random)).expect("sizes are small"),
        };
        let mut steps: Vec<_> = (0..(4 * count).clamp(LEAST, MOST)).map(draw).collect();
        steps.extend_from_within(..AHEAD);
        Self { count, steps }
    }

    /// Returns how many blocks are live.
    pub const fn count(&self) -> usize {
        self.count
    }
}

/// The live blocks of one thread on its way through a trace. Its user frees them.
#[derive(Debug)]
pub struct Live<'trace> {
    trace: &'trace Trace,
    at: usize,
    blocks: Vec<Block>,
}

impl<'trace> Live<'trace> {
    /// Makes the table, without blocks, and touches it.
    pub fn new(trace: &'trace Trace) -> Self {
        let mut blocks = vec![Block::NONE; trace.count];
        blocks.clear();
        Self {
            trace,
            at: 0,
            blocks,
        }
    }

    /// Allocates the blocks that are missing.
    pub fn fill(&mut self, subject: &impl Subject) {
        while self.blocks.len() < self.trace.count {
            let Step { size, .. } = self.next();
            self.blocks.push(Block::new(subject, size));
        }
    }

    /// Returns the blocks, of which none may go.
    pub const fn blocks(&mut self) -> &mut Vec<Block> {
        &mut self.blocks
    }

    /// Returns the next step, and asks for the token of one that comes soon.
    #[inline]
    pub fn next(&mut self) -> Step {
        let step = self.trace.steps[self.at];
        let soon = self.trace.steps[self.at + AHEAD].slot as usize;
        if let Some(block) = self.blocks.get(soon) {
            prefetch(block);
        }
        self.at += 1;
        if self.at + AHEAD == self.trace.steps.len() {
            self.at = 0;
        }
        step
    }

    /// Frees one block and allocates another.
    ///
    /// # Safety
    ///
    /// The blocks are the heap's, of which this is a subject.
    #[inline]
    pub unsafe fn replace(&mut self, subject: &impl Subject) {
        let Step { slot, size } = self.next();
        let block = &mut self.blocks[slot as usize];
        // SAFETY: a live block, by the caller's promise of this heap; its token is replaced.
        unsafe { block.free(subject) };
        *block = Block::new(subject, size);
    }

    /// Makes one block as long as the trace says.
    ///
    /// # Safety
    ///
    /// The blocks are the heap's, of which this is a subject.
    #[inline]
    pub unsafe fn resize(&mut self, subject: &impl Subject) {
        let Step { slot, size } = self.next();
        // SAFETY: a live block, by the caller's promise of this heap.
        unsafe { self.blocks[slot as usize].resize(subject, size) };
    }

    /// Frees all blocks.
    ///
    /// # Safety
    ///
    /// The blocks are the heap's, of which this is a subject.
    pub unsafe fn clear(&mut self, subject: &impl Subject) {
        for block in self.blocks.drain(..) {
            // SAFETY: a live block, by the caller's promise of this heap, which leaves the table.
            unsafe { block.free(subject) };
        }
    }
}
