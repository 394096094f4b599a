//! Going through a map in order.

use super::{RangeMap, Value, change::Pages};
use crate::{
    page::AddressRange,
    provider::PageProvider,
    sync::{RawMutex, Spin},
};
use core::fmt;

/// The ranges of a window in order; what [`RangeMap::ranges`] returns.
pub struct Ranges<'a, T, M: PageProvider + Copy, R = Spin> {
    map: &'a RangeMap<T, M, R>,
    /// What is left of the window.
    window: Option<AddressRange>,
}

impl<'a, T, M: PageProvider + Copy, R> Ranges<'a, T, M, R> {
    pub(super) const fn new(map: &'a RangeMap<T, M, R>, window: AddressRange) -> Self {
        Self {
            map,
            window: Some(window),
        }
    }
}

impl<T: Value, M: PageProvider + Copy, R: RawMutex> Iterator for Ranges<'_, T, M, R> {
    type Item = (AddressRange, T);

    fn next(&mut self) -> Option<Self::Item> {
        let window = self.window.take()?;
        let found = self.map.next_from(window.start());
        let (range, value) = found.filter(|(range, _)| range.start() <= window.last())?;
        let behind = range.last().checked_add(1);
        self.window = behind.and_then(|start| AddressRange::new(start, window.last()));
        Some((range, value))
    }
}

/// The gaps of a window in order; what [`RangeMap::gaps`] returns.
pub struct Gaps<'a, T, M: PageProvider + Copy, R = Spin> {
    map: &'a RangeMap<T, M, R>,
    window: AddressRange,
    /// What is left of its pages, once the first step was made.
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
            .field("window", &self.window)
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
