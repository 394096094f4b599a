//! The blocks by address, readable without a lock.
//!
//! Two sorted tables; the version says which one is current, `version & 1`. The writer, under the
//! allocator's lock, fills the other one and then publishes it. A reader takes what it needs and
//! looks at the version again: if it moved, the table may have been written meanwhile, and it
//! starts over. A reader that interrupts the writer on the same thread, in a signal handler, sees
//! a version that stands still, so it never waits.
//!
//! Tables, and the bitmaps that they point to, never go back to the arena: what a late reader
//! reads is stale, but it is a table or a bitmap.

use super::{
    bits::Bits,
    block::{Block, Held},
    span::SpanInfo,
};
use crate::{
    arena::Arena,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    provider::{Error, PageProvider},
    sync::RelaxStrategy,
};
use core::ptr::{NonNull, null_mut};

#[cfg(all(test, loom))]
mod models;

/// Entries of the first tables.
const FIRST_CAPACITY: usize = 64;

/// Entries that are compared one and all, rather than by halves.
const COUNTED: usize = 16;

/// One block, as readers see it.
struct Entry {
    /// The first granule in the executable view; never null in an entry below a table's length.
    rx: AtomicPtr<u8>,
    /// The first granule in the writable view.
    rw: AtomicPtr<u8>,
    /// Granules.
    count: AtomicUsize,
    /// Bytes of a granule, as a power of two.
    shift: AtomicU32,
    /// The words of the bitmaps.
    words: AtomicPtr<AtomicU64>,
    /// How many they are.
    word_count: AtomicUsize,
    /// The block itself, for the lock's holder.
    block: AtomicPtr<Block>,
}

impl Entry {
    fn empty() -> Self {
        Self {
            rx: AtomicPtr::new(null_mut()),
            rw: AtomicPtr::new(null_mut()),
            count: AtomicUsize::new(0),
            shift: AtomicU32::new(0),
            words: AtomicPtr::new(null_mut()),
            word_count: AtomicUsize::new(0),
            block: AtomicPtr::new(null_mut()),
        }
    }

    #[inline]
    fn load(&self) -> Copied {
        Copied {
            rx: self.rx.load(Ordering::Relaxed),
            rw: self.rw.load(Ordering::Relaxed),
            count: self.count.load(Ordering::Relaxed),
            shift: self.shift.load(Ordering::Relaxed),
            words: self.words.load(Ordering::Relaxed),
            word_count: self.word_count.load(Ordering::Relaxed),
            block: self.block.load(Ordering::Relaxed),
        }
    }

    /// Says whether a granule holds `addr`, which is not below the first one.
    #[inline]
    fn covers(&self, addr: usize) -> bool {
        let offset = addr.wrapping_sub(self.rx.load(Ordering::Relaxed).addr());
        offset >> (self.shift.load(Ordering::Relaxed) & 63) < self.count.load(Ordering::Relaxed)
    }

    fn store(&self, from: Copied) {
        self.rx.store(from.rx, Ordering::Relaxed);
        self.rw.store(from.rw, Ordering::Relaxed);
        self.count.store(from.count, Ordering::Relaxed);
        self.shift.store(from.shift, Ordering::Relaxed);
        self.words.store(from.words, Ordering::Relaxed);
        self.word_count.store(from.word_count, Ordering::Relaxed);
        self.block.store(from.block, Ordering::Relaxed);
    }
}

/// The values of an entry.
#[derive(Clone, Copy)]
struct Copied {
    rx: *mut u8,
    rw: *mut u8,
    count: usize,
    shift: u32,
    words: *mut AtomicU64,
    word_count: usize,
    block: *mut Block,
}

struct Table {
    len: AtomicUsize,
    /// The starts of the entries' executable views, close together.
    starts: NonNull<[AtomicUsize]>,
    entries: NonNull<[Entry]>,
}

impl Table {
    fn entries(&self) -> &[Entry] {
        // SAFETY: the slice was initialised when the table was made, is only changed through its
        // atomics, and lives as long as the arena, which outlives the index.
        let all = unsafe { self.entries.as_ref() };
        // A reader may see a length that belongs to another moment, but never past the slice.
        &all[..self.len.load(Ordering::Relaxed).min(all.len())]
    }

    fn starts(&self) -> &[AtomicUsize] {
        // SAFETY: as in entries.
        let all = unsafe { self.starts.as_ref() };
        &all[..self.len.load(Ordering::Relaxed).min(all.len())]
    }

