//! Bins: the slabs of one class in one shard, behind a lock.

use super::{
    Heap,
    class::{self, GRANULE},
    error::HeapError,
    hardened::Hardened,
    order::Order,
    parts::Held,
    slab::{self, Entry, Handle},
};
use crate::{
    page::{PageRange, PageSize},
    provider::{Error, PageProvider, Purged},
    sync::RawMutex,
};
use core::sync::atomic::Ordering::Relaxed;

/// Bytes of descriptors that are made at once at most, where one is not larger.
const CHUNK: usize = 4096;

/// The part that the lock of a bin guards, beside the slabs that belong to it.
pub(super) struct Bin {
    /// Slabs with free blocks.
    partial: Order,
    /// Descriptors that are not in use.
    spare: Option<Handle>,
    /// Blocks that are not in their slabs.
    pub(super) taken: usize,
    /// Slabs. This and what follows are as short as they can be: there is a bin for each class and
    /// shard.
    pub(super) slabs: u32,
    /// Pages in slabs that cannot have been touched.
    pub(super) fresh: u32,
    /// Pages in slabs that gave their memory back.
    pub(super) holes: u32,
    /// Whether a call that never goes on may have left all this half changed.
    pub(super) is_torn: bool,
}

impl Bin {
    pub(super) const fn new() -> Self {
        Self {
            partial: Order::new(),
            spare: None,
            taken: 0,
            slabs: 0,
            fresh: 0,
            holes: 0,
            is_torn: false,
        }
    }

    /// Counts a slab in an empty bin of a forked child, and hands out its free blocks if it is not
    /// abandoned; returns how many those are.
    pub(super) fn adopt(&mut self, slab: Handle, page: PageSize) -> usize {
        let free = slab.recount();
        self.slabs += 1;
        self.taken += slab.blocks() - free;
        self.fresh += slab.fresh_pages(page);
        self.holes += slab.holes().count_ones() * slab.hole_pages(page);
        if free != 0 && !slab.is_abandoned() {
            self.partial.insert(slab);
        }
        free
    }

    /// Takes a block of the lowest slab, if there is one.
    pub(super) fn take_lowest(
        &mut self,
        page: PageSize,
        hardened: Option<&Hardened>,
        tick: u32,
    ) -> Option<Entry> {
        let slab = self.partial.lowest()?;
        slab.set_taken_at(tick);
        let mut found = None;
        self.take(slab, 1, page, hardened, |entry| found = Some(entry));
        found
    }

    /// Takes up to `most` free blocks of a slab; returns how many. Pages that they lie in have
    /// memory from then on, as far as the heap is concerned.
    fn take(
        &mut self,
        slab: Handle,
        most: usize,
        page: PageSize,
        hardened: Option<&Hardened>,
        mut take: impl FnMut(Entry),
    ) -> usize {
        self.fresh -= slab.fresh_pages(page);
        let taken = if slab.holes() == 0 {
            take_from(slab, most, hardened, take)
        } else {
            let mut holes = slab.holes();
            let taken = take_from(slab, most, hardened, |entry| {
                holes &= !slab.parts_of(entry, slab.hole_bytes(page));
                take(entry);
            });
            self.set_holes(slab, holes, page);
            taken
        };
        self.fresh += slab.fresh_pages(page);
        self.taken += taken;
        if slab.free_blocks() == 0 {
            self.partial.remove(slab);
        }
        taken
    }

    /// Notes which pages of a slab have no memory.
    fn set_holes(&mut self, slab: Handle, holes: u64, page: PageSize) {
        let pages = |holes: u64| holes.count_ones() * slab.hole_pages(page);
        self.holes = self.holes + pages(holes) - pages(slab.holes());
        slab.set_holes(holes);
    }
}

