//! The free blocks of a slab, a bit each: how they are taken, put back and counted. The bin's lock
//! is held.

use super::{Entry, FREED, LIVE, LOST, NEVER, Slab, ZERO};
use crate::{
    atomic::{
        AtomicU8, AtomicU64,
        Ordering::{Relaxed, Release},
        fence,
    },
    heap::class::GRANULE,
};
use core::ptr::NonNull;

impl Slab {
    /// Takes granules, all of whose blocks are free, with contents that are zero or unknown.
    pub(in crate::heap) fn open(&self, start: NonNull<u8>, len: usize, zero: bool, shard: u8) {
        debug_assert!(len.is_multiple_of(GRANULE), "whole granules");
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        self.start.store(start.as_ptr(), Relaxed);
        self.len.store(len, Relaxed);
        self.shard.store(shard, Relaxed);
        for state in &self.states()[..self.blocks()] {
            state.store(if zero { ZERO } else { FREED }, Relaxed);
        }
        let mut left = self.blocks();
        for word in self.bits() {
            let ones = if left >= 64 {
                u64::MAX
            } else {
                (1 << left) - 1
            };
            word.store(ones, Relaxed);
            left = left.saturating_sub(64);
        }
        let blocks = u32::try_from(self.blocks()).unwrap_or(u32::MAX);
        self.free.store(blocks, Relaxed);
        self.first.store(0, Relaxed);
        self.looked_at.store(NEVER, Relaxed);
        let used = if zero { 0 } else { len };
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        self.fresh_from.store(used, Relaxed);
        self.version.store(version.wrapping_add(2), Release);
    }

    pub(super) fn bits(&self) -> &[AtomicU64] {
        // SAFETY: initialised in `make`, changed by atomics only, and there as long as the
        // descriptor.
        unsafe { self.guarded.bits.as_ref() }
    }

    /// Takes up to `most` free blocks, the lowest first, and hands each to `take`. The bin's lock
    /// is held.
    pub(in crate::heap) fn take(&self, most: usize, mut take: impl FnMut(Entry)) -> usize {
        let (start, size) = (self.start(), self.block_bytes());
        let states = self.states.cast::<AtomicU8>();
        let first = self.first.load(Relaxed) as usize;
        debug_assert!(most != 0, "one block at least");
        let mut missing = most;
        let mut behind = 0;
        for (word, bits) in self.bits().iter().enumerate().skip(first) {
            let mut left = bits.load(Relaxed);
            if left == 0 {
                continue;
            }
            let mut index = 0;
            while left != 0 && missing != 0 {
                index = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                missing -= 1;
                // SAFETY: blocks lie within the granules: there are len / size of them, and a bit
                // for each.
                let block = unsafe { start.add(index * size) };
                // SAFETY: there is a state for each block.
                let state = unsafe { states.add(index) };
                take(Entry { block, state });
            }
            bits.store(left, Relaxed);
            behind = (index + 1) * size;
            if missing == 0 || left != 0 {
                self.first.store(u16::try_from(word).unwrap_or(0), Relaxed);
                break;
            }
        }
        let taken = most - missing;
        let behind = u32::try_from(behind).unwrap_or(u32::MAX);
        let used = self.fresh_from.load(Relaxed).max(behind);
        self.fresh_from.store(used, Relaxed);
        let free = self.free.load(Relaxed) - u32::try_from(taken).unwrap_or(0);
        self.free.store(free, Relaxed);
        taken
    }

