//! Hardening: what writes outside of live blocks is found.
//!
//! ```text
//!   a live block of a slab          a free one          a large or huge block
//!   ┌──────────────────┬────────┐   ┌───────────────┐   ┌ ─ ─ ─ ┬─────────────┬───┬ ─ ─ ─ ┐
//!   │ what was asked   │ canary │   │ pattern, or 0 │     guard │ asked       │ c.  guard
//!   └──────────────────┴────────┘   └───────────────┘   └ ─ ─ ─ ┴─────────────┴───┴ ─ ─ ─ ┘
//!     8 … 135 bytes of canary         zero if never       a granule without memory on both sides,
//!     in the rest of the block        handed out          and a canary up to the last page's end
//! ```
//!
//! What was asked for lies with the states, where no stray write into blocks reaches it. Magazines have no room,
//! so that every call comes here, and nothing of it costs the quick calls of other heaps a step. Slabs hand out
//! any of their free blocks.

use super::{
    Heap,
    class::{self, CLASSES},
    error::{BlockAddr, HeapError},
    large::Big,
    slab::{CLAIMED, CORRUPT, Entry, FREED, Handle, LIVE, ZERO},
};
use crate::{provider::PageProvider, sync::RawMutex};
use core::{
    alloc::Layout,
    ptr::NonNull,
    slice,
    sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Relaxed, Release},
    },
};

/// What free blocks hold that were in use. No pointer: an access through one faults.
pub(super) const PATTERN: u8 = 0xdf;

/// Bytes of a canary at least, where another block may follow.
const CANARY_LEAST: usize = 8;

/// Bytes of whole words of a canary at most: what runs over writes the first of them.
const CANARY_MOST: usize = 128;

/// The state of a heap of the highest level.
pub(super) struct Hard {
    /// What canaries are made of.
    key: u64,
    random: AtomicU64,
    /// Blocks that were found corrupt, and are never used again.
    corrupt: AtomicUsize,
}

/// Spreads the bits of a number (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014).
const fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

impl Hard {
    pub(super) const fn new(seed: u64) -> Self {
        let key = mixed(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        Self {
            key,
            random: AtomicU64::new(key),
            corrupt: AtomicUsize::new(0),
        }
    }

    /// Returns another number (the counter of the same generator).
    pub(super) fn random(&self) -> u64 {
        mixed(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed))
    }

    pub(super) fn corrupt_blocks(&self) -> usize {
        self.corrupt.load(Relaxed)
    }

    /// Returns what the canary of the block that starts at `block` repeats.
    const fn canary(&self, block: usize) -> u64 {
        mixed(self.key ^ block as u64)
    }
}

/// Returns the class for a block and its canary.
pub(super) fn class_for(layout: Layout) -> Option<usize> {
    let size = layout.size().checked_add(CANARY_LEAST)?;
    class::of(Layout::from_size_align(size, layout.align()).ok()?)
}

/// Returns where the canary of a block of `size` bytes begins, its bytes up to the next word, and the words
/// behind those, which are aligned.
fn canary_of(block: NonNull<u8>, size: usize, asked: usize) -> (NonNull<u8>, usize, usize) {
    debug_assert!(size.is_multiple_of(8) && asked <= size, "in whole words");
    // SAFETY: at most the length of the block.
    let first = unsafe { block.add(asked) };
    let bytes = asked.next_multiple_of(8) - asked;
    let words = (size - asked - bytes) / 8;
    (first, bytes, words.min(CANARY_MOST / 8))
}

/// Fills a free block.
///
/// # Safety
///
/// `len` bytes of memory that is the heap's, and nobody else's.
pub(super) unsafe fn fill(block: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { block.write_bytes(PATTERN, len) };
}

