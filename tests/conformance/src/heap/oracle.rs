//! What a heap must not forget: which blocks live, and what is in them.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{alloc::Layout, ptr::NonNull};

/// A live block.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) start: NonNull<u8>,
    pub(super) layout: Layout,
    pub(super) seed: u8,
}

/// Live blocks, and by address.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) blocks: Vec<Block>,
    ends: BTreeMap<usize, usize>,
    seed: u8,
}

/// Yields the bytes that are looked at: all of a small block, both ends and some between of others.
fn offsets(len: usize) -> impl Iterator<Item = usize> {
    let edge = len.min(300);
    (0..edge)
        .chain((edge..len.saturating_sub(edge)).step_by(1999))
        .chain(len.saturating_sub(edge).max(edge)..len)
}

const fn pattern(seed: u8, offset: usize) -> u8 {
    seed ^ offset.to_le_bytes()[0] ^ offset.to_le_bytes()[1]
}

impl Block {
    fn byte(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.layout.size(), "inside");
        // SAFETY: within the block, which is live.
        unsafe { self.start.add(offset) }
    }

    /// Asserts that the first `len` bytes are what was written.
    pub(super) fn check(&self, len: usize) {
        for n in offsets(self.layout.size()).take_while(|n| *n < len) {
            // SAFETY: within the block, and written by `fill`.
            let found = unsafe { self.byte(n).read() };
            let expected = pattern(self.seed, n);
            assert_eq!(
                found, expected,
                "byte {n} of {:?} {:?}",
                self.start, self.layout
            );
        }
    }

    fn fill(&self) {
        for n in offsets(self.layout.size()) {
            // SAFETY: within the block, which is the test's.
            unsafe { self.byte(n).write(pattern(self.seed, n)) };
        }
    }

    pub(super) fn assert_zero(&self) {
        for n in offsets(self.layout.size()) {
            // SAFETY: within the block, which the heap says reads zero.
            assert_eq!(unsafe { self.byte(n).read() }, 0, "byte {n}");
        }
    }
}

impl Oracle {
    /// Adds a block that was just allocated: aligned, and apart from all others. Fills it.
    pub(super) fn add(&mut self, start: NonNull<u8>, layout: Layout, zeroed: bool) {
        self.seed = self.seed.wrapping_add(37);
        let block = Block {
            start,
            layout,
            seed: self.seed,
        };
        let addr = start.addr().get();
        let end = addr + layout.size().max(1);
        assert!(
            addr.is_multiple_of(layout.align()),
            "{start:?} for {layout:?}"
        );
        let below = self.ends.range(..end).next_back();
        let apart = below.is_none_or(|(_, below_end)| *below_end <= addr);
        assert!(apart, "{start:?} {layout:?} overlaps {below:x?}");
        if zeroed {
            block.assert_zero();
        }
        block.fill();
        self.ends.insert(addr, end);
        self.blocks.push(block);
    }

    /// Takes the block of a number out, which must be intact.
    pub(super) fn take(&mut self, number: usize) -> Option<Block> {
        let count = self.blocks.len();
        let block = self.blocks.swap_remove(number.checked_rem(count)?);
        block.check(usize::MAX);
        self.ends.remove(&block.start.addr().get());
        Some(block)
    }

    /// Puts a block back that was taken out.
    pub(super) fn put_back(&mut self, block: Block) {
        let addr = block.start.addr().get();
        self.ends.insert(addr, addr + block.layout.size().max(1));
        self.blocks.push(block);
    }

    pub(super) fn check_all(&self) {
        for block in &self.blocks {
            block.check(usize::MAX);
        }
    }
}
