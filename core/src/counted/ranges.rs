//! A set of page ranges: sorted, disjoint, with touching neighbours merged.

use crate::{
    arena::Arena,
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{alloc::Layout, ptr::NonNull};

/// Ranges that the first array holds.
const FIRST_CAPACITY: usize = 64;

/// Start and end of a range.
type Span = (usize, usize);

/// The addresses that are committed. Finding is logarithmic; inserting and removing move the tail
/// of an array, which a mapping call dwarfs up to many thousands of ranges.
pub(super) struct RangeSet {
    array: Option<NonNull<[Span]>>,
    len: usize,
}

// SAFETY: the array belongs to this value alone.
unsafe impl Send for RangeSet {}

impl RangeSet {
    pub(super) const fn new() -> Self {
        Self {
            array: None,
            len: 0,
        }
    }

    fn spans(&self) -> &[Span] {
        match self.array {
            None => &[],
            // SAFETY: the array is live and all of it was initialised; it changes by `&mut self`.
            Some(array) => unsafe { &array.as_ref()[..self.len] },
        }
    }

    fn array_mut(&mut self) -> &mut [Span] {
        match self.array {
            None => &mut [],
            // SAFETY: as in `spans`; the borrow of self is exclusive.
            Some(mut array) => unsafe { array.as_mut() },
        }
    }

    /// Makes room for `more` ranges.
    pub(super) fn make_room<P: PageProvider + Copy, R: RawMutex>(
        &mut self,
        arena: &Arena<P, R>,
        more: usize,
    ) -> Result<(), Error> {
        let capacity = self.array.map_or(0, |a| a.len());
        if self.len + more <= capacity {
            return Ok(());
        }
        let mut grown = arena.alloc_slice_zeroed::<Span>((2 * capacity).max(FIRST_CAPACITY))?;
        // SAFETY: fresh, zero, which is a span, and known to nobody else.
        let array = unsafe { grown.as_mut() };
        array[..self.len].copy_from_slice(self.spans());
        if let Some(old) = self.array.replace(grown) {
            let layout =
                Layout::array::<Span>(old.len()).map_err(|_| ErrorKind::InvalidArgument)?;
            // SAFETY: old came from alloc_slice, whose layout this is; self was its only user.
            unsafe { arena.free(old.cast(), layout) };
        }
        Ok(())
    }

    /// Returns the index of the first range that ends at or behind `addr`.
    fn first_ending_at_or_behind(&self, addr: usize) -> usize {
        self.spans().partition_point(|&(_, end)| end < addr)
    }

    /// Adds a range that shares no byte with the set. Needs room for one.
    pub(super) fn insert(&mut self, start: usize, end: usize) {
        let at = self.first_ending_at_or_behind(start);
        let (mut merged, mut until) = ((start, end), at);
        while let Some(&(s, e)) = self.spans().get(until).filter(|&&(s, _)| s <= end) {
            merged = (merged.0.min(s), merged.1.max(e));
            until += 1;
        }
        self.splice(at, until, &[merged]);
    }

    /// Removes what the set has of a range, and returns how many bytes that was. Needs room for
    /// one.
    pub(super) fn remove(&mut self, start: usize, end: usize) -> usize {
        let at = self.first_ending_at_or_behind(start);
        let (mut removed, mut until) = (0, at);
        let (mut left, mut right) = (None, None);
        while let Some(&(s, e)) = self.spans().get(until).filter(|&&(s, _)| s < end) {
            removed += e.min(end).saturating_sub(s.max(start));
            if s < start {
                left = Some((s, e.min(start)));
            }
            if e > end {
                right = Some((end, e));
            }
            until += 1;
        }
        match (left, right) {
            (Some(l), Some(r)) => self.splice(at, until, &[l, r]),
            (Some(x), None) | (None, Some(x)) => self.splice(at, until, &[x]),
            (None, None) => self.splice(at, until, &[]),
        }
        removed
    }

    /// Returns how many bytes of a range are in the set.
    pub(super) fn covered(&self, start: usize, end: usize) -> usize {
        let at = self.first_ending_at_or_behind(start);
        let spans = self.spans().iter().skip(at).take_while(|&&(s, _)| s < end);
        spans
            .map(|&(s, e)| e.min(end).saturating_sub(s.max(start)))
            .sum()
    }

    /// Replaces the ranges `at..until` by `with`.
    fn splice(&mut self, at: usize, until: usize, with: &[Span]) {
        let old_len = self.len;
        let new_len = old_len - (until - at) + with.len();
        let array = self.array_mut();
        assert!(
            new_len <= array.len(),
            "make_room comes before a range is added"
        );
        array.copy_within(until..old_len, at + with.len());
        array[at..at + with.len()].copy_from_slice(with);
        self.len = new_len;
    }
}
