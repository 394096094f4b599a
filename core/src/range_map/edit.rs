//! Changing a map, waiting for its lock or not.

use super::{Held, Pages, RangeMap, Tree, Value, Writer, to_usize};
#[cfg(doc)]
use crate::provider::ErrorKind;
use crate::{
    arena::Arena,
    page::AddressRange,
    provider::{Error, PageProvider},
    sync::RawMutex,
};

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

    /// Makes sure that the next `changes` changes cannot fail for want of memory: as many calls of
    /// [`RangeMap::insert`], [`RangeMap::insert_new`] and [`RangeMap::remove`], whoever makes them.
    /// For those of many ranges at once there is [`RangeMap::prepare_rewrite`].
    /// A tracker asks before it lets the host change something that is then to be noted.
    ///
    /// Each takes some 4 KiB of the map's memory, or some 10 KiB in bounds of 2^31 pages and more,
    /// most of which stays for later changes. It says nothing of a child that is forked
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// The error of the metadata's provider, or [`ErrorKind::Exhausted`], where there is less
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

    /// Makes sure that the next change cannot fail for want of memory, if that is a call of
    /// [`RangeMap::update`] or [`RangeMap::rewrite`] for `range`, however many ranges it holds, or
    /// one that [`RangeMap::prepare`] is for. A change by another thread in between counts as the
    /// next one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] and [`ErrorKind::OutsideRange`] as by [`RangeMap::insert`],
    /// and the errors of [`RangeMap::prepare`].
    pub fn prepare_rewrite(&self, range: AddressRange) -> Result<(), Error> {
        let pages = self.pages(range)?;
        let Held {
            parts, mut writer, ..
        } = self.lock();
        parts
            .tree
            .prepare_update(&mut writer, &parts.arena, pages, true)
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
    /// order, cut off at the ends of `range`: its value then, `None` for none. It returns
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
    /// // Ranges are written to, and gaps become ranges.
    /// map.rewrite(range, |_, flags| Some(flags.unwrap_or(VALID) | DIRTY))?;
    /// // Dirty ranges go.
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

    /// As [`RangeMap::insert_new`]; `None` as from [`RangeMap::try_insert`].
    pub fn try_insert_new(&self, range: AddressRange, value: T) -> Option<Result<(), Error>> {
        let done = self.try_change(range, |tree, writer, arena, pages| {
            tree.insert_new(writer, arena, pages, value).map(|()| 0)
        });
        done.map(|done| done.map(drop))
    }

    /// As [`RangeMap::remove`]; `None` as from [`RangeMap::try_insert`].
    pub fn try_remove(&self, range: AddressRange) -> Option<Result<usize, Error>> {
        self.try_change(range, |tree, writer, arena, pages| {
            tree.remove(writer, arena, pages)
        })
    }

    /// As [`RangeMap::update`]; `None` as from [`RangeMap::try_insert`].
    pub fn try_update(
        &self,
        range: AddressRange,
        change: impl FnMut(T) -> T,
    ) -> Option<Result<usize, Error>> {
        self.try_change(range, |tree, writer, arena, pages| {
            tree.update(writer, arena, pages, change)
        })
    }

    /// As [`RangeMap::rewrite`]; `None` as from [`RangeMap::try_insert`].
    pub fn try_rewrite(
        &self,
        range: AddressRange,
        mut change: impl FnMut(AddressRange, Option<T>) -> Option<T>,
    ) -> Option<Result<usize, Error>> {
        self.try_change(range, |tree, writer, arena, pages| {
            let change = |pages, old| change(self.addresses(pages), old);
            tree.rewrite(writer, arena, pages, true, change)
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
