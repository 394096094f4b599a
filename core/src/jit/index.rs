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
    bits::{Bits, words_for},
    block::Block,
};
use crate::{
    arena::Arena,
    provider::{Error, PageProvider},
    sync::RelaxStrategy,
};
use core::{
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
};

/// Entries of the first tables.
const FIRST_CAPACITY: usize = 64;

/// One block, as readers see it.
struct Entry {
    /// The first granule in the executable view; never null in an entry below a table's length.
    rx: AtomicPtr<u8>,
    /// The first granule in the writable view.
    rw: AtomicPtr<u8>,
    /// Granules.
    count: AtomicUsize,
    /// The words of the bitmaps.
    words: AtomicPtr<AtomicU64>,
    /// The block itself, for the lock's holder.
    block: AtomicPtr<Block>,
}

impl Entry {
    const fn empty() -> Self {
        Self {
            rx: AtomicPtr::new(null_mut()),
            rw: AtomicPtr::new(null_mut()),
            count: AtomicUsize::new(0),
            words: AtomicPtr::new(null_mut()),
            block: AtomicPtr::new(null_mut()),
        }
    }

    fn load(&self) -> Copied {
        Copied {
            rx: self.rx.load(Ordering::Relaxed),
            rw: self.rw.load(Ordering::Relaxed),
            count: self.count.load(Ordering::Relaxed),
            words: self.words.load(Ordering::Relaxed),
            block: self.block.load(Ordering::Relaxed),
        }
    }

    fn store(&self, from: Copied) {
        self.rx.store(from.rx, Ordering::Relaxed);
        self.rw.store(from.rw, Ordering::Relaxed);
        self.count.store(from.count, Ordering::Relaxed);
        self.words.store(from.words, Ordering::Relaxed);
        self.block.store(from.block, Ordering::Relaxed);
    }
}

/// The values of an entry.
#[derive(Clone, Copy)]
struct Copied {
    rx: *mut u8,
    rw: *mut u8,
    count: usize,
    words: *mut AtomicU64,
    block: *mut Block,
}

struct Table {
    len: AtomicUsize,
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

    /// Returns the entry with the highest start at or below `addr`.
    fn find(&self, addr: usize) -> Option<&Entry> {
        let entries = self.entries();
        let after = entries.partition_point(|e| e.rx.load(Ordering::Relaxed).addr() <= addr);
        entries.get(after.checked_sub(1)?)
    }
}

/// A live span, found without the lock.
pub(super) struct Found {
    /// Its start in the executable view.
    pub(super) rx: NonNull<u8>,
    /// Its start in the writable view.
    pub(super) rw: NonNull<u8>,
    /// Its length in bytes.
    pub(super) len: usize,
}

/// The blocks by address.
pub(super) struct Index {
    granularity: usize,
    version: AtomicU64,
    tables: [AtomicPtr<Table>; 2],
}

impl Index {
    pub(super) const fn new(granularity: usize) -> Self {
        Self {
            granularity,
            version: AtomicU64::new(0),
            tables: [AtomicPtr::new(null_mut()), AtomicPtr::new(null_mut())],
        }
    }

    fn slot(&self, version: u64) -> &AtomicPtr<Table> {
        &self.tables[usize::from(version & 1 == 1)]
    }

    fn table(&self, version: u64) -> Option<&Table> {
        let table = NonNull::new(self.slot(version).load(Ordering::Acquire));
        // SAFETY: tables are published whole with Release, never changed but for their atomics,
        // and live as long as the arena, which outlives the index.
        table.map(|t| unsafe { t.as_ref() })
    }

    /// Finds the live span around `addr` without a lock, without touching what is at `addr`.
    pub(super) fn query(&self, addr: usize) -> Option<Found> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let entry = self
                .table(version)
                .and_then(|t| t.find(addr))
                .map(Entry::load);
            let Some(entry) = entry else {
                if self.is_current(version) {
                    return None;
                }
                continue;
            };
            // Checked before the entry is used: its fields are then of one moment.
            if !self.is_current(version) {
                continue;
            }
            let found = self.span_in(entry, addr);
            // And after: the block was there all along.
            if self.is_current(version) {
                return found;
            }
        }
    }

    /// Says whether `version` is current still, after all loads before.
    fn is_current(&self, version: u64) -> bool {
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    fn span_in(&self, entry: Copied, addr: usize) -> Option<Found> {
        let granule = (addr - entry.rx.addr()) / self.granularity;
        if granule >= entry.count {
            return None;
        }
        let words = NonNull::new(entry.words)?;
        let words = NonNull::slice_from_raw_parts(words, Bits::MAPS * words_for(entry.count));
        // SAFETY: the entry's fields are of one moment, at which `words` were this many words of
        // the block's bitmaps; they are atomics that stay such as long as the arena.
        let bits = Bits::new(unsafe { words.as_ref() }, entry.count);
        let span = bits.span_around(granule)?;
        let offset = span.start * self.granularity;
        // Only computed here, hence wrapping: whoever follows the pointers knows the span is live.
        Some(Found {
            rx: NonNull::new(entry.rx.wrapping_add(offset))?,
            rw: NonNull::new(entry.rw.wrapping_add(offset))?,
            len: span.len() * self.granularity,
        })
    }

    /// Returns the block whose granules hold `addr`. The lock is held.
    pub(super) fn block_at(&self, addr: usize) -> Option<NonNull<Block>> {
        let entry = self.current()?.find(addr)?.load();
        let inside = (addr - entry.rx.addr()) / self.granularity < entry.count;
        if inside {
            NonNull::new(entry.block)
        } else {
            None
        }
    }

    /// Returns the nth block by address. The lock is held.
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
        let entries = arena.alloc_slice(capacity, Entry::empty)?;
        let table = arena.alloc_value(Table {
            len: AtomicUsize::new(0),
            entries,
        })?;
        self.slot(version).store(table.as_ptr(), Ordering::Release);
        Ok(())
    }

    /// Inserts a block; [`Index::make_room`] came before. The lock is held.
    pub(super) fn insert(&self, block: NonNull<Block>) {
        // SAFETY: the caller holds the lock, so nobody changes the block meanwhile.
        let added = entry_of(unsafe { block.as_ref() }, block);
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
        self.version.store(version + 1, Ordering::Release);
    }
}

fn entry_of(block: &Block, at: NonNull<Block>) -> Copied {
    Copied {
        rx: block.rx(0).as_ptr(),
        rw: block.rw(0).as_ptr(),
        count: block.bits().count,
        words: block.words().as_ptr(),
        block: at.as_ptr(),
    }
}

fn copy(from: impl Iterator<Item = Copied>, to: &[Entry]) -> usize {
    from.zip(to).map(|(value, slot)| slot.store(value)).count()
}