    /// Takes one of the free blocks. The bin's lock is held.
    pub(in crate::heap) fn take_any(&self, random: u64) -> Option<Entry> {
        let free = self.free.load(Relaxed);
        let mut nth = usize::try_from(random.checked_rem(u64::from(free))?).ok()?;
        for (word, bits) in self.bits().iter().enumerate() {
            let mut left = bits.load(Relaxed);
            let count = left.count_ones() as usize;
            if nth >= count {
                nth -= count;
                continue;
            }
            for _ in 0..nth {
                left &= left - 1;
            }
            let bit = left.trailing_zeros();
            bits.store(bits.load(Relaxed) & !(1 << bit), Relaxed);
            self.free.store(free - 1, Relaxed);
            let (index, size) = (word * 64 + bit as usize, self.block_bytes());
            let behind = u32::try_from((index + 1) * size).unwrap_or(u32::MAX);
            let used = self.fresh_from.load(Relaxed).max(behind);
            self.fresh_from.store(used, Relaxed);
            // SAFETY: blocks lie within the granules: there are len / size of them.
            let block = unsafe { self.start().add(index * size) };
            return Some(Entry {
                block,
                state: self.state(index),
            });
        }
        None
    }

    /// Puts blocks back as long as they are this slab's, and returns the others. The bin's lock is
    /// held.
    pub(in crate::heap) fn put<'a>(&self, entries: &'a [Entry]) -> &'a [Entry] {
        let first_state = self.states.cast::<AtomicU8>().addr().get();
        let (bits, blocks) = (self.bits(), self.blocks());
        let (mut least, mut free) = (self.first.load(Relaxed), self.free.load(Relaxed));
        let number = |entry: &Entry| entry.number_from(first_state);
        let mut rest = entries;
        while let Some(entry) = rest.first()
            && let at = number(entry)
            && at < blocks
        {
            // Neighbours that come one after the other often are in one word, which so is loaded
            // and stored once.
            let word = at / 64;
            let mut ones = bits[word].load(Relaxed);
            while let Some((entry, behind)) = rest.split_first()
                && let index = number(entry)
                && index / 64 == word
                && index < blocks
            {
                rest = behind;
                // Two threads that freed it at the same moment may both bring it, the second one
                // when it is in use again. The bit is set already, or the block is live, then.
                let is_live = entry.state().load(Relaxed) == LIVE;
                let bit = u64::from(!is_live) << (index % 64) & !ones;
                ones |= bit;
                free += u32::from(bit != 0);
            }
            bits[word].store(ones, Relaxed);
            least = least.min(u16::try_from(word).unwrap_or(0));
        }
        self.first.store(least, Relaxed);
        self.free.store(free, Relaxed);
        rest
    }

    /// Takes blocks out of use as long as they are this slab's; returns the others.
    pub(in crate::heap) fn lose<'a>(&self, entries: &'a [Entry]) -> &'a [Entry] {
        let first_state = self.states.cast::<AtomicU8>().addr().get();
        let is_other = |entry: &Entry| entry.number_from(first_state) >= self.blocks();
        let count = entries.iter().position(is_other);
        let (own, rest) = entries.split_at(count.unwrap_or(entries.len()));
        for entry in own {
            entry.state().store(LOST, Relaxed);
        }
        rest
    }

    /// Counts the free blocks again, for a forked child, and returns how many there are.
    pub(in crate::heap) fn recount(&self) -> usize {
        if self.is_abandoned() {
            // It goes on to count its free blocks for the call that it was left to.
            let states = self.states()[..self.blocks()].iter();
            let lost = states.filter(|state| state.load(Relaxed) == LOST).count();
            return (self.count_bits() + lost).min(self.blocks());
        }
        let free = self.count_bits();
        self.free
            .store(u32::try_from(free).unwrap_or(u32::MAX), Relaxed);
        self.first.store(0, Relaxed);
        let is_taken = |n: &usize| self.bits()[n / 64].load(Relaxed) >> (n % 64) & 1 == 0;
        let behind = (0..self.blocks())
            .rev()
            .find(is_taken)
            .map_or(0, |last| last + 1);
        let behind = u32::try_from(behind * self.block_bytes()).unwrap_or(u32::MAX);
        let used = self.fresh_from.load(Relaxed).max(behind);
        self.fresh_from.store(used, Relaxed);
        free
    }

    fn count_bits(&self) -> usize {
        let ones = self
            .bits()
            .iter()
            .map(|word| word.load(Relaxed).count_ones());
        ones.sum::<u32>() as usize
    }
}
