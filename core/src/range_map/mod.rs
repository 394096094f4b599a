//! An ordered map of disjoint address ranges with a small value each.
//!
//! ```text
//!   bounds   ├──────────────────────────────────────────────────────────────┤
//!   ranges     [ 7    )[ 9  )            [ 7 )          [ 4            )
//!   gaps     ──                ──────────     ──────────                ─────
//! ```
//!
//! [`RangeMap`] tracks what lies where, for instance the mappings of a guest, and finds room for
//! more. Changes take a lock; [`RangeMap::query`] and [`RangeMap::next_from`] take none and may
//! interrupt anything, a change on the same thread included. The map describes addresses and
//! touches none.
//!
//! It is a B+ tree of wide nodes, which are copied to be changed: `docs/REGIONS.md` draws it.

mod change;
mod gap;
mod hook;
mod in_place;
mod iter;
mod list;
mod node;
mod pool;
mod rebuild;
mod rewrite;
mod tree;
mod value;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use change::Pages;
pub(crate) use gap::Wanted;
pub use hook::SignalHook;
pub use iter::{Gaps, Ranges};
pub(crate) use pool::Writer;
pub(crate) use tree::{Path, Tree};
pub use value::Value;

use crate::{
    arena::Arena,
    fork::{ForkChild, Renewable},
    page::{AddressRange, PageSize},
    provider::{Error, ErrorKind, PageProvider},
    sync::{Guard, Lock, RawMutex, Spin},
};
use core::fmt;
use hook::Deferred;
use node::{Entry, Node, WORDS};

/// Which gap is taken of those that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The one at the lowest address.
    Lowest,
    /// The one at the highest address.
    Highest,
    /// The one whose start is nearest to that of the page with this address; the lower one of two.
    Nearest(usize),
}

/// What [`RangeMap::find_gap`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRequest {
    /// Bytes; whole pages, not 0.
    pub len: usize,
    /// What the aligned byte's address is a multiple of; a power of two.
    pub align: usize,
    /// How many bytes behind the start the aligned byte lies; a multiple of the page size or of
    /// the alignment, whichever is less. It may lie outside the gap.
    pub offset: usize,
    /// Where the gap may lie. Pages count that are wholly inside.
    pub within: AddressRange,
    /// Which one.
    pub order: Order,
}

impl GapRequest {
    /// Asks for `len` bytes at the lowest address where they fit.
    #[must_use]
    pub const fn bytes(len: usize) -> Self {
        Self {
            len,
            align: 1,
            offset: 0,
            within: AddressRange::ALL,
            order: Order::Lowest,
        }
    }

    /// Asks for another order.
    #[must_use]
    pub const fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// Asks for addresses within a range.
    #[must_use]
    pub const fn within(self, within: AddressRange) -> Self {
        Self { within, ..self }
    }

    /// Asks that the byte `offset` bytes behind the start is aligned.
    #[must_use]
    pub const fn aligned(self, align: usize, offset: usize) -> Self {
        Self {
            align,
            offset,
            ..self
        }
    }
}

/// What a map holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Ranges.
    pub ranges: usize,
    /// Pages that the ranges cover.
    pub pages: usize,
    /// Nodes of the tree.
    pub nodes: usize,
    /// Bytes of the nodes of the tree.
    pub node_bytes: usize,
    /// Bytes of memory that the map holds, nodes for later changes included.
    pub metadata_bytes: usize,
    /// Bytes of nodes that a forked child left behind: a lock was held when it was forked, and what
    /// the lock guarded was built anew. They are not in the other numbers, and go with the map.
    pub abandoned_bytes: usize,
}

