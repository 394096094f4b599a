//! What readers reach: ranges in pieces, and the top that leads to the pieces.

use super::Interval;
use crate::atomic::{AtomicPtr, AtomicUsize, Ordering};
use core::ptr::{NonNull, null_mut};

/// Ranges in a piece: a copy of as many costs little beside a call of a provider, and few tops are
/// made.
pub(super) const PIECE: usize = if cfg!(all(test, loom)) { 2 } else { 32 };

/// Some ranges, by address. What is published of it changes no more, until it was replaced and
/// serves again.
pub(super) struct Piece {
    len: AtomicUsize,
    starts: [AtomicUsize; PIECE],
    lens: [AtomicUsize; PIECE],
    values: [AtomicUsize; PIECE],
    /// The next one that is not in use.
    pub(super) next: AtomicPtr<Piece>,
}

impl Piece {
    pub(super) fn new() -> Self {
        let zeros = || core::array::from_fn(|_| AtomicUsize::new(0));
        Self {
            len: AtomicUsize::new(0),
            starts: zeros(),
            lens: zeros(),
            values: zeros(),
            next: AtomicPtr::new(null_mut()),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        // A late reader may see any length that the piece ever had.
        self.len.load(Ordering::Relaxed).min(PIECE)
    }

    #[inline]
    pub(super) fn get(&self, n: usize) -> Interval {
        Interval {
            start: self.starts[n].load(Ordering::Relaxed),
            len: self.lens[n].load(Ordering::Relaxed),
            value: self.values[n].load(Ordering::Relaxed),
        }
    }

    #[inline]
    pub(super) fn all(&self) -> impl Iterator<Item = Interval> {
        (0..self.len()).map(|n| self.get(n))
    }

    /// Returns how many ranges start at `addr` or below.
    #[inline]
    pub(super) fn up_to(&self, addr: usize) -> usize {
        self.starts[..self.len()].partition_point(|start| start.load(Ordering::Relaxed) <= addr)
    }

    #[inline]
    pub(super) fn fill(&self, with: impl Iterator<Item = Interval>) {
        let mut len = 0;
        for interval in with.take(PIECE) {
            self.starts[len].store(interval.start, Ordering::Relaxed);
            self.lens[len].store(interval.len, Ordering::Relaxed);
            self.values[len].store(interval.value, Ordering::Relaxed);
            len += 1;
        }
        self.len.store(len, Ordering::Relaxed);
    }
}

/// The pieces, by address. The first slot is for all addresses below the second one's.
pub(super) struct Top {
    len: AtomicUsize,
    /// The next one that is not in use.
    pub(super) next: AtomicPtr<Top>,
    firsts: NonNull<[AtomicUsize]>,
    pieces: NonNull<[AtomicPtr<Piece>]>,
}

impl Top {
    pub(super) fn new(firsts: NonNull<[AtomicUsize]>, pieces: NonNull<[AtomicPtr<Piece>]>) -> Self {
        Self {
            len: AtomicUsize::new(0),
            next: AtomicPtr::new(null_mut()),
            firsts,
            pieces,
        }
    }

    #[inline]
    pub(super) fn room(&self) -> usize {
        self.firsts.len()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed).min(self.room())
    }

    #[inline]
    pub(super) fn firsts(&self) -> &[AtomicUsize] {
        // SAFETY: initialised when the top was made, changed by atomics only, and there as long as
        // the arena, which outlives the index.
        unsafe { self.firsts.as_ref() }
    }

    #[inline]
    pub(super) fn slot(&self, n: usize) -> Option<&AtomicPtr<Piece>> {
        // SAFETY: initialised when the top was made, changed by atomics only, and there as long as
        // the arena, which outlives the index.
        unsafe { self.pieces.as_ref() }.get(n)
    }

    #[inline]
    pub(super) fn piece(&self, n: usize) -> Option<&Piece> {
        let piece = NonNull::new(self.slot(n)?.load(Ordering::Acquire))?;
        // SAFETY: slots hold pieces, which are published whole with Release, changed by their
        // atomics only, and there as long as the arena, which outlives the index.
        Some(unsafe { piece.as_ref() })
    }

    /// Returns the slot for an address.
    #[inline]
    pub(super) fn around(&self, addr: usize) -> usize {
        let firsts = &self.firsts()[..self.len()];
        let behind = firsts.partition_point(|first| first.load(Ordering::Relaxed) <= addr);
        behind.saturating_sub(1)
    }

    /// Finds the range around an address.
    #[inline]
    pub(super) fn find(&self, addr: usize) -> Option<Interval> {
        let slot = self.around(addr);
        let piece = self.piece(slot)?;
        let found = match piece.up_to(addr).checked_sub(1) {
            Some(n) => piece.get(n),
            // A slot's first address stays when the lowest range of its piece is taken out, and a
            // range of the piece before may have come to lie across it.
            None => {
                let before = self.piece(slot.checked_sub(1)?)?;
                before.get(before.len().checked_sub(1)?)
            }
        };
        Some(found).filter(|found| found.contains(addr))
    }

    /// Fills a top that is not in use.
    #[inline]
    pub(super) fn fill(&self, with: impl Iterator<Item = NonNull<Piece>>) {
        let mut len = 0;
        for piece in with.take(self.room()) {
            // SAFETY: a piece that is in use or just filled: there as long as the arena, and
            // changed by its atomics only.
            let lowest = unsafe { piece.as_ref() }.get(0).start;
            let first = if len == 0 { 0 } else { lowest };
            self.firsts()[len].store(first, Ordering::Relaxed);
            if let Some(slot) = self.slot(len) {
                slot.store(piece.as_ptr(), Ordering::Relaxed);
            }
            len += 1;
        }
        self.len.store(len, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn pieces(&self) -> impl Iterator<Item = NonNull<Piece>> {
        let slots = (0..self.len()).filter_map(|n| self.slot(n));
        slots.filter_map(|slot| NonNull::new(slot.load(Ordering::Relaxed)))
    }
}
