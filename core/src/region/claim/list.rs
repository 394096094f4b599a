//! The claimed ranges, in the caller's memory: ascending, neighbours of one purpose joined.

use crate::{
    page::{PageRange, PageSize},
    provider::{Error, ErrorKind, MapEntry, MapFlags, ProcessMap},
};

/// The purpose of a claimed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// To place memory in.
    Usable,
    /// To stay inaccessible: [`ClaimRequest::hole`](super::ClaimRequest::hole).
    Hole,
    /// To keep the program break from growing.
    Break,
    /// To stay inaccessible, at the start of the range:
    /// [`ClaimRequest::guard`](super::ClaimRequest::guard).
    Guard,
}

/// A claimed range: reserved, and the claim's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claimed {
    /// Where it lies.
    pub range: PageRange,
    /// Its purpose.
    pub purpose: Purpose,
}

impl Claimed {
    /// Returns both as one; `None` unless `next` begins where this ends, for the same purpose.
    fn joined(self, next: Self) -> Option<Self> {
        let same = self.purpose == next.purpose;
        let range = self.range.joined(next.range).filter(|_| same)?;
        Some(Self { range, ..self })
    }
}

/// Some ranges, and how many bytes they have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many ranges.
    pub ranges: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Tally {
    pub(super) fn add(&mut self, bytes: usize) {
        self.ranges += 1;
        self.bytes += bytes;
    }
}

pub(super) struct List<'s> {
    slots: &'s mut [Option<Claimed>],
    len: usize,
}

impl<'s> List<'s> {
    pub(super) fn new(slots: &'s mut [Option<Claimed>]) -> Self {
        slots.fill(None);
        Self { slots, len: 0 }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Claimed> + '_ {
        self.slots[..self.len].iter().flatten().copied()
    }

    /// Returns the index of the first range at or above `addr`.
    fn index(&self, addr: usize) -> usize {
        self.slots[..self.len]
            .partition_point(|slot| slot.is_some_and(|claimed| claimed.range.addr() < addr))
    }

    /// Says whether `len` bytes at `start` can be inserted: there is a slot left, or they join a
    /// range of the list.
    pub(super) fn has_room(&self, start: usize, len: usize, purpose: Purpose) -> bool {
        let index = self.index(start);
        let at = |index: usize| self.slots[..self.len].get(index).copied().flatten();
        let joins = |claimed: Option<Claimed>, ends: bool| {
            claimed.is_some_and(|claimed| {
                let meets = if ends {
                    claimed.range.end() == start
                } else {
                    start.checked_add(len) == Some(claimed.range.addr())
                };
                meets && claimed.purpose == purpose
            })
        };
        self.len < self.slots.len()
            || joins(index.checked_sub(1).and_then(at), true)
            || joins(at(index), false)
    }

    /// Inserts a range that [`List::has_room`] for.
    pub(super) fn insert(&mut self, claimed: Claimed) {
        let index = self.index(claimed.range.addr());
        let before = index.checked_sub(1).and_then(|n| self.slots[n]);
        let after = self.slots[..self.len].get(index).copied().flatten();
        let with_before = before.and_then(|before| before.joined(claimed));
        let grown = with_before.unwrap_or(claimed);
        let with_after = after.and_then(|after| grown.joined(after));
        match (with_before, with_after) {
            (Some(_), Some(all)) => {
                self.slots[index - 1] = Some(all);
                self.remove_at(index);
            }
            (Some(all), None) => self.slots[index - 1] = Some(all),
            (None, Some(all)) => self.slots[index] = Some(all),
            (None, None) => self.insert_at(index, claimed),
        }
    }

    fn insert_at(&mut self, index: usize, claimed: Claimed) {
        assert!(
            self.len < self.slots.len(),
            "there is a slot: has_room said so"
        );
        self.len += 1;
        self.slots[index..self.len].rotate_right(1);
        self.slots[index] = Some(claimed);
    }

    fn remove_at(&mut self, index: usize) {
        self.slots[index..self.len].rotate_left(1);
        self.len -= 1;
        self.slots[self.len] = None;
    }

    /// Takes `range` out, which must lie in one range of the list.
    pub(super) fn remove(&mut self, range: PageRange, page: PageSize) -> Result<(), Error> {
        let invalid = Error::of(ErrorKind::InvalidArgument);
        let mut slots = self.slots[..self.len].iter();
        let holds = |slot: &Option<Claimed>| slot.is_some_and(|c| c.range.contains_range(range));
        let index = slots.position(holds).ok_or(invalid)?;
        let Some(Claimed {
            range: whole,
            purpose,
        }) = self.slots[index]
        else {
            return Err(invalid);
        };
        let head = whole.part(0, range.addr() - whole.addr(), page);
        let tail = whole.part(range.end() - whole.addr(), whole.end() - range.end(), page);
        let claimed = |range| Claimed { range, purpose };
        match (head, tail) {
            (Some(_), Some(_)) if self.len == self.slots.len() => {
                return Err(ErrorKind::Exhausted.into());
            }
            (Some(head), Some(tail)) => {
                self.slots[index] = Some(claimed(head));
                self.insert_at(index + 1, claimed(tail));
            }
            (Some(part), None) | (None, Some(part)) => self.slots[index] = Some(claimed(part)),
            (None, None) => self.remove_at(index),
        }
        Ok(())
    }

    /// Takes out the ranges for which `gone` says so.
    pub(super) fn remove_if(&mut self, mut gone: impl FnMut(Claimed) -> bool) {
        let mut kept = 0;
        for n in 0..self.len {
            let slot = self.slots[n].take();
            if slot.is_some_and(|claimed| !gone(claimed)) {
                self.slots[kept] = slot;
                kept += 1;
            }
        }
        self.len = kept;
    }
}

/// Where the host shows no map, what was claimed is all that is known to be mapped.
impl ProcessMap for List<'_> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        let flags = MapFlags::empty();
        let entry = |claimed: Claimed| MapEntry {
            range: claimed.range.addresses(),
            flags,
        };
        self.iter().map(entry).all(visit);
        Ok(())
    }
}
