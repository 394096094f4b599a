//! A block that is not in its slab, by where it lies and where its state does.

use super::LIVE;
use crate::{
    atomic::{
        AtomicU8,
        Ordering::{Acquire, Relaxed},
    },
    heap::error::HeapError,
};
use core::ptr::NonNull;

/// A block that is not in its slab, and where its state is.
#[derive(Clone, Copy)]
pub(in crate::heap) struct Entry {
    pub(in crate::heap) block: NonNull<u8>,
    pub(in crate::heap) state: NonNull<AtomicU8>,
}

impl Entry {
    #[inline]
    pub(in crate::heap) fn state(&self) -> &AtomicU8 {
        // SAFETY: entries are made of a slab's states, which stay as long as the heap, and entries
        // live in the heap.
        unsafe { self.state.as_ref() }
    }

    /// Changes the state of a live block.
    ///
    /// # Errors
    ///
    /// [`HeapError::NotLive`] where another call has freed it since it was looked at.
    #[inline]
    pub(in crate::heap) fn take_live(&self, to: u8) -> Result<(), HeapError> {
        let taken = self.state().compare_exchange(LIVE, to, Acquire, Relaxed);
        taken.map(|_| ()).map_err(|_| HeapError::NotLive)
    }

    /// Notes how much of a block of a class was not asked for, beside
    /// [`CANARY_LEAST`](crate::heap::hardened::CANARY_LEAST) bytes.
    ///
    /// # Safety
    ///
    /// The slab keeps what was asked for; `after` is the class's
    /// [`class::slack_after`](crate::heap::class::slack_after), and its blocks are as long as
    /// [`class::BYTE_MAX`](crate::heap::class::BYTE_MAX) at most unless `is_wide`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the two bytes")]
    pub(in crate::heap) unsafe fn set_slack(&self, after: usize, slack: usize, is_wide: bool) {
        // SAFETY: `make` made a byte for each block this far behind its state, as the caller says
        // that `after` is the class's.
        let low = unsafe { self.state.add(after) };
        // SAFETY: initialised by `make`, changed by atomics only, and there as long as the heap.
        unsafe { low.as_ref() }.store(slack as u8, Relaxed);
        if is_wide {
            // SAFETY: classes that are longer have as many bytes once more, this far behind the
            // first.
            let high = unsafe { low.add(after) };
            // SAFETY: initialised by `make`, changed by atomics only, and there as long as the
            // heap.
            unsafe { high.as_ref() }.store((slack >> u8::BITS) as u8, Relaxed);
        }
    }

    /// Returns what was noted by [`Entry::set_slack`]: something else if another thread notes it at
    /// this moment.
    ///
    /// # Safety
    ///
    /// Those of [`Entry::set_slack`].
    #[inline]
    pub(in crate::heap) unsafe fn slack(&self, after: usize, is_wide: bool) -> usize {
        // SAFETY: `make` made a byte for each block this far behind its state, as the caller says
        // that `after` is the class's.
        let low = unsafe { self.state.add(after) };
        // SAFETY: initialised by `make`, changed by atomics only, and there as long as the heap.
        let slack = usize::from(unsafe { low.as_ref() }.load(Relaxed));
        if !is_wide {
            return slack;
        }
        // SAFETY: classes that are longer have as many bytes once more, this far behind the first.
        let high = unsafe { low.add(after) };
        // SAFETY: initialised by `make`, changed by atomics only, and there as long as the heap.
        slack | usize::from(unsafe { high.as_ref() }.load(Relaxed)) << u8::BITS
    }

    /// Returns the number of the block in the slab whose states begin at an address, without a
    /// division; more than that has if it is no block of the slab.
    #[inline]
    pub(super) fn number_from(&self, first_state: usize) -> usize {
        self.state.addr().get().wrapping_sub(first_state) / size_of::<AtomicU8>()
    }
}
