//! Ranges of addresses that share none, each with a number: found without a lock, in a logarithmic
//! number of steps, however long they are.
//!
//! ```text
//!   root ──► top   first  │   0   │ 7000  │ 9f00  │     one slot for each piece
//!                  piece  │   │   │   │   │   │   │
//!                         └───┼───┴───┼───┴───┼───┘
//!                             ▼       ▼       ▼
//!   piece                 1000 2000 …         a000 b000 …      up to PIECE ranges, rising
//! ```
//!
//! A change copies the piece that it is in, and where pieces come or go the top, and then publishes
//! the copy by one store. So what readers reach, and what a forked child finds, is whole after
//! every step; and a change costs a piece, and once in many a top, which for a hundred thousand
//! ranges is forty kilobytes.
//!
//! Copies that were replaced serve again. Each change begins by moving a version on, before it
//! writes to any of them: a reader that finds the version as it was has read none that was written
//! meanwhile. One that interrupts a change, in a signal handler on the same thread, sees a version
//! that stands still, and what was published before: it never waits.
//!
//! `piece` has what readers reach, `spares` the copies that are not in use; what a change does is
//! here.

use crate::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
use core::ptr::{NonNull, null_mut};
use piece::{PIECE, Piece, Top};

#[cfg(all(test, loom))]
mod models;
mod piece;
mod spares;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use spares::Spares;

/// A range of addresses, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) value: usize,
}

impl Interval {
    #[inline]
    const fn contains(&self, addr: usize) -> bool {
        addr.wrapping_sub(self.start) < self.len
    }
}

/// The ranges. Whoever has its [`Spares`] may change it.
pub(crate) struct Intervals {
    version: AtomicU64,
    root: AtomicPtr<Top>,
}