/// An ordered map of disjoint address ranges with a value each.
///
/// `M` gives memory for the map's own nodes, `R` says what a waiting thread does.
///
/// # Examples
///
/// ```
/// # fn guest<M: hostmem_core::provider::PageProvider + Copy>(memory: M)
/// #     -> Result<(), hostmem_core::provider::Error> {
/// use hostmem_core::{
///     page::{AddressRange, PageSize},
///     range_map::{GapRequest, RangeMap},
/// };
///
/// let bounds = AddressRange::LOW_4G;
/// let map: RangeMap<u8, _> = RangeMap::on(memory, bounds, PageSize::KIB_4, 16 << 20)?;
/// let gap = map.find_gap(&GapRequest::bytes(8 << 12))?;
/// map.insert_new(gap, 3)?;
/// assert_eq!(map.query(gap.start() + 100), Some((gap, 3)));
/// assert_eq!(map.remove(gap)?, 8);
/// # Ok(())
/// # }
/// ```
pub struct RangeMap<T, M: PageProvider + Copy, R = Spin> {
    parts: Renewable<Parts<T, M, R>>,
    metadata: M,
    max_bytes: usize,
    bounds: AddressRange,
    shift: u32,
    signals: Option<SignalHook>,
}

/// What a forked child makes anew where the lock was held.
struct Parts<T, M: PageProvider + Copy, R> {
    tree: Tree<T>,
    writer: Lock<Writer, R>,
    arena: Arena<M, R>,
    /// Bytes of the nodes that were left behind for these.
    abandoned: usize,
}

/// The lock, held, and what it guards.
struct Held<'a, T, M: PageProvider + Copy, R: RawMutex> {
    parts: &'a Parts<T, M, R>,
    // In this order: the lock is given back before signals come in.
    writer: Guard<'a, Writer, R>,
    _deferred: Deferred,
}

impl<T: Value, M: PageProvider + Copy + Default, R: RawMutex> RangeMap<T, M, R> {
    /// Makes an empty map with nodes from a provider that needs no arguments, such as an operating
    /// system's.
    ///
    /// # Errors
    ///
    /// The errors of [`RangeMap::on`].
    pub fn new(bounds: AddressRange, page: PageSize, max_bytes: usize) -> Result<Self, Error> {
        Self::on(M::default(), bounds, page, max_bytes)
    }
}

/// Making a map, and reading it.
impl<T: Value, M: PageProvider + Copy, R: RawMutex> RangeMap<T, M, R> {
    /// Makes an empty map of the addresses in `bounds`, in pages of `page`, which need not be a
    /// host's: with pages of one byte it is a map of any ranges. Its nodes take up to `max_bytes`
    /// from `metadata`, about 16 bytes a range, which are reserved as they are needed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] unless the bounds are whole pages, fewer than half of all
    /// addresses where a page is one byte, and a page ends behind `max_bytes`.
    pub fn on(
        metadata: M,
        bounds: AddressRange,
        page: PageSize,
        max_bytes: usize,
    ) -> Result<Self, Error> {
        let pages = whole_pages(bounds, page).ok_or(ErrorKind::InvalidArgument)?;
        Ok(Self {
            parts: Renewable::new(Parts::new(metadata, pages, max_bytes)?),
            metadata,
            max_bytes,
            bounds,
            shift: page.bytes().trailing_zeros(),
            signals: None,
        })
    }

    /// Sets what keeps signals away from a thread that holds the lock, so that handlers may change
    /// the map, too.
    #[must_use]
    pub fn with_signals(mut self, hook: SignalHook) -> Self {
        self.signals = Some(hook);
        self
    }

    /// Returns the addresses that ranges may have.
    pub const fn bounds(&self) -> AddressRange {
        self.bounds
    }

    /// Returns the size of a page.
    pub fn page_size(&self) -> PageSize {
        PageSize::new(1 << self.shift).expect("it was made of one")
    }

    /// Finds the range that holds `addr`, and its value.
    ///
    /// Takes no lock, waits for nobody on the same thread, and may run in a signal handler. The
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
    /// Some dozens are read at a time, without a lock, as of one moment: ranges that stay are seen
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

