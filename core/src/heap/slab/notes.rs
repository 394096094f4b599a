//! The notes of a slab beside states: the sizes that were asked for, and canaries.

use super::{Entry, Slab};
use crate::{
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    heap::{
        class,
        hardened::{CANARY_LEAST, can_note},
    },
};

impl Slab {
    /// Returns one of the numbers, if the heap keeps them.
    #[inline]
    fn number(&self, index: usize) -> Option<&AtomicU64> {
        let first = self.numbers.filter(|_| index < self.blocks())?;
        // SAFETY: `make` made as many numbers as there are blocks.
        let number = unsafe { first.add(index) };
        // SAFETY: initialised by `make`, changed by atomics only, and there as long as the
        // descriptor.
        Some(unsafe { number.as_ref() })
    }

    /// Returns the canary of a block of this slab, if those are kept.
    #[inline]
    pub(in crate::heap) fn canary(&self, entry: Entry) -> Option<u64> {
        let first_state = self.states.cast::<AtomicU8>().addr().get();
        let number = self.number(entry.number_from(first_state));
        Some(
            number
                .filter(|_| self.class() < class::CLASSES)?
                .load(Relaxed),
        )
    }

    /// Returns the canary of a block.
    ///
    /// # Safety
    ///
    /// A block of this slab, which is of a class, in a heap that keeps canaries.
    #[inline]
    pub(in crate::heap) unsafe fn canary_of(&self, entry: Entry) -> u64 {
        let index = entry.number_from(self.states.cast::<AtomicU8>().addr().get());
        // SAFETY: the slab has a class, and the heap keeps canaries, as the caller says: then
        // `make` made numbers.
        let first = unsafe { self.numbers.unwrap_unchecked() };
        // SAFETY: `make` made as many numbers as there are blocks, and the entry is of this slab,
        // as the caller says.
        let number = unsafe { first.add(index) };
        // SAFETY: initialised by `make`, changed by atomics only, and there as long as the
        // descriptor.
        unsafe { number.as_ref() }.load(Relaxed)
    }

    /// Notes the canaries of all blocks, which `canary` tells by their addresses, if the heap keeps
    /// them.
    pub(in crate::heap) fn set_canaries(&self, canary: impl Fn(usize) -> u64) {
        for index in 0..self.blocks() {
            let Some(number) = self.number(index) else {
                return;
            };
            number.store(canary(self.addr() + index * self.block_bytes()), Relaxed);
        }
    }

    /// Notes what was asked for a block of this slab, if the heap keeps that. Of a class, as much
    /// as [`can_note`] says.
    #[inline]
    pub(in crate::heap) fn set_asked(&self, entry: Entry, bytes: usize) {
        if !self.has_asked {
            return;
        }
        if self.class() < class::CLASSES {
            debug_assert!(
                can_note(self.class(), bytes),
                "{bytes} of {}",
                self.block_bytes()
            );
            let slack = self.block_bytes().wrapping_sub(bytes + CANARY_LEAST);
            let is_wide = self.block_bytes() > class::BYTE_MAX;
            // SAFETY: a block of this slab, which is of this class and keeps what was asked for.
            unsafe { entry.set_slack(class::slack_after(self.class()), slack, is_wide) };
        } else if let Some(number) = self.number(0) {
            number.store(bytes as u64, Relaxed);
        }
    }

    /// Returns how many bytes of the block of a number may be used, or `size` if it is none's.
    #[inline]
    pub(in crate::heap) fn usable_by(&self, index: usize, size: usize) -> usize {
        if index >= self.blocks() {
            return size;
        }
        self.usable_of(Entry {
            block: self.start(),
            state: self.state(index),
        })
    }

    /// Returns how many bytes of a block of this slab may be used.
    #[inline]
    pub(in crate::heap) fn usable_of(&self, entry: Entry) -> usize {
        let size = self.block_bytes();
        if !self.has_asked {
            return size;
        }
        if self.class() >= class::CLASSES {
            let asked = self.number(0).map(|number| number.load(Relaxed));
            return asked.map_or(size, |asked| usize::try_from(asked).unwrap_or(size));
        }
        let is_wide = size > class::BYTE_MAX;
        // SAFETY: a block of this slab, which is of this class and keeps what was asked for.
        let slack = unsafe { entry.slack(class::slack_after(self.class()), is_wide) };
        size.saturating_sub(slack + CANARY_LEAST)
    }

    /// Returns how many bytes of the block around `addr`, of which there are `size`, may be used.
    #[inline]
    pub(in crate::heap) fn usable(&self, addr: usize, size: usize) -> usize {
        if self.has_asked {
            self.usable_by(self.index(addr).0, size)
        } else {
            size
        }
    }
}
