//! Reading a map: by address and in order, without a lock; and gaps, under it.

use super::node::{Node, WORDS};
use super::{
    GapOrder, GapRequest, Gaps, Held, RangeMap, Ranges, Statistics, Value, Wanted, to_usize,
};
use crate::{
    page::AddressRange,
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};

impl<T: Value, M: PageProvider + Copy, R: RawMutex> RangeMap<T, M, R> {
    /// Finds the range that holds `addr`, and its value.
    ///
    /// Takes no lock, waits for no code on the same thread, and may run in a signal handler. The
    /// answer was true at some moment of the call.
    #[inline]
    pub fn query(&self, addr: usize) -> Option<(AddressRange, T)> {
        if !self.bounds.contains(addr) {
            return None;
        }
        Some(self.seen(self.parts.current().tree.query(self.page_of(addr))?))
    }

    /// Finds the first range that does not lie wholly below `addr`, and its value: the one that
    /// holds `addr`, or else the next one.
    ///
    /// Takes no lock, as [`RangeMap::query`]; starts over where others change the map meanwhile.
    pub fn next_from(&self, addr: usize) -> Option<(AddressRange, T)> {
        if addr > self.bounds.last() {
            return None;
        }
        let page = self.page_of(addr.max(self.bounds.start()));
        Some(self.seen(self.parts.current().tree.next_from(page)?))
    }

    /// Finds the last range that does not lie wholly above `addr`, and its value: the one that
    /// holds `addr`, or else the one before.
    ///
    /// Takes no lock, as [`RangeMap::query`].
    pub fn prev(&self, addr: usize) -> Option<(AddressRange, T)> {
        if addr < self.bounds.start() {
            return None;
        }
        let page = self.page_of(addr.min(self.bounds.last()));
        Some(self.seen(self.parts.current().tree.prev_from(page)?))
    }

    /// Yields the ranges that share an address with `window`, whole and in order.
    ///
    /// Some dozens are read at a time, without a lock, all at one moment: ranges that stay are seen
    /// once, those that come and go meanwhile may be seen or not, and none is seen that overlaps
    /// one before it but by pages behind that one.
    pub const fn ranges(&self, window: AddressRange) -> Ranges<'_, T, M, R> {
        Ranges::new(self, window)
    }

    /// Yields the gaps in `window`, cut off at its ends, in order. Pages count that are wholly
    /// inside.
    ///
    /// Each step takes the lock for itself; what changes between them may be seen or not.
    pub const fn gaps(&self, window: AddressRange) -> Gaps<'_, T, M, R> {
        Gaps::new(self, window)
    }

    /// Returns the largest gap in `window`, cut off at its ends; the lowest one of several.
    pub fn largest_gap(&self, window: AddressRange) -> Option<AddressRange> {
        let (low, high) = self.pages_inside(window)?;
        let gap = self.lock().parts.tree.largest_gap(low, high)?;
        Some(self.addresses(gap))
    }

    /// Finds a gap: there is one unless this fails. Another thread may take it.
    ///
    /// Takes as long as a change; for alignments above a page it also looks at gaps that are long
    /// enough and lie unfavourably.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for lengths, alignments and offsets that
    /// [`GapRequest`] excludes, [`ErrorKind::Exhausted`] where nothing fits.
    pub fn find_gap(&self, request: &GapRequest) -> Result<AddressRange, Error> {
        let page = self.page_size();
        let least = page.bytes().min(request.align);
        let valid = request.len != 0
            && page.is_aligned(request.len)
            && request.align.is_power_of_two()
            && request.offset.is_multiple_of(least);
        if !valid {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let (low, high) = self
            .pages_inside(request.within)
            .ok_or(ErrorKind::Exhausted)?;
        let wanted = Wanted {
            len: self.page_of(request.len),
            align: self.page_of(request.align).max(1),
            shift: self.page_of(request.offset),
            low,
            high,
        };
        let held = self.lock();
        let tree = &held.parts.tree;
        let start = match request.order {
            GapOrder::Lowest => tree.find_lowest(&wanted),
            GapOrder::Highest => tree.find_highest(&wanted),
            GapOrder::Nearest(addr) => tree.find_nearest(&wanted, self.page_of(addr)),
        };
        drop(held);
        let start = start.ok_or(ErrorKind::Exhausted)?;
        Ok(self.addresses((start, start + wanted.len)))
    }

    /// Returns what the map holds.
    pub fn statistics(&self) -> Statistics {
        let Held { parts, writer, .. } = self.lock();
        Statistics {
            ranges: writer.ranges,
            pages: to_usize(writer.pages),
            nodes: writer.used(),
            node_bytes: writer.used() * size_of::<Node<WORDS>>(),
            metadata_bytes: parts.arena.committed_bytes(),
            abandoned_bytes: parts.abandoned,
        }
    }
}
