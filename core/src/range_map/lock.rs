//! The lock of a map, held, and the changes that are made under it.

use super::hook::Deferred;
use super::{Pages, Parts, RangeMap, Value, Writer};
use crate::{
    provider::{Error, PageProvider},
    sync::{Guard, RawMutex},
};

/// The lock, held, and what it guards.
pub(super) struct Held<'a, T, M: PageProvider + Copy, R: RawMutex> {
    pub(super) parts: &'a Parts<T, M, R>,
    // In this order: the lock is given back before signals come in.
    pub(super) writer: Guard<'a, Writer, R>,
    _deferred: Deferred,
}

impl<T: Value, M: PageProvider + Copy, R: RawMutex> RangeMap<T, M, R> {
    #[inline]
    pub(super) fn lock(&self) -> Held<'_, T, M, R> {
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

    pub(super) fn try_lock(&self) -> Option<Held<'_, T, M, R>> {
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
    pub(super) fn change<X>(
        &self,
        pages: Pages,
        change: impl FnOnce(&mut Held<'_, T, M, R>) -> Result<X, Error>,
    ) -> Result<X, Error> {
        self.change_held(self.lock(), pages, change)
    }

    #[inline]
    pub(super) fn change_held<X>(
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