    /// Finds a gap: there is one unless this fails. Nobody is kept from taking it.
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
            Order::Lowest => tree.find_lowest(&wanted),
            Order::Highest => tree.find_highest(&wanted),
            Order::Nearest(addr) => tree.find_nearest(&wanted, self.page_of(addr)),
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

/// Changing a map.
impl<T: Value, M: PageProvider + Copy, R: RawMutex> RangeMap<T, M, R> {
    /// Gives `range` a value, whatever was there; returns how many of its pages had one. What
    /// overlaps partly is cut, and neighbours that touch and have the same value become one with it
    /// where [`Value::joins`] says so. Readers see all of it or nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] unless `range` is whole pages, [`ErrorKind::OutsideRange`]
    /// unless it lies in the bounds; what the metadata's provider says, or
    /// [`ErrorKind::Exhausted`], where memory is needed and there is none. Nothing changes then.
    pub fn insert(&self, range: AddressRange, value: T) -> Result<usize, Error> {
        let pages = self.pages(range)?;
        let had = self.change(pages, |Held { parts, writer, .. }| {
            parts.tree.insert(writer, &parts.arena, pages, value)
        })?;
        Ok(to_usize(had))
    }

    /// Gives `range` a value if none of its pages has one. Neighbours are joined as by
    /// [`RangeMap::insert`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Taken`] where a page has a value, and those of [`RangeMap::insert`]. Nothing
    /// changes then.
    pub fn insert_new(&self, range: AddressRange, value: T) -> Result<(), Error> {
        let pages = self.pages(range)?;
        self.change(pages, |Held { parts, writer, .. }| {
            parts.tree.insert_new(writer, &parts.arena, pages, value)
        })
    }

    /// As [`RangeMap::insert`], and tells `dropped` of each piece that had a value before, in
    /// order, cut off at the ends of `range`: what of it was taken from which range.
    ///
    /// `dropped` runs under the lock of the map before anything changes, and once it runs nothing
    /// fails: it must not call the map, but for reading without a lock. Where it panics, nothing
    /// has changed.
    ///
    /// # Errors
    ///
    /// The errors of [`RangeMap::insert`]. `dropped` was not called then.
    pub fn insert_with(
        &self,
        range: AddressRange,
        value: T,
        dropped: impl FnMut(AddressRange, T),
    ) -> Result<usize, Error> {
        self.set_with(range, Some(value), dropped)
    }

    /// As [`RangeMap::remove`], and tells `dropped` of each piece that goes, as
    /// [`RangeMap::insert_with`] does.
    ///
    /// # Errors
    ///
    /// The errors of [`RangeMap::insert`]. `dropped` was not called then.
    pub fn remove_with(
        &self,
        range: AddressRange,
        dropped: impl FnMut(AddressRange, T),
    ) -> Result<usize, Error> {
        self.set_with(range, None, dropped)
    }

    fn set_with(
        &self,
        range: AddressRange,
        value: Option<T>,
        mut dropped: impl FnMut(AddressRange, T),
    ) -> Result<usize, Error> {
        let pages = self.pages(range)?;
        let had = self.change(pages, |Held { parts, writer, .. }| {
            parts.tree.prepare(writer, &parts.arena, 1)?;
            parts.tree.each_in(pages, |entry| {
                let (piece, value) = self.seen(entry);
                dropped(piece, value);
            });
            let (tree, arena) = (&parts.tree, &parts.arena);
            tree.set_at(writer, arena, pages, value, None)
        })?;
        Ok(to_usize(had))
    }

    /// Takes `range` away, however many ranges it is part of or holds; returns how many pages had a
    /// value. Readers see all of it or nothing.
    ///
    /// # Errors
    ///
    /// The errors of [`RangeMap::insert`]: a part of a range may leave two, and nodes are copied to
    /// be changed. Nothing changes then.
    pub fn remove(&self, range: AddressRange) -> Result<usize, Error> {
        let pages = self.pages(range)?;
        let had = self.change(pages, |Held { parts, writer, .. }| {
            parts.tree.remove(writer, &parts.arena, pages)
        })?;
        Ok(to_usize(had))
    }

