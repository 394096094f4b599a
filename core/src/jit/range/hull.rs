//! The shortest range of offsets that covers what was added to it.

use crate::atomic::{AtomicUsize, Ordering};
use core::ops::Range;

/// A range of offsets that grows; empty at first. It has no lock: threads that add ranges at the
/// same time make it cover all of them, and a reader in between may see one end of the two.
pub(super) struct Hull {
    start: AtomicUsize,
    end: AtomicUsize,
}

impl Hull {
    pub(super) fn new() -> Self {
        Self {
            start: AtomicUsize::new(usize::MAX),
            end: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.end.load(Ordering::Relaxed) == 0
    }

    /// Returns the range; empty where nothing was added.
    #[inline]
    pub(super) fn get(&self) -> Range<usize> {
        self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed)
    }

    /// Says whether some offset of `part` is covered.
    #[inline]
    pub(super) fn overlaps(&self, part: &Range<usize>) -> bool {
        let covered = self.get();
        part.start < covered.end && covered.start < part.end && !part.is_empty()
    }

    /// Covers `part` too. Stores nothing where it is covered already.
    #[inline]
    pub(super) fn add(&self, part: &Range<usize>) {
        if part.is_empty() {
            return;
        }
        let covered = self.get();
        if part.start < covered.start {
            self.start.fetch_min(part.start, Ordering::Relaxed);
        }
        if part.end > covered.end {
            self.end.fetch_max(part.end, Ordering::Relaxed);
        }
    }

    /// Replaces the range. No other thread uses it.
    pub(super) fn set(&self, range: Range<usize>) {
        let none = range.is_empty();
        let (start, end) = if none {
            (usize::MAX, 0)
        } else {
            (range.start, range.end)
        };
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }

    /// Takes `part` off where it reaches one end of the range. No other thread uses it.
    pub(super) fn cut(&self, part: &Range<usize>) {
        let covered = self.get();
        if part.start <= covered.start && part.end > covered.start {
            self.set(part.end..covered.end);
        } else if part.end >= covered.end && part.start < covered.end {
            self.set(covered.start..part.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_what_was_added() {
        let hull = Hull::new();
        assert!(hull.is_empty() && !hull.overlaps(&(0..usize::MAX)));
        hull.add(&(8..8));
        assert!(hull.is_empty());
        hull.add(&(16..24));
        hull.add(&(40..48));
        assert_eq!(hull.get(), 16..48);
        assert!(hull.overlaps(&(24..40)) && hull.overlaps(&(0..17)) && hull.overlaps(&(47..50)));
        assert!(!hull.overlaps(&(0..16)) && !hull.overlaps(&(48..50)) && !hull.overlaps(&(20..20)));
    }

    #[test]
    fn parts_at_its_ends_are_taken_off() {
        let hull = Hull::new();
        hull.set(16..48);
        hull.cut(&(20..24));
        assert_eq!(hull.get(), 16..48, "the middle stays");
        hull.cut(&(0..24));
        assert_eq!(hull.get(), 24..48);
        hull.cut(&(40..64));
        assert_eq!(hull.get(), 24..40);
        hull.cut(&(40..64));
        hull.cut(&(0..24));
        assert_eq!(hull.get(), 24..40);
        hull.cut(&(0..64));
        assert!(hull.is_empty());
    }
}
