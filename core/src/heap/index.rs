//! A sorted array: what lies at an address, or next above it, in a logarithmic number of steps.
//!
//! ```text
//!   entries   │ addr what │ addr what │ addr what │     .     │     .     │
//!             └──────────── len ──────────────────┘                       │ room
//! ```
//!
//! It is right for what costs a call of the provider anyway, beside which moving some kilobytes is
//! little.

use super::error::HeapError;
use crate::{
    arena::Arena,
    provider::{ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{alloc::Layout, ptr::NonNull, slice};

/// Entries that there is room for at first.
const FIRST: usize = 16;

/// Values by address, in the arena, where they are guarded by whatever lock guards this.
pub(super) struct Index<T> {
    entries: NonNull<(usize, T)>,
    room: usize,
    len: usize,
}

// SAFETY: the entries are this index's alone, as those of a vector.
unsafe impl<T: Send> Send for Index<T> {}

impl<T: Copy> Index<T> {
    pub(super) const fn new() -> Self {
        Self {
            entries: NonNull::dangling(),
            room: 0,
            len: 0,
        }
    }

    /// Returns all entries, by address.
    pub(super) fn all(&self) -> &[(usize, T)] {
        // SAFETY: len entries are initialised, or none where the pointer dangles; the memory is
        // never freed but by `make_room`, which needs an exclusive reference, and with the arena,
        // which outlives this.
        unsafe { slice::from_raw_parts(self.entries.as_ptr(), self.len) }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Returns the value of the nth address.
    pub(super) fn nth(&self, n: usize) -> Option<T> {
        self.all().get(n).map(|(_, what)| *what)
    }

    /// Returns how many entries lie below `addr`: the place of the first that does not.
    pub(super) fn below(&self, addr: usize) -> usize {
        self.all().partition_point(|(start, _)| *start < addr)
    }

    /// Returns the place of the last entry at `addr` or below; of the first of all if there is
    /// none.
    pub(super) fn around(&self, addr: usize) -> usize {
        let behind = self.all().partition_point(|(start, _)| *start <= addr);
        behind.saturating_sub(1)
    }

    /// Sees to it that there is room for another entry.
    ///
    /// # Errors
    ///
    /// Where there is no metadata; nothing changes then.
    pub(super) fn make_room<M: PageProvider + Copy, R: RawMutex>(
        &mut self,
        arena: &Arena<M, R>,
    ) -> Result<(), HeapError> {
        if self.len < self.room {
            return Ok(());
        }
        let room = (self.room * 2).max(FIRST);
        let layout = |room| {
            Layout::array::<(usize, T)>(room)
                .map_err(|_| HeapError::Metadata(ErrorKind::InvalidArgument.into()))
        };
        let (old, new) = (layout(self.room)?, layout(room)?);
        let entries = arena.alloc(new).map_err(HeapError::Metadata)?.cast();
        // SAFETY: fresh memory for as many entries.
        let before = unsafe { self.move_to(entries, room) };
        if self.len != 0 {
            // SAFETY: allocated here with this layout; the entries are used no more.
            unsafe { arena.free(before.cast(), old) };
        }
        Ok(())
    }

    /// Moves to memory for `room` entries; returns the memory before, which dangles if there was
    /// none.
    ///
    /// # Safety
    ///
    /// `entries` is memory for `room` entries, more than there are, and is this index's from here
    /// on.
    unsafe fn move_to(&mut self, entries: NonNull<(usize, T)>, room: usize) -> NonNull<(usize, T)> {
        debug_assert!(self.len <= room, "nothing is lost");
        // SAFETY: len entries are initialised, and fit in the new memory, which is another.
        unsafe { entries.copy_from_nonoverlapping(self.entries, self.len) };
        self.room = room;
        core::mem::replace(&mut self.entries, entries)
    }

    /// Adds a value, for which [`Index::make_room`] has made room, at an address that has none.
    pub(super) fn insert(&mut self, addr: usize, what: T) {
        assert!(self.len < self.room, "room was made");
        let place = self.below(addr);
        // SAFETY: place is at most len, which is below room.
        let slot = unsafe { self.entries.add(place) };
        // SAFETY: `place` is below the room, so that the next entry lies in it or right behind it.
        let next = unsafe { slot.add(1) };
        // SAFETY: the entries from place on are initialised, and there is room for one more behind
        // them.
        unsafe { next.copy_from(slot, self.len - place) };
        // SAFETY: in the room; what was there lies behind now.
        unsafe { slot.write((addr, what)) };
        self.len += 1;
    }

    /// Takes out the value of an address, if it has one.
    pub(super) fn remove(&mut self, addr: usize) {
        let place = self.below(addr);
        if self
            .all()
            .get(place)
            .is_none_or(|(start, _)| *start != addr)
        {
            return;
        }
        // SAFETY: place is below len.
        let slot = unsafe { self.entries.add(place) };
        // SAFETY: `place` is below the number of entries, so that this is at most their end.
        let next = unsafe { slot.add(1) };
        // SAFETY: the entries behind place are initialised.
        unsafe { slot.copy_from(next, self.len - place - 1) };
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::mem::MaybeUninit;
    use std::{boxed::Box, collections::BTreeMap, vec::Vec};

    #[test]
    fn entries_are_found_as_in_an_ordered_map() {
        let mut index = Index::new();
        let mut map = BTreeMap::new();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for step in 0..20_000_u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let addr = usize::try_from(random >> 32).expect("32 bits") % 97;
            if index.len == index.room {
                let room = index.room * 2 + 1;
                let memory: Vec<MaybeUninit<(usize, u32)>> =
                    (0..room).map(|_| MaybeUninit::uninit()).collect();
                let memory = NonNull::from(Box::leak(memory.into_boxed_slice())).cast();
                // SAFETY: leaked just now, with as many entries.
                unsafe { index.move_to(memory, room) };
            }
            // In vain where there is none.
            index.remove(addr);
            if map.remove(&addr).is_none() {
                index.insert(addr, step);
                map.insert(addr, step);
            }
            assert_eq!(index.len(), map.len());
            let below = map.range(..addr).count();
            assert_eq!(index.below(addr), below);
            let around = map.range(..=addr).count().saturating_sub(1);
            assert_eq!(index.around(addr), around);
        }
        let all: Vec<_> = map.into_iter().collect();
        assert_eq!(index.all(), all);
    }
}