    /// Makes sure that the next `changes` changes cannot fail for want of memory: so many calls of
    /// [`RangeMap::insert`], [`RangeMap::insert_new`] and [`RangeMap::remove`], whoever makes them.
    /// A tracker asks before it lets the host change something that is then to be noted.
    ///
    /// Each takes some 4 KiB of the map's memory, or some 10 KiB in bounds of 2^31 pages and more,
    /// most of which stays for later changes. It says nothing of a child that is forked
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// What the metadata's provider says, or [`ErrorKind::Exhausted`], where there is not so much
    /// memory. The map is as it was then.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn unmap<M: hostmem_core::provider::PageProvider + Copy>(
    /// #     map: &hostmem_core::range_map::RangeMap<u8, M>,
    /// #     range: hostmem_core::page::AddressRange,
    /// #     munmap: impl FnOnce() -> bool,
    /// # ) -> Result<(), hostmem_core::provider::Error> {
    /// map.prepare(1)?;
    /// if munmap() {
    ///     map.remove(range).expect("prepared");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn prepare(&self, changes: usize) -> Result<(), Error> {
        let Held {
            parts, mut writer, ..
        } = self.lock();
        parts.tree.prepare(&mut writer, &parts.arena, changes)
    }

    /// Changes the values in `range`, cutting ranges at its ends and joining what becomes equal;
    /// returns how many pages had a value. Readers see all of it or nothing.
    ///
    /// `change` runs under the lock of the map, once for each range as it is then, in order: it
    /// must not call the map, but for reading without a lock. Where it panics, nothing has changed.
    ///
    /// # Errors
    ///
    /// The errors of [`RangeMap::insert`]. `change` was not called then, or once, where there is
    /// one range. A range that gets another value where it lies needs no memory.
    pub fn update(&self, range: AddressRange, change: impl FnMut(T) -> T) -> Result<usize, Error> {
        let pages = self.pages(range)?;
        let had = self.change(pages, |Held { parts, writer, .. }| {
            parts.tree.update(writer, &parts.arena, pages, change)
        })?;
        Ok(to_usize(had))
    }

    /// Changes what lies in `range` by what `change` says of each range in it and of each gap, in
    /// order, cut off at the ends of `range`: its value then, `None` for none. What it returns is
    /// the value of the piece from then on. Returns how many pages had a value before. Readers see
    /// all of it or nothing; a call that sets flags of pages, as emulators do, is one of these.
    ///
    /// `change` is called as that of [`RangeMap::update`].
    ///
    /// # Errors
    ///
    /// The errors of [`RangeMap::update`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn set_flags<M: hostmem_core::provider::PageProvider + Copy>(
    /// #     map: &hostmem_core::range_map::RangeMap<u32, M>,
    /// #     range: hostmem_core::page::AddressRange,
    /// # ) -> Result<(), hostmem_core::provider::Error> {
    /// const VALID: u32 = 1;
    /// const DIRTY: u32 = 2;
    /// // What is there is written to, and what is not there comes to be.
    /// map.rewrite(range, |_, flags| Some(flags.unwrap_or(VALID) | DIRTY))?;
    /// // What is dirty goes.
    /// map.rewrite(range, |_, flags| flags.filter(|flags| flags & DIRTY == 0))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn rewrite(
        &self,
        range: AddressRange,
        mut change: impl FnMut(AddressRange, Option<T>) -> Option<T>,
    ) -> Result<usize, Error> {
        let pages = self.pages(range)?;
        let had = self.change(pages, |Held { parts, writer, .. }| {
            let change = |pages, old| change(self.addresses(pages), old);
            let (tree, arena) = (&parts.tree, &parts.arena);
            tree.rewrite(writer, arena, pages, true, change)
        })?;
        Ok(to_usize(had))
    }
}

/// Changing a map where waiting is no choice.
impl<T: Value, M: PageProvider + Copy, R: RawMutex> RangeMap<T, M, R> {
    /// As [`RangeMap::insert`]; `None` where the map is being changed, by another thread or by what
    /// a signal handler that calls this has interrupted. Nothing changed then.
    pub fn try_insert(&self, range: AddressRange, value: T) -> Option<Result<usize, Error>> {
        self.try_change(range, |tree, writer, arena, pages| {
            tree.insert(writer, arena, pages, value)
        })
    }

    /// As [`RangeMap::insert_new`]; `None` as of [`RangeMap::try_insert`].
    pub fn try_insert_new(&self, range: AddressRange, value: T) -> Option<Result<(), Error>> {
        let done = self.try_change(range, |tree, writer, arena, pages| {
            tree.insert_new(writer, arena, pages, value).map(|()| 0)
        });
        done.map(|done| done.map(drop))
    }

