//! The blocks by address, readable without a lock.
//!
//! Two sorted tables; the version says which one is current, `version & 1`. The writer, under the
//! allocator's lock, fills the other one and then publishes it. A reader takes what it needs and
//! looks at the version again: if it moved, the table may have been written meanwhile, and it
//! starts over. A reader that interrupts the writer on the same thread, in a signal handler, sees
//! a version that stands still, so it never waits.
//!
//! Tables, and the blocks that they point to, never go back to the arena: what a late reader reads
//! is stale, but it is a table, or a block with its bitmaps. A block changes its views only while
//! no table of the current version has it.

use super::{block::Block, span::SpanInfo, tables};
use crate::{
    arena::Arena,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    page::AddressRange,
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::ptr::{NonNull, null_mut};

#[cfg(all(test, loom))]
mod models;

/// Entries of the first tables.
const FIRST_CAPACITY: usize = 16;

/// Buckets for each entry of a table: enough that blocks which lie side by side, and are as
/// long as each other, begin in buckets of their own even where half of the table is free.
const BUCKETS_EACH: usize = 8;

/// Where a block starts, and the block.
type Entry = (usize, NonNull<Block>);

/// Blocks by address, for the readers of one version.
struct Table {
    len: AtomicUsize,
    /// Where the executable views begin, behind their padding; rising.
    starts: NonNull<[AtomicUsize]>,
    blocks: NonNull<[AtomicPtr<Block>]>,
    /// Where the first block starts.
    first: AtomicUsize,
    /// Bytes from there to where the last one ends.
    extent: AtomicUsize,
    /// Equal parts of those addresses: how many blocks start at or below the start of each. A power
    /// of two of them.
    buckets: NonNull<[AtomicU32]>,
    /// Bytes of a bucket, as a power of two.
    shift: AtomicUsize,
}

impl Table {
    #[inline]
    fn len(&self) -> usize {
        // A reader may see a length that belongs to another moment, but never past the slices.
        self.len.load(Ordering::Relaxed).min(self.starts.len())
    }

    #[inline]
    fn starts(&self) -> &[AtomicUsize] {
        &self.all_starts()[..self.len()]
    }

    #[inline]
    fn all_starts(&self) -> &[AtomicUsize] {
        // SAFETY: the slice was initialised when the table was made, is only changed through its
        // atomics, and lives as long as the arena, which outlives the index.
        unsafe { self.starts.as_ref() }
    }

    #[inline]
    fn all_blocks(&self) -> &[AtomicPtr<Block>] {
        // SAFETY: initialised when the table was made, changed only through its atomics, and alive
        // as long as the arena, which outlives the index.
        unsafe { self.blocks.as_ref() }
    }

    /// Returns the nth block.
    #[inline]
    fn block(&self, n: usize) -> Option<NonNull<Block>> {
        NonNull::new(self.all_blocks().get(n)?.load(Ordering::Relaxed))
    }

    #[inline]
    fn buckets(&self) -> &[AtomicU32] {
        // SAFETY: initialised when the table was made, changed only through its atomics, and alive
        // as long as the arena, which outlives the index.
        unsafe { self.buckets.as_ref() }
    }

    /// Returns how many blocks start below `addr`.
    fn below(&self, addr: usize) -> usize {
        self.starts()
            .partition_point(|start| start.load(Ordering::Relaxed) < addr)
    }

    /// Returns the block with the highest start at or below `addr`, unless `addr` lies before or
    /// behind all of them, as most addresses do that are not of code.
    #[inline]
    fn find(&self, addr: usize) -> Option<NonNull<Block>> {
        let offset = addr.wrapping_sub(self.first.load(Ordering::Relaxed));
        if offset >= self.extent.load(Ordering::Relaxed) {
            return None;
        }
        // Small programs have one block, which needs no search.
        if self.len.load(Ordering::Relaxed) == 1 {
            return self.block(0);
        }
        let buckets = self.buckets();
        // The mask takes nothing away, unless the table is just being written.
        let shift = self.shift.load(Ordering::Relaxed) % usize::BITS as usize;
        let bucket = buckets.get(offset >> shift & buckets.len().wrapping_sub(1))?;
        let before = bucket.load(Ordering::Relaxed) as usize;
        let starts = self.all_starts();
        // Behind the last block the table has one more start, that no address reaches.
        let starts_by = |n: usize| Some(starts.get(n)?.load(Ordering::Relaxed) <= addr);
        let after = before + usize::from(starts_by(before)?);
        if starts_by(after)? {
            return self.find_by_halves(addr);
        }
        self.block(after.wrapping_sub(1))
    }

    /// Searches where several blocks start in one bucket.
    #[cold]
    #[inline(never)]
    fn find_by_halves(&self, addr: usize) -> Option<NonNull<Block>> {
        let after = self.below(addr.checked_add(1)?);
        self.block(after.checked_sub(1)?)
    }

    /// Fills the buckets, when everything else is right.
    fn divide(&self) {
        let buckets = self.buckets();
        let (first, extent) = (
            self.first.load(Ordering::Relaxed),
            self.extent.load(Ordering::Relaxed),
        );
        if buckets.is_empty() || extent == 0 {
            return;
        }
        let mut shift = 0;
        while (extent - 1) >> shift >= buckets.len() {
            shift += 1;
        }
        self.shift.store(shift, Ordering::Relaxed);
        let starts = self.starts();
        let mut below = 0;
        for (n, bucket) in buckets.iter().enumerate() {
            let at = n << shift;
            while let Some(start) = starts.get(below)
                && start.load(Ordering::Relaxed) - first <= at
            {
                below += 1;
            }
            // Blocks are 4 KiB long at least: 2^32 of them take more addresses than any CPU has.
            bucket.store(u32::try_from(below).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// Sets the nth block and where it starts.
    fn set(&self, n: usize, (start, block): Entry) {
        self.all_starts()[n].store(start, Ordering::Relaxed);
        self.all_blocks()[n].store(block.as_ptr(), Ordering::Relaxed);
    }

    /// Yields the blocks and where they start. The lock of all changes is held.
    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let starts = self.starts().iter().enumerate();
        starts.filter_map(|(n, start)| Some((start.load(Ordering::Relaxed), self.block(n)?)))
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

    #[inline]
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
            let mut found = None;
            if let Some(table) = self.table(version)
                && let Some(block) = table.find(addr)
                // SAFETY: the blocks of a table live as long as the arena, which outlives the
                // index.
                && let Some(info) = unsafe { block.as_ref() }.span_around(addr)
            {
                found = Some(Found { info, block });
            }
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

    /// Returns the block whose granules held `addr` at some moment of the call, without a lock.
    #[inline]
    pub(super) fn block_at(&self, addr: usize) -> Option<NonNull<Block>> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let mut found = self.table(version).and_then(|table| table.find(addr));
            if let Some(block) = found
                // SAFETY: blocks of a table live as long as the arena, which outlives the index.
                && !unsafe { block.as_ref() }.covers(addr)
            {
                found = None;
            }
            if self.is_current(version) {
                return found;
            }
        }
    }

    /// Says whether all blocks lie within a range, as they are now.
    #[inline]
    pub(super) fn lies_within(&self, range: AddressRange) -> bool {
        let bounds = self.at_one_moment(|table| {
            let first = table.first.load(Ordering::Relaxed);
            Some((first, table.extent.load(Ordering::Relaxed)))
        });
        bounds.is_none_or(|(first, extent)| {
            extent == 0 || range.start() <= first && first + (extent - 1) <= range.last()
        })
    }

    /// Returns the block with the lowest first granule at or above `addr`, without a lock.
    pub(super) fn block_from(&self, addr: usize) -> Option<(usize, NonNull<Block>)> {
        self.at_one_moment(|table| {
            let n = table.below(addr);
            let start = table.starts().get(n)?.load(Ordering::Relaxed);
            Some((start, table.block(n)?))
        })
    }

    /// Reads the table until it stood still meanwhile.
    #[inline]
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
        let table = self.current()?;
        table.block(n).filter(|_| n < table.len())
    }

    /// Yields all blocks by address. The lock is held, and the index not changed meanwhile.
    pub(super) fn blocks(&self) -> impl Iterator<Item = NonNull<Block>> + '_ {
        (0..).map_while(|n| self.block(n))
    }

    fn current(&self) -> Option<&Table> {
        self.table(self.version.load(Ordering::Relaxed))
    }

    /// Makes sure that one more block can be inserted, and any block removed. The lock is held.
    pub(super) fn make_room<P: PageProvider + Copy, R: RawMutex>(
        &self,
        arena: &Arena<P, R>,
    ) -> Result<(), Error> {
        let version = self.version.load(Ordering::Relaxed);
        if self.table(version).is_none() {
            self.make_table(version, FIRST_CAPACITY, arena)?;
        }
        // The table that the next change will fill. The one after that fills the table that is
        // current now, which has room for one block less by the same rule.
        let len = self.current().map_or(0, Table::len);
        if self
            .table(version + 1)
            .is_none_or(|t| t.starts.len() <= len + 1)
        {
            self.make_table(version + 1, (2 * len).max(FIRST_CAPACITY), arena)?;
        }
        Ok(())
    }

    /// Gives `version` an empty table of `capacity`. What it had stays readable, and is not used
    /// again: doubling bounds that waste by what is in use.
    fn make_table<P: PageProvider + Copy, R: RawMutex>(
        &self,
        version: u64,
        capacity: usize,
        arena: &Arena<P, R>,
    ) -> Result<(), Error> {
        let starts = tables::zeroed(arena, capacity)?;
        let blocks = tables::zeroed(arena, capacity)?;
        let buckets = capacity.next_power_of_two() * BUCKETS_EACH;
        let buckets = tables::zeroed(arena, buckets)?;
        let table = arena.alloc_value(Table {
            len: AtomicUsize::new(0),
            starts,
            blocks,
            first: AtomicUsize::new(0),
            extent: AtomicUsize::new(0),
            buckets,
            shift: AtomicUsize::new(0),
        })?;
        self.slot(version).store(table.as_ptr(), Ordering::Release);
        Ok(())
    }

    /// Inserts a block, which readers see as it is now; [`Index::make_room`] came before. The lock
    /// is held.
    pub(super) fn insert(&self, block: NonNull<Block>) {
        // SAFETY: the caller's block lives as long as the arena.
        let (start, _) = unsafe { block.as_ref() }.range();
        self.rewrite(|old, put| {
            let mut added = Some((start, block));
            for entry in old {
                if entry.0 > start
                    && let Some(added) = added.take()
                {
                    put(added);
                }
                put(entry);
            }
            added.map(put);
        });
    }

    /// Removes a block, which may change afterwards. The lock is held.
    pub(super) fn remove(&self, block: NonNull<Block>) {
        self.rewrite(|old, put| old.filter(|(_, other)| *other != block).for_each(put));
        // What the block becomes is not to be seen before it is seen that the version moved on.
        fence(Ordering::Release);
    }

    /// Fills the other table with what `change` makes of the current one, and publishes it.
    fn rewrite(&self, change: impl FnOnce(&mut dyn Iterator<Item = Entry>, &mut dyn FnMut(Entry))) {
        let version = self.version.load(Ordering::Relaxed);
        let old = self.table(version);
        let Some(next) = self.table(version + 1) else {
            return;
        };
        // Readers of the version before this one may be in the table that is now written: they
        // must not see a new entry without seeing that the version moved on.
        fence(Ordering::Release);
        let (mut len, mut first, mut end) = (0, None, 0);
        change(
            &mut old.into_iter().flat_map(Table::entries),
            &mut |entry| {
                next.set(len, entry);
                len += 1;
                first = first.or(Some(entry.0));
                // SAFETY: blocks of a table live as long as the arena, which outlives the index.
                end = unsafe { entry.1.as_ref() }.range().1;
            },
        );
        next.len.store(len, Ordering::Relaxed);
        let first = first.unwrap_or(0);
        next.first.store(first, Ordering::Relaxed);
        next.extent.store(end - first, Ordering::Relaxed);
        if let Some(behind) = next.all_starts().get(len) {
            behind.store(usize::MAX, Ordering::Relaxed);
        }
        next.divide();
        self.version.store(version + 1, Ordering::Release);
    }
}