    /// Returns how many entries start below `addr`.
    #[inline]
    fn below(&self, addr: usize) -> usize {
        let is_below = |start: &AtomicUsize| start.load(Ordering::Relaxed) < addr;
        let mut rest = self.starts();
        let mut before = 0;
        while rest.len() > COUNTED {
            let (low, high) = rest.split_at(rest.len() / 2);
            let skip = is_below(&high[0]);
            before += if skip { low.len() } else { 0 };
            rest = if skip { high } else { low };
        }
        // No branch depends on an address here, so none is predicted wrongly.
        before
            + rest
                .iter()
                .map(|start| usize::from(is_below(start)))
                .sum::<usize>()
    }

    /// Returns the entry with the highest start at or below `addr`.
    #[inline]
    fn find(&self, addr: usize) -> Option<&Entry> {
        let after = self.below(addr.checked_add(1)?);
        self.entries().get(after.checked_sub(1)?)
    }
}

/// A live span, found without the lock, and its block.
pub(super) struct Found {
    pub(super) info: SpanInfo,
    pub(super) block: NonNull<Block>,
}

/// The blocks by address.
pub(super) struct Index {
    version: AtomicU64,
    tables: [AtomicPtr<Table>; 2],
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            tables: [AtomicPtr::new(null_mut()), AtomicPtr::new(null_mut())],
        }
    }

    fn slot(&self, version: u64) -> &AtomicPtr<Table> {
        &self.tables[usize::from(version & 1 == 1)]
    }

    #[inline]
    fn table(&self, version: u64) -> Option<&Table> {
        let table = NonNull::new(self.slot(version).load(Ordering::Acquire));
        // SAFETY: tables are published whole with Release, never changed but for their atomics,
        // and live as long as the arena, which outlives the index.
        table.map(|t| unsafe { t.as_ref() })
    }

    /// Finds the live span around `addr` without a lock, without touching what is at `addr`.
    #[inline]
    pub(super) fn query(&self, addr: usize) -> Option<Found> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let entry = self.table(version).and_then(|t| t.find(addr));
            let Some(entry) = entry.filter(|e| e.covers(addr)).map(Entry::load) else {
                if self.is_current(version) {
                    return None;
                }
                continue;
            };
            // Checked before the entry is used: its fields are then of one moment.
            if !self.is_current(version) {
                continue;
            }
            let found = Self::span_in(entry, addr);
            // And after: the block was there all along.
            if self.is_current(version) {
                return found;
            }
        }
    }

    /// Says whether `version` is current still, after all loads before.
    #[inline]
    fn is_current(&self, version: u64) -> bool {
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    #[inline]
    fn span_in(entry: Copied, addr: usize) -> Option<Found> {
        let granule = (addr - entry.rx.addr()) >> entry.shift;
        if granule >= entry.count {
            return None;
        }
        let words = NonNull::new(entry.words)?;
        let words = NonNull::slice_from_raw_parts(words, entry.word_count);
        // SAFETY: the entry's fields are of one moment, at which `words` were this many words of
        // the block's bitmaps; they are atomics that stay such as long as the arena.
        let bits = Bits::new(unsafe { words.as_ref() }, entry.count);
        let span = bits.span_around(granule)?;
        let offset = span.start << entry.shift;
        // Only computed here, hence wrapping: whoever follows the pointers knows the span is live.
        let info = SpanInfo {
            rx: NonNull::new(entry.rx.wrapping_add(offset))?,
            rw: NonNull::new(entry.rw.wrapping_add(offset))?,
            len: span.len() << entry.shift,
        };
        let block = NonNull::new(entry.block)?;
        Some(Found { info, block })
    }

    /// Returns the block whose granules held `addr` at some moment of the call, without a lock.
    pub(super) fn block_at(&self, addr: usize) -> Option<NonNull<Block>> {
        self.at_one_moment(|table| {
            let entry = table.find(addr)?.load();
            let inside = (addr - entry.rx.addr()) >> entry.shift < entry.count;
            if inside {
                NonNull::new(entry.block)
            } else {
                None
            }
        })
    }

    /// Returns the block with the lowest first granule at or above `addr`, without a lock.
    pub(super) fn block_from(&self, addr: usize) -> Option<(usize, NonNull<Block>)> {
        self.at_one_moment(|table| {
            let entry = table.entries().get(table.below(addr))?.load();
            Some((entry.rx.addr(), NonNull::new(entry.block)?))
        })
    }

    /// Reads the table until it stood still meanwhile.
    fn at_one_moment<T>(&self, read: impl Fn(&Table) -> Option<T>) -> Option<T> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let found = self.table(version).and_then(&read);
            if self.is_current(version) {
                return found;
            }
        }
    }

    /// Returns the nth block by address. The lock of all changes is held.
    pub(super) fn block(&self, n: usize) -> Option<NonNull<Block>> {
        NonNull::new(
            self.current()?
                .entries()
                .get(n)?
                .block
                .load(Ordering::Relaxed),
        )
    }

    /// Yields all blocks by address. The lock is held, and the index not changed meanwhile.
    pub(super) fn blocks(&self) -> impl Iterator<Item = NonNull<Block>> + '_ {
        (0..).map_while(|n| self.block(n))
    }

    fn current(&self) -> Option<&Table> {
        self.table(self.version.load(Ordering::Relaxed))
    }

    /// Makes sure that one more block can be inserted, and any block removed. The lock is held.
    pub(super) fn make_room<P: PageProvider + Copy, R: RelaxStrategy>(
        &self,
        arena: &Arena<P, R>,
    ) -> Result<(), Error> {
        let version = self.version.load(Ordering::Relaxed);
        if self.table(version).is_none() {
            self.make_table(version, FIRST_CAPACITY, arena)?;
        }
        // The table that the next change will fill. The one after that fills the table that is
        // current now, which has room for one block less by the same rule.
        let len = self.current().map_or(0, |t| t.entries().len());
        if self
            .table(version + 1)
            .is_none_or(|t| t.entries.len() <= len)
        {
            self.make_table(version + 1, (2 * len).max(FIRST_CAPACITY), arena)?;
        }
        Ok(())
    }

    /// Gives `version` an empty table of `capacity`. What it had stays readable, and is not used
    /// again: doubling bounds that waste by what is in use.
    fn make_table<P: PageProvider + Copy, R: RelaxStrategy>(
        &self,
        version: u64,
        capacity: usize,
        arena: &Arena<P, R>,
    ) -> Result<(), Error> {
        let starts = arena.alloc_slice(capacity, || AtomicUsize::new(0))?;
        let entries = arena.alloc_slice(capacity, Entry::empty)?;
        let table = arena.alloc_value(Table {
            len: AtomicUsize::new(0),
            starts,
            entries,
        })?;
        self.slot(version).store(table.as_ptr(), Ordering::Release);
        Ok(())
    }

    /// Inserts a block; [`Index::make_room`] came before. The lock is held.
    pub(super) fn insert(&self, block: &Held<'_>) {
        self.insert_copied(entry_of(block));
    }

    fn insert_copied(&self, added: Copied) {
        self.rewrite(|old, new| {
            let at = old
                .iter()
                .take_while(|e| e.load().rx.addr() < added.rx.addr())
                .count();
            let entries = old.iter().map(Entry::load);
            let with = entries
                .clone()
                .take(at)
                .chain([added])
                .chain(entries.skip(at));
            copy(with, new)
        });
    }

    /// Removes a block. The lock is held.
    pub(super) fn remove(&self, block: NonNull<Block>) {
        self.rewrite(|old, new| {
            let entries = old.iter().map(Entry::load);
            copy(entries.filter(|e| e.block != block.as_ptr()), new)
        });
    }

    /// Fills the other table from the current one and publishes it.
    fn rewrite(&self, fill: impl FnOnce(&[Entry], &[Entry]) -> usize) {
        let version = self.version.load(Ordering::Relaxed);
        let old = self.table(version).map_or(&[][..], Table::entries);
        let Some(next) = self.table(version + 1) else {
            return;
        };
        // Readers of the version before this one may be in the table that is now written: they
        // must not see a new entry without seeing that the version moved on.
        fence(Ordering::Release);
        // SAFETY: as in Table::entries; the whole slice, since it is about to be filled.
        let all = unsafe { next.entries.as_ref() };
        let len = fill(old, all);
        next.len.store(len, Ordering::Relaxed);
        for (start, entry) in next.starts().iter().zip(next.entries()) {
            start.store(entry.rx.load(Ordering::Relaxed).addr(), Ordering::Relaxed);
        }
        self.version.store(version + 1, Ordering::Release);
    }
}

fn entry_of(held: &Held<'_>) -> Copied {
    Copied {
        rx: held.rx(0).as_ptr(),
        rw: held.rw(0).as_ptr(),
        count: held.count(),
        shift: held.block.shift,
        words: held.block.words().as_ptr(),
        word_count: Bits::words_for(held.count()),
        block: held.at.as_ptr(),
    }
}

fn copy(from: impl Iterator<Item = Copied>, to: &[Entry]) -> usize {
    from.zip(to).map(|(value, slot)| slot.store(value)).count()
}