    /// As [`RangeMap::remove`]; `None` as of [`RangeMap::try_insert`].
    pub fn try_remove(&self, range: AddressRange) -> Option<Result<usize, Error>> {
        self.try_change(range, |tree, writer, arena, pages| {
            tree.remove(writer, arena, pages)
        })
    }

    /// As [`RangeMap::update`]; `None` as of [`RangeMap::try_insert`].
    pub fn try_update(
        &self,
        range: AddressRange,
        change: impl FnMut(T) -> T,
    ) -> Option<Result<usize, Error>> {
        self.try_change(range, |tree, writer, arena, pages| {
            tree.update(writer, arena, pages, change)
        })
    }

    fn try_change(
        &self,
        range: AddressRange,
        change: impl FnOnce(&Tree<T>, &mut Writer, &Arena<M, R>, Pages) -> Result<u64, Error>,
    ) -> Option<Result<usize, Error>> {
        let pages = match self.pages(range) {
            Ok(pages) => pages,
            Err(error) => return Some(Err(error)),
        };
        let held = self.try_lock()?;
        let had = self.change_held(held, pages, |Held { parts, writer, .. }| {
            change(&parts.tree, writer, &parts.arena, pages)
        });
        Some(had.map(to_usize))
    }
}

/// The lock, and forks.
impl<T: Value, M: PageProvider + Copy, R: RawMutex> RangeMap<T, M, R> {
    #[inline]
    fn lock(&self) -> Held<'_, T, M, R> {
        let deferred = Deferred::new(self.signals);
        loop {
            let parts = self.parts.current();
            let writer = parts.writer.lock();
            // A handler may have forked before the lock was taken.
            if self.parts.is_current(parts) {
                return Held {
                    parts,
                    writer,
                    _deferred: deferred,
                };
            }
        }
    }

    fn try_lock(&self) -> Option<Held<'_, T, M, R>> {
        let deferred = Deferred::new(self.signals);
        loop {
            let parts = self.parts.current();
            let writer = parts.writer.try_lock()?;
            if self.parts.is_current(parts) {
                return Some(Held {
                    parts,
                    writer,
                    _deferred: deferred,
                });
            }
        }
    }

    /// Makes a change of these pages.
    #[inline]
    fn change<X>(
        &self,
        pages: Pages,
        change: impl FnOnce(&mut Held<'_, T, M, R>) -> Result<X, Error>,
    ) -> Result<X, Error> {
        self.change_held(self.lock(), pages, change)
    }

    #[inline]
    fn change_held<X>(
        &self,
        mut held: Held<'_, T, M, R>,
        pages: Pages,
        change: impl FnOnce(&mut Held<'_, T, M, R>) -> Result<X, Error>,
    ) -> Result<X, Error> {
        let done = change(&mut held)?;
        if !self.parts.is_current(held.parts) {
            self.transfer(held.parts, pages)?;
        }
        Ok(done)
    }

    /// Copies a change that was made in parts which are not current any more: this is a forked
    /// child, and the fork was in the middle of the change.
    #[cold]
    fn transfer(&self, from: &Parts<T, M, R>, (start, end): Pages) -> Result<(), Error> {
        let Held {
            parts, mut writer, ..
        } = self.lock();
        let (tree, arena) = (&parts.tree, &parts.arena);
        tree.remove(&mut writer, arena, (start, end))?;
        let mut page = start;
        while page < end
            && let Some(entry) = from.tree.next_from(page).filter(|e| e.start < end)
        {
            let part = (entry.start.max(page), entry.end().min(end));
            tree.insert(&mut writer, arena, part, entry.value::<T>())?;
            page = part.1;
        }
        Ok(())
    }
}

impl<T: Value, M: PageProvider + Copy, R: RawMutex> Parts<T, M, R> {
    /// Makes an empty tree of the pages from one to another.
    fn new(metadata: M, (low, high): Pages, max_bytes: usize) -> Result<Self, Error> {
        let arena = Arena::new(metadata, max_bytes)?;
        // SAFETY: all changes are given this arena, which is owned beside the tree; the tree
        // reaches no node when it is dropped.
        let tree = unsafe { Tree::new(&arena, low, high) };
        Ok(Self {
            tree,
            writer: Lock::new(Writer::new()),
            arena,
            abandoned: 0,
        })
    }
}

/// Addresses and pages.
impl<T, M: PageProvider + Copy, R> RangeMap<T, M, R> {
    #[inline]
    const fn page_of(&self, addr: usize) -> u64 {
        (addr >> self.shift) as u64
    }

    /// Returns the first page that a window touches and the last one, in the bounds; the first is
    /// behind the last where there is none.
    const fn touched_pages(&self, window: AddressRange) -> Pages {
        match window.intersect(self.bounds) {
            Some(window) => (self.page_of(window.start()), self.page_of(window.last())),
            None => (1, 0),
        }
    }

    #[inline]
    fn addresses(&self, (start, end): Pages) -> AddressRange {
        let start = to_usize(start << self.shift);
        // The end of all addresses wraps.
        let last = to_usize((end << self.shift).wrapping_sub(1));
        AddressRange::spanning(start, last)
    }

    #[inline]
    fn seen(&self, entry: Entry) -> (AddressRange, T)
    where
        T: Value,
    {
        let range = self.addresses((entry.start, entry.end()));
        (range, entry.value::<T>())
    }

    /// Returns the pages of a range to be changed.
    #[inline]
    fn pages(&self, range: AddressRange) -> Result<Pages, Error> {
        let page = PageSize::new(1 << self.shift).ok_or(ErrorKind::InvalidArgument)?;
        let pages = whole_pages(range, page).ok_or(ErrorKind::InvalidArgument)?;
        if self.bounds.contains_range(range) {
            Ok(pages)
        } else {
            Err(ErrorKind::OutsideRange.into())
        }
    }

    /// Returns the pages that lie wholly in a window, and in the bounds.
    fn pages_inside(&self, window: AddressRange) -> Option<Pages> {
        let window = window.intersect(self.bounds)?;
        let mask = (1 << self.shift) - 1;
        let low = self.page_of(window.start()) + u64::from(window.start() & mask != 0);
        let high = self.page_of(window.last()) + u64::from(window.last() & mask == mask);
        (low < high).then_some((low, high))
    }
}

/// Returns the pages of a range, if they are whole.
#[inline]
fn whole_pages(range: AddressRange, page: PageSize) -> Option<Pages> {
    let (shift, mask) = (page.bytes().trailing_zeros(), page.bytes() - 1);
    // Numbers of pages have 63 bits.
    let few = range.last() >> shift <= usize::MAX >> 1;
    let whole = few && range.start() & mask == 0 && range.last() & mask == mask;
    let (first, last) = (range.start() >> shift, range.last() >> shift);
    whole.then(|| (first as u64, last as u64 + 1))
}

#[inline]
fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("pages and addresses of this machine")
}