/// Says whether each byte of a free block is `byte`.
///
/// # Safety
///
/// `len` bytes of memory at `block` that were written, or read zero as they were never; both are multiples
/// of 16.
unsafe fn is_all(block: NonNull<u8>, len: usize, byte: u8) -> bool {
    debug_assert!(block.addr().get().is_multiple_of(align_of::<u64>()) && len.is_multiple_of(8));
    // SAFETY: the caller's promise; blocks are aligned to more than a word, and whole words long.
    let words = unsafe { slice::from_raw_parts(block.cast::<u64>().as_ptr(), len / 8) };
    let expected = u64::from_ne_bytes([byte; 8]);
    words
        .iter()
        .fold(0, |other, word| other | (word ^ expected))
        == 0
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    #[inline]
    pub(super) const fn is_hard(&self) -> bool {
        self.hard.is_some()
    }

    /// Allocates a block, and says whether it reads zero.
    #[cold]
    pub(super) fn alloc_hard(&self, shard: usize, layout: Layout) -> Result<Big, HeapError> {
        let Some(class) = class_for(layout) else {
            let (block, zero) = self.alloc_big_or_reclaim(layout)?;
            if let Some(slab) = self.slab_at(block.addr().get()) {
                self.seal(slab, block, layout.size());
            }
            return Ok((block, zero));
        };
        let entry = self.take_one(shard, class)?;
        self.hand_out(entry, class, layout)
    }

    /// Makes a block live that was taken from its slab, and says whether it reads zero.
    ///
    /// # Errors
    ///
    /// [`HeapError::WriteAfterFree`] where somebody wrote into it meanwhile.
    pub(super) fn hand_out(
        &self,
        entry: Entry,
        class: usize,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        let addr = entry.block.addr().get();
        let zero = entry.state().load(Relaxed) == ZERO;
        let slab = self.slab_at(addr).ok_or(HeapError::NotOwned)?;
        let expected = if zero { 0 } else { PATTERN };
        // SAFETY: a block of the class that is free and this call's: all of it was filled when it was freed, or
        // the host gave it zeroed.
        if !unsafe { is_all(entry.block, class::size(class), expected) } {
            self.retire(entry);
            return Err(HeapError::WriteAfterFree(BlockAddr::new(addr)));
        }
        self.seal(slab, entry.block, layout.size());
        entry.state().store(LIVE, Release);
        Ok((entry.block, zero))
    }

    /// Frees a block, or says why not.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`](super::LocalHeap::free).
    #[cold]
    pub(super) unsafe fn free_hard(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        let addr = block.addr().get();
        let (slab, entry) = self.live_at(addr)?;
        self.check_layout(slab, addr, layout)?;
        if slab.class() >= CLASSES {
            if !self.claim_big(slab, addr) {
                return Err(HeapError::NotLive);
            }
            self.check_seal(slab, entry, true)?;
            self.free_claimed(slab);
            return Ok(());
        }
        // One of two that free it at the same moment.
        entry.take_live(CLAIMED)?;
        if self.slab_at(addr) != Some(slab) {
            // It was freed since it was looked up, and its descriptor is that of other blocks now.
            entry.state().store(LIVE, Release);
            return Err(HeapError::NotLive);
        }
        self.check_seal(slab, entry, true)?;
        entry.state().store(FREED, Relaxed);
        self.release_hard(slab, entry);
        Ok(())
    }

    /// Compares a layout with what was asked for.
    pub(super) fn check_layout(
        &self,
        slab: Handle,
        addr: usize,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        let Some(layout) = layout else {
            return Ok(());
        };
        // The alignment is not kept, but the address tells of some that they were not asked for.
        let asked = slab.usable(addr, slab.block_bytes());
        if asked == layout.size() && addr.is_multiple_of(layout.align()) {
            return Ok(());
        }
        Err(HeapError::WrongLayout(BlockAddr::new(addr)))
    }

    /// Brings a block of a slab back whose state is that of a free one.
    pub(super) fn release_hard(&self, slab: Handle, entry: Entry) {
        // SAFETY: a block that is free, and that its slab does not hand out before the next line.
        unsafe { fill(entry.block, slab.block_bytes()) };
        self.flush(slab.class(), &[entry]);
    }

    /// Resizes a live block where it lies, or returns the layout of the block to move to.
    pub(super) fn resize_hard(
        &self,
        slab: Handle,
        entry: Entry,
        old: Layout,
        new: Layout,
    ) -> Result<Option<Layout>, HeapError> {
        self.check_layout(slab, entry.block.addr().get(), Some(old))?;
        self.check_seal(slab, entry, false)?;
        let (size, asked) = (slab.block_bytes(), new.size());
        let is_half = asked > size / 2;
        let stays = if slab.class() < CLASSES {
            asked + CANARY_LEAST <= size && is_half || class_for(new) == Some(slab.class())
        } else {
            asked <= size && is_half
        };
        if stays {
            self.seal(slab, entry.block, asked);
        }
        Ok((!stays).then_some(new))
    }

    /// Notes what was asked for, and writes the canary behind.
    fn seal(&self, slab: Handle, block: NonNull<u8>, asked: usize) {
        slab.set_asked(block.addr().get(), asked);
        let Some(hard) = &self.hard else {
            return;
        };
        let canary = hard.canary(block.addr().get());
        let (first, bytes, words) = canary_of(block, slab.block_bytes(), asked);
        for (n, byte) in canary.to_le_bytes().into_iter().take(bytes).enumerate() {
            // SAFETY: so many bytes lie in the block, behind what its user may use.
            let place = unsafe { first.add(n) };
            // SAFETY: as above; the block is live or this call's.
            unsafe { place.write(byte) };
        }
        // SAFETY: at most the length of the block.
        let rest = unsafe { first.add(bytes) }.cast::<u64>();
        for n in 0..words {
            // SAFETY: so many words lie in the block, behind what its user may use.
            let place = unsafe { rest.add(n) };
            // SAFETY: as above; aligned, as `canary_of` says.
            unsafe { place.write(canary) };
        }
    }

    /// Says that a block's user has written more than was asked for; if so, retires it if `dead`.
    pub(super) fn check_seal(
        &self,
        slab: Handle,
        entry: Entry,
        dead: bool,
    ) -> Result<(), HeapError> {
        let Some(hard) = &self.hard else {
            return Ok(());
        };
        let addr = entry.block.addr().get();
        let canary = hard.canary(addr);
        let size = slab.block_bytes();
        let (first, bytes, words) = canary_of(entry.block, size, slab.usable(addr, size));
        // SAFETY: so many bytes lie in the block, and `seal` wrote them.
        let before = unsafe { slice::from_raw_parts(first.as_ptr(), bytes) };
        // SAFETY: at most the length of the block.
        let rest = unsafe { first.add(bytes) }.cast::<u64>();
        // SAFETY: so many words lie in the block, aligned, and `seal` wrote them.
        let rest = unsafe { slice::from_raw_parts(rest.as_ptr(), words) };
        if canary.to_le_bytes().starts_with(before) && rest.iter().all(|word| *word == canary) {
            return Ok(());
        }
        if dead {
            self.retire(entry);
        }
        Err(HeapError::Overflow(BlockAddr::new(addr)))
    }

    /// Keeps a corrupt block from being used again, for as long as the heap lives.
    fn retire(&self, entry: Entry) {
        entry.state().store(CORRUPT, Relaxed);
        if let Some(hard) = &self.hard {
            hard.corrupt.fetch_add(1, Relaxed);
        }
    }
}
