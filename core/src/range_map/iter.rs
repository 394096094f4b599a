//! Going through a map in order.

use super::{RangeMap, Value, change::Pages, node::Entry};
use crate::{
    page::AddressRange,
    provider::PageProvider,
    sync::{RawMutex, Spin},
};
use core::{fmt, mem::MaybeUninit};

/// Ranges that are read at a time: those of two leaves, mostly, so that finding them is a small
/// part.
const BATCH: usize = 128;

/// The ranges of a window in order; what [`RangeMap::ranges`] returns.
pub struct Ranges<'a, T, M: PageProvider + Copy, R = Spin> {
    map: &'a RangeMap<T, M, R>,
    /// Where to go on reading, and the last page of the window; `None` behind it.
    rest: Option<Pages>,
    /// The ranges that were read: those from the first number up to the second are still to be
    /// yielded.
    batch: [MaybeUninit<Entry>; BATCH],
    at: usize,
    count: usize,
}

impl<'a, T, M: PageProvider + Copy, R> Ranges<'a, T, M, R> {
    pub(super) const fn new(map: &'a RangeMap<T, M, R>, window: AddressRange) -> Self {
        Self {
            map,
            rest: Some(map.touched_pages(window)),
            batch: [const { MaybeUninit::uninit() }; BATCH],
            at: 0,
            count: 0,
        }
    }
}

impl<T: Value, M: PageProvider + Copy, R: RawMutex> Ranges<'_, T, M, R> {
    /// Reads more; says whether there is any.
    #[cold]
    #[inline(never)]
    fn read(&mut self) -> bool {
        let Some((page, last)) = self.rest.filter(|(page, last)| page <= last) else {
            return false;
        };
        let tree = &self.map.parts.current().tree;
        (self.at, self.count) = (0, tree.read_from((page, last), &mut self.batch));
        let read = self.count.checked_sub(1).and_then(|n| self.batch.get(n));
        // SAFETY: read_from wrote the first `count` entries.
        self.rest = read.map(|entry| (unsafe { entry.assume_init_ref() }.end(), last));
        self.rest.is_some()
    }
}

impl<T: Value, M: PageProvider + Copy, R: RawMutex> Iterator for Ranges<'_, T, M, R> {
    type Item = (AddressRange, T);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.count && !self.read() {
            return None;
        }
        debug_assert!(self.at < self.count && self.count <= BATCH);
        // SAFETY: `at` is below `count`, which is the length of the batch at most.
        let slot = unsafe { self.batch.get_unchecked(self.at) };
        // SAFETY: read_from wrote the entries before `count`.
        let entry = *unsafe { slot.assume_init_ref() };
        self.at += 1;
        Some(self.map.seen(entry))
    }
}

/// The gaps of a window in order; what [`RangeMap::gaps`] returns.
pub struct Gaps<'a, T, M: PageProvider + Copy, R = Spin> {
    map: &'a RangeMap<T, M, R>,
    window: AddressRange,
    /// The rest of its pages, once the first step was made.
    rest: Option<Pages>,
    begun: bool,
}

impl<'a, T, M: PageProvider + Copy, R> Gaps<'a, T, M, R> {
    pub(super) const fn new(map: &'a RangeMap<T, M, R>, window: AddressRange) -> Self {
        Self {
            map,
            window,
            rest: None,
            begun: false,
        }
    }
}

impl<T: Value, M: PageProvider + Copy, R: RawMutex> Iterator for Gaps<'_, T, M, R> {
    type Item = AddressRange;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.begun {
            self.begun = true;
            self.rest = self.map.pages_inside(self.window);
        }
        let (low, high) = self.rest.take()?;
        let gap = self.map.lock().parts.tree.next_gap(low, high)?;
        self.rest = (gap.1 < high).then_some((gap.1, high));
        Some(self.map.addresses(gap))
    }
}

impl<T, M: PageProvider + Copy, R> fmt::Debug for Ranges<'_, T, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranges")
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

impl<T, M: PageProvider + Copy, R> fmt::Debug for Gaps<'_, T, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gaps")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