impl Intervals {
    pub(crate) fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            root: AtomicPtr::new(null_mut()),
        }
    }

    #[inline]
    fn top(&self) -> Option<&Top> {
        let top = NonNull::new(self.root.load(Ordering::Acquire));
        // SAFETY: tops are published whole with Release, changed by their atomics only, and there
        // as long as the arena, which outlives the index.
        top.map(|top| unsafe { top.as_ref() })
    }

    /// Finds the range around an address, any address at all, without a lock.
    #[inline]
    pub(crate) fn find(&self, addr: usize) -> Option<Interval> {
        // Most programs have none.
        if self.root.load(Ordering::Relaxed).is_null() {
            return None;
        }
        self.search(addr)
    }

    #[inline(never)]
    fn search(&self, addr: usize) -> Option<Interval> {
        self.at_one_moment(|top| top.find(addr))
    }

    /// Finds the first range that ends above an address, without a lock.
    pub(crate) fn next(&self, addr: usize) -> Option<Interval> {
        self.at_one_moment(|top| {
            let slot = top.around(addr);
            let piece = top.piece(slot)?;
            let n = piece.up_to(addr);
            top.find(addr).or_else(|| {
                let next = |piece: &Piece, n| (n < piece.len()).then(|| piece.get(n));
                next(piece, n)
                    .or_else(|| next(top.piece(slot + 1).filter(|_| slot + 1 < top.len())?, 0))
            })
        })
    }

    /// Yields all ranges, those of no length too, by address. Whoever changes the index meanwhile
    /// takes out no other than the last one that was yielded.
    pub(crate) fn all(&self) -> impl Iterator<Item = Interval> {
        let mut after = None;
        core::iter::from_fn(move || {
            let found = self.at_one_moment(|top| {
                let first = after.map_or(0, |after| top.around(after));
                let pieces = (first..top.len()).filter_map(|n| top.piece(n));
                let mut all = pieces.flat_map(Piece::all);
                all.find(|range| after.is_none_or(|after| range.start > after))
            })?;
            after = Some(found.start);
            Some(found)
        })
    }

    /// Reads the index until it stood still meanwhile.
    fn at_one_moment<T>(&self, read: impl Fn(&Top) -> Option<T>) -> Option<T> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let found = self.top().and_then(&read);
            fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) == version {
                return found;
            }
        }
    }

    /// Begins a change: from here on copies that were replaced before may be written.
    fn begin(&self) {
        let version = self.version.load(Ordering::Relaxed);
        // Who sees it sees also what the last change published, and so reaches none of them.
        self.version
            .store(version.wrapping_add(1), Ordering::Release);
        // Who reads one of them, written from here on, sees that the version moved on.
        fence(Ordering::Release);
    }

    /// Publishes a top, or none, instead of the current one.
    fn publish(&self, spares: &mut Spares, top: Option<NonNull<Top>>) {
        let old = self.root.load(Ordering::Relaxed);
        let new = top.map_or(null_mut(), NonNull::as_ptr);
        self.root.store(new, Ordering::Release);
        // It has room for what may be taken out next.
        if let Some(old) = NonNull::new(old) {
            spares.push_top(old);
        }
    }

    /// Adds a range that shares no address with another, and is not empty; [`Spares::make_room`]
    /// came before.
    pub(crate) fn insert(&self, spares: &mut Spares, new: Interval) {
        self.begin();
        let added = self.try_insert(spares, new);
        debug_assert!(added.is_some(), "room was made");
    }

    fn try_insert(&self, spares: &mut Spares, new: Interval) -> Option<()> {
        let Some(top) = self.top() else {
            let piece = spares.piece([new].into_iter())?;
            let top = spares.top(1, [piece].into_iter())?;
            self.publish(spares, Some(top));
            return Some(());
        };
        let slot = top.around(new.start);
        let old = top.piece(slot)?;
        let place = old.up_to(new.start);
        let all = || {
            let behind = (place..old.len()).map(|n| old.get(n));
            old.all().take(place).chain([new]).chain(behind)
        };
        if old.len() < PIECE {
            let piece = spares.piece(all())?;
            self.replace(spares, top, slot, piece);
            return Some(());
        }
        let half = PIECE.div_ceil(2);
        let halves = [
            spares.piece(all().take(half))?,
            spares.piece(all().skip(half))?,
        ];
        let before = top.pieces().take(slot);
        let behind = top.pieces().skip(slot + 1);
        let new = spares.top(top.len() + 1, before.chain(halves).chain(behind))?;
        self.publish(spares, Some(new));
        spares.push(NonNull::from(old));
        Some(())
    }

    /// Publishes a piece instead of the one in a slot.
    fn replace(&self, spares: &mut Spares, top: &Top, slot: usize, new: NonNull<Piece>) {
        let Some(slot) = top.slot(slot) else {
            return;
        };
        let old = slot.load(Ordering::Relaxed);
        slot.store(new.as_ptr(), Ordering::Release);
        if let Some(old) = NonNull::new(old) {
            spares.push(old);
        }
    }

    /// Changes the length and the number of the range that starts at an address.
    pub(crate) fn change(&self, spares: &mut Spares, start: usize, len: usize, value: usize) {
        self.begin();
        let changed = self.try_change(spares, start, len, value);
        debug_assert!(changed.is_some(), "it is there, and so is a copy");
    }

    fn try_change(
        &self,
        spares: &mut Spares,
        start: usize,
        len: usize,
        value: usize,
    ) -> Option<()> {
        let top = self.top()?;
        let slot = top.around(start);
        let new = Interval { start, len, value };
        let old = top.piece(slot)?.all();
        let piece = spares.piece(old.map(|old| if old.start == start { new } else { old }))?;
        self.replace(spares, top, slot, piece);
        Some(())
    }

    /// Takes out the range that starts at an address, if there is one.
    pub(crate) fn remove(&self, spares: &mut Spares, start: usize) {
        self.begin();
        self.try_remove(spares, start);
    }

    fn try_remove(&self, spares: &mut Spares, start: usize) -> Option<()> {
        let top = self.top()?;
        let slot = top.around(start);
        let old = top.piece(slot)?;
        old.all().find(|there| there.start == start)?;
        let rest = || old.all().filter(|there| there.start != start);
        let left = old.len() - 1;
        // Pieces that are half full together become one.
        let other = if slot + 1 < top.len() {
            slot + 1
        } else {
            slot.wrapping_sub(1)
        };
        let other = top
            .piece(other)
            .filter(|_| other < top.len())
            .map(|piece| (other, piece));
        match other {
            Some((other, piece)) if left + piece.len() <= PIECE / 2 => {
                let both = [slot.min(other), slot.max(other)];
                let new = if other > slot {
                    spares.piece(rest().chain(piece.all()))?
                } else {
                    spares.piece(piece.all().chain(rest()))?
                };
                self.join(spares, top, both, Some(new));
                spares.push(NonNull::from(old));
                spares.push(NonNull::from(piece));
            }
            Some(_) if left == 0 => {
                self.join(spares, top, [slot, slot], None);
                spares.push(NonNull::from(old));
            }
            None if left == 0 => {
                self.publish(spares, None);
                spares.push(NonNull::from(old));
            }
            _ => {
                let new = spares.piece(rest())?;
                self.replace(spares, top, slot, new);
            }
        }
        Some(())
    }

    /// Publishes a top that has one piece, or none, instead of some neighbours.
    fn join(
        &self,
        spares: &mut Spares,
        top: &Top,
        [first, last]: [usize; 2],
        new: Option<NonNull<Piece>>,
    ) {
        let before = top.pieces().take(first);
        let behind = top.pieces().skip(last + 1);
        if let Some(made) = spares.top(top.len() - 1, before.chain(new).chain(behind)) {
            self.publish(spares, Some(made));
        }
    }
}