// SAFETY: the tree is whole for readers after every store of a change, so that what it holds can be
// copied; the lock is the child's own afterwards, and the arena, whose lock is only taken under it.
unsafe impl<T: Value, M: PageProvider + Copy, R: RawMutex> ForkChild for RangeMap<T, M, R> {
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let old = self.parts.current();
        if !old.writer.is_locked() {
            return Ok(());
        }
        let pages = (old.tree.low, old.tree.high);
        let mut new: Parts<T, M, R> = Parts::new(self.metadata, pages, self.max_bytes)?;
        let nodes = old
            .tree
            .copy_to(&new.tree, new.writer.get_mut(), &new.arena, |_, _| {})?;
        new.abandoned = old.abandoned + nodes * Tree::<T>::NODE_BYTES;
        // SAFETY: the caller's promise: the only thread; Drop disposes with the same provider.
        unsafe { self.parts.renew(&self.metadata, || new)? };
        // SAFETY: as above; it was taken out of use just now.
        unsafe { old.writer.abandon() };
        Ok(())
    }
}

impl<T, M: PageProvider + Copy, R> Drop for RangeMap<T, M, R> {
    fn drop(&mut self) {
        self.parts.dispose(&self.metadata);
    }
}

impl<T, M: PageProvider + Copy, R> fmt::Debug for RangeMap<T, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeMap")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