/// Takes up to `most` free blocks of a slab, the lowest or any one, and hands them to `take`.
fn take_from(
    slab: Handle,
    most: usize,
    hardened: Option<&Hardened>,
    mut take: impl FnMut(Entry),
) -> usize {
    match hardened {
        None => slab.take(most, take),
        Some(hardened) if !hardened.is_full() => slab.take(most, take),
        Some(hardened) => slab
            .take_any(hardened.random())
            .map(&mut take)
            .into_iter()
            .count(),
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Takes between one and `most` blocks of a class, the lowest last, and hands them to `take`. A
    /// new slab is made only for want of any block.
    ///
    /// # Errors
    ///
    /// Where there is no memory.
    pub(super) fn refill(
        &self,
        shard: usize,
        class: usize,
        most: usize,
        mut take: impl FnMut(Entry),
    ) -> Result<usize, HeapError> {
        self.again_if_replaced(|| self.refill_once(shard, class, most, &mut take))
    }

    fn refill_once(
        &self,
        shard: usize,
        class: usize,
        most: usize,
        mut take: impl FnMut(Entry),
    ) -> Result<usize, HeapError> {
        let mut bin = self.lock_bin(shard, class);
        let mut taken = 0;
        while taken < most {
            let slab = match bin.partial.lowest() {
                Some(slab) => slab,
                None if taken != 0 => break,
                None => self.new_slab(&mut bin, shard, class)?,
            };
            slab.set_taken_at(self.ticks.load(Relaxed));
            let (most, hardened) = (most - taken, self.hardened.as_ref());
            taken += bin.take(slab, most, self.page, hardened, &mut take);
        }
        Ok(taken)
    }

    /// Makes a slab, and puts it into the order.
    fn new_slab(
        &self,
        bin: &mut Held<'_, Bin, R>,
        shard: usize,
        class: usize,
    ) -> Result<Handle, HeapError> {
        let slab = match bin.spare {
            Some(slab) => slab,
            None => {
                let kind = u8::try_from(class).map_err(|_| HeapError::Internal)?;
                let count = CHUNK / (size_of::<slab::Slab>() + class::blocks(class));
                // One at first, so that a class costs little; then as many as there are.
                let count = count.min(bin.slabs as usize).max(1);
                slab::make(self.arena(), kind, count, self.notes())?
            }
        };
        bin.spare = Some(slab);
        let granules = class::granules(class);
        // None where a fork has replaced the bin, so that the call begins again.
        let mut space = self.lock_space_within(bin).ok_or(HeapError::Busy)?;
        let (start, zero) = self.take_granules(&mut space, granules, 0)?;
        if self.is_hardened() && !zero {
            self.fill_slab(start, class);
        }
        bin.spare = slab.next.get();
        let shard = u8::try_from(shard).unwrap_or(0);
        slab.open(start, granules * GRANULE, zero, shard);
        if let Some(hardened) = &self.hardened {
            hardened.note_canaries(slab);
        }
        self.map.set(slab.addr(), slab.len_bytes(), Some(slab));
        drop(space);
        bin.partial.insert(slab);
        bin.slabs += 1;
        bin.fresh += slab.fresh_pages(self.page);
        Ok(slab)
    }

    /// Puts blocks of a class back into their slabs.
    pub(super) fn flush(&self, class: usize, mut entries: &[Entry]) {
        let slab_of = |entry: &Entry| self.map.slab(entry.block.addr().get());
        while let Some((first, rest)) = entries.split_first() {
            let Some(mut slab) = slab_of(first) else {
                debug_assert!(false, "blocks in magazines belong to slabs");
                entries = rest;
                continue;
            };
            let shard = slab.shard();
            let mut bin = self.lock_bin(shard, class);
            loop {
                let rest = self.put(&mut bin, slab, entries);
                // Where two threads freed a block at once, and one of them brought it back, its
                // granules may be another slab's since: it is not this call's to put anywhere.
                let is_refused = rest.len() == entries.len();
                entries = rest.get(usize::from(is_refused)..).unwrap_or_default();
                slab = match entries.first().and_then(slab_of) {
                    Some(slab) if slab.shard() == shard => slab,
                    _ => break,
                };
            }
        }
    }

    /// Puts blocks back into a slab as long as they are its own, which the first one is; returns
    /// the others. A slab that is all free becomes granules again, unless no other has room.
    fn put<'a>(
        &self,
        bin: &mut Held<'_, Bin, R>,
        slab: Handle,
        entries: &'a [Entry],
    ) -> &'a [Entry] {
        if slab.is_abandoned() {
            let rest = slab.lose(entries);
            bin.taken = bin.taken.saturating_sub(entries.len() - rest.len());
            return rest;
        }
        let before = slab.free_blocks();
        let rest = slab.put(entries);
        let free = slab.free_blocks();
        bin.taken -= free - before;
        if before == 0 && free != 0 {
            bin.partial.insert(slab);
        }
        let eager = self.config.returns() == super::Return::Eager;
        let fills = free == slab.blocks() && free != before;
        if fills && (before == 0 || eager || !bin.partial.is_only(slab)) {
            self.drop_slab(bin, slab);
        }
        rest
    }

    fn drop_slab(&self, bin: &mut Held<'_, Bin, R>, slab: Handle) {
        // None where a fork has replaced the bin: the slab stays as it is.
        let Some(mut space) = self.lock_space_within(bin) else {
            return;
        };
        bin.partial.remove(slab);
        bin.slabs -= 1;
        bin.fresh -= slab.fresh_pages(self.page);
        let has_holes = slab.holes() != 0;
        bin.set_holes(slab, 0, self.page);
        self.give_granules(&mut space, slab.addr(), slab.len_bytes());
        if has_holes {
            // Granules have memory as a whole, or none.
            self.return_granules(&mut space, slab.addr(), slab.len_bytes());
        }
        drop(space);
        slab.next.set(bin.spare);
        bin.spare = Some(slab);
    }

    /// Describes the first run of parts of a slab that have a bit set, and returns their bits.
    fn pages(&self, slab: Handle, bits: u64) -> Option<(PageRange, u64)> {
        let first = bits.trailing_zeros();
        let count = bits.checked_shr(first)?.trailing_ones();
        let (page, size) = (self.page, slab.hole_bytes(self.page));
        let whole = PageRange::new(slab.start(), slab.len_bytes(), page)?;
        let part = whole.part(first as usize * size, count as usize * size, page)?;
        Some((part, (u64::MAX >> (64 - count)) << first))
    }

    /// Takes memory from the pages of the slab that starts at `addr` which hold only free blocks;
    /// returns how many bytes of it. If `tick` tells the present one, only where no block was taken
    /// at it or at the one before.
    ///
    /// # Errors
    ///
    /// Those of the provider. The pages stay as they are.
    pub(super) fn collect_slab(&self, addr: usize, tick: Option<u32>) -> Result<usize, Error> {
        let at = |slab: &Handle| slab.class() < class::CLASSES && slab.addr() == addr;
        let Some(slab) = self.map.slab(addr).filter(at) else {
            return Ok(0);
        };
        let (shard, class) = (slab.shard(), slab.class());
        let mut bin = self.lock_bin(shard, class);
        // It may have become another one's before the lock was taken.
        let same = self.map.slab(addr) == Some(slab) && at(&slab) && slab.shard() == shard;
        // Free blocks are looked at when they are handed out, so that they must stay as they are.
        let is_recent = tick.is_some_and(|now| slab.is_recent(now) || slab.is_looked_at());
        let stays = slab.blocks() == 1 || self.is_full() || slab.is_abandoned();
        if !same || is_recent || stays {
            return Ok(0);
        }
        let mut given = 0;
        let mut idle = slab.idle_parts(self.page) & !slab.holes();
        while let Some((part, bits)) = self.pages(slab, idle) {
            idle &= !bits;
            // SAFETY: committed pages of the slab; no block in them is live or cached, and none is
            // handed out while the bin's lock is held.
            match unsafe { self.purge_pages(part) }? {
                Purged::Kept => continue,
                Purged::Zero => slab.clear_blocks(part),
                Purged::ZeroOrOld => {}
            }
            given += part.len_bytes();
            bin.set_holes(slab, slab.holes() | bits, self.page);
        }
        slab.set_looked_at();
        Ok(given)
    }

    /// Makes granules of the slabs that are all free and were kept.
    pub(super) fn drop_free_slabs(&self) {
        for shard in 0..self.config.shard_count() {
            for class in 0..class::CLASSES {
                let mut bin = self.lock_bin(shard, class);
                // At most one is kept, while no other has room.
                if let Some(slab) = bin.partial.lowest()
                    && slab.free_blocks() == slab.blocks()
                {
                    self.drop_slab(&mut bin, slab);
                }
            }
        }
    }
}
