//! How blocks come and go: room for one in the tables, its views, by one of the `ways` to map them,
//! and what becomes of it when it is empty.

mod ways;

pub(super) use ways::{Kind, Way};

use super::{
    CodeProvider, JitAllocator, JitError, Mappings,
    block::{Block, Held, Home, Mode},
    pool::Pool,
    shard::Shard,
    tag::Tags,
    views::Views,
};
use crate::{
    provider::{Error, ErrorKind, Leave, PageProvider, Placement},
    sync::RawMutex,
};
use core::{
    ptr::{self, NonNull},
    sync::atomic::Ordering,
};

/// Granules of a block that is made for one span alone, at most: the span is longer than was asked
/// for by a part in as many, and the metadata takes 25 KiB.
const LONE_GRANULES: usize = 1 << 16;

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Maps a block that has room for a span of `bytes` bytes aligned to `align`, wherever that
    /// falls, and adds it to a pool of the shard, which is locked. Returns the block.
    pub(super) fn map_block(
        &self,
        n: usize,
        shard: &mut Shard,
        pool: usize,
        (bytes, align): (usize, usize),
        placement: Placement,
    ) -> Result<NonNull<Block>, JitError> {
        let home = self.home(n, pool, bytes);
        let padding = self.config.padding_bytes(home.shift);
        let grown = shard.pools[pool].next_len;
        let [bare, padded, len] = self.lens_for(home, (bytes, align), grown)?;
        let mut mappings = self.mappings.lock();
        let window = self.config.rx_placement().within;
        let window = window.intersect(placement.within).unwrap_or(window);
        let ahead = self.len_ahead(padded, len, window, mappings.full);
        let room = self.config.limit_bytes().saturating_sub(mappings.reserved);
        let room = self.page.round_down(room);
        // At a limit of whole blocks it is the padding that does not fit.
        let (least, padding) = if padded <= room {
            (padded, padding)
        } else {
            let bare = self.page.round_up(bare).filter(|bare| *bare <= room);
            (bare.ok_or(JitError::Limit)?, 0)
        };
        let most = ahead.min(room).max(least);
        let at = self
            .prepare(&mut shard.pools[pool], home, most)
            .map_err(JitError::Metadata)?;
        let views = self.map_at_most(&mut mappings, home.shift, (most, least), placement);
        // SAFETY: the arena outlives self; the shard is locked by the caller, and no other Held is
        // alive.
        let mut held = unsafe { Block::held(at) };
        let views = match views {
            Ok(views) => views,
            Err(error) => {
                if error.unplaced().is_some() {
                    mappings.full.note(window, true);
                }
                self.put_away(&mut shard.pools[pool], held);
                return Err(JitError::Map(error));
            }
        };
        mappings.full.note(window, false);
        let got = views.len_bytes();
        held.map(views, padding);
        self.fill_block(&held);
        self.index.insert(held.at);
        mappings.reserved += got;
        shard.totals.blocks += 1;
        shard.totals.reserved += got;
        let pool = &mut shard.pools[pool];
        pool.add(&mut held);
        // Without bins what is released is joined at once, so that the tree knows all holes.
        if !self.ordered {
            pool.make_bins(&self.arena);
        }
        // Blocks double. One that was made larger for its first span, or smaller for want of
        // room, says nothing about the next.
        if got == len && least <= grown && !self.ordered {
            pool.next_len = (grown * 2).min(self.config.max_block_size_bytes());
        }
        Ok(at)
    }

    /// Returns how many bytes a block takes that has room for such a span: without padding, with
    /// it, and where blocks have grown to `grown`.
    fn lens_for(
        &self,
        home: Home,
        (bytes, align): (usize, usize),
        grown: usize,
    ) -> Result<[usize; 3], JitError> {
        let granule: usize = 1 << home.shift;
        let bare = bytes
            .checked_next_multiple_of(granule)
            .and_then(|bytes| bytes.checked_add(align.saturating_sub(granule)))
            .ok_or(JitError::InvalidSize)?;
        let padded = bare.checked_add(self.config.padding_bytes(home.shift));
        let padded = padded.and_then(|bytes| self.page.round_up(bytes));
        let padded = padded.ok_or(JitError::InvalidSize)?;
        let len = self.config.block_len(padded, grown, self.page);
        Ok([bare, padded, len.ok_or(JitError::InvalidSize)?])
    }

    /// Returns where a block for a span of `bytes` bytes belongs, and how long its granules are. A
    /// span beyond the longest ordinary block has a block to itself: its granules are longer, so
    /// that the metadata does not grow with it.
    fn home(&self, shard: usize, pool: usize, bytes: usize) -> Home {
        let shift = self.config.shift(pool);
        let ordinary = self.config.max_block_size_bytes();
        let ordinary = ordinary.max(self.config.large_pages_wanted().bytes());
        let times = (bytes >> shift).div_ceil(LONE_GRANULES);
        let lone = bytes > ordinary && times > 1;
        let longer = if lone {
            times.next_power_of_two().ilog2()
        } else {
            0
        };
        Home {
            shard,
            pool,
            shift: shift + longer,
            lone,
        }
    }

    /// Makes room for one more block in the tables, and finds or makes one whose metadata is
    /// enough for `len` bytes.
    fn prepare(&self, pool: &mut Pool, home: Home, len: usize) -> Result<NonNull<Block>, Error> {
        self.index.make_room(&self.arena)?;
        pool.make_room(&self.arena)?;
        let count = len >> home.shift;
        let mut link = &mut pool.unmapped;
        while let Some(at) = *link {
            // SAFETY: the arena outlives self; the shard is locked, and unmapped blocks are
            // reached through this list alone.
            let held = unsafe { Block::held(at) };
            if held.block.home() == home && held.block.capacity() >= count {
                *link = held.guarded.next.take();
                return Ok(at);
            }
            link = &mut held.guarded.next;
        }
        // Most blocks are a power of two long. Of others there are few sizes this way, so that they
        // serve again, and an eighth too much at most.
        let capacity = count.next_multiple_of((count.next_power_of_two() / 8).max(64));
        let tags = Tags::make(&self.tag_arena, self.config.carried(), capacity)?;
        Block::make(&self.arena, home, capacity, self.page, tags).inspect_err(|_| {
            // SAFETY: made just now, and used by no other code: there is no block.
            unsafe { tags.free(&self.tag_arena) };
        })
    }

    /// Keeps a block that could not be mapped for the next one of its capacity. Where that is no
    /// ordinary block's, and no reader can have met it, its metadata goes back instead.
    fn put_away(&self, pool: &mut Pool, held: Held<'_>) {
        let mut held = held;
        let ordinary = self.config.max_block_size_bytes() >> held.block.shift;
        if held.guarded.fresh && (held.block.home().lone || held.block.capacity() > ordinary) {
            // SAFETY: the block is in no list and no index, and never was in an index.
            unsafe { held.block.tags.free(&self.tag_arena) };
            // SAFETY: make allocated it from this arena; the block is in no list and no index, and
            // never was in an index, so that no pointer to it is left.
            unsafe { held.free(&self.arena) };
        } else {
            keep_unmapped(pool, &mut held);
        }
    }

    /// Keeps an empty block, unless one of its pool is kept already. Its shard is locked.
    pub(super) fn keep_empty(&self, held: &mut Held<'_>) -> bool {
        let kept = &self.kept[held.block.pool];
        let at = held.at.as_ptr();
        let keeps = kept
            .compare_exchange(ptr::null_mut(), at, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        held.guarded.kept |= keeps;
        keeps
    }

    /// Says that a block that was kept empty is in use again, or is gone. Its shard is locked.
    pub(super) fn no_longer_kept(&self, held: &mut Held<'_>) {
        held.guarded.kept = false;
        self.kept[held.block.pool].store(ptr::null_mut(), Ordering::Release);
    }

    /// Keeps an empty block or unmaps it. Its shard is locked.
    pub(super) fn retire_empty(&self, shard: &mut Shard, mut held: Held<'_>) {
        // One is kept, so that a span that comes and goes does not map and unmap. Not one that was
        // made larger for its only span.
        let ordinary = held.len_bytes() <= self.config.max_block_size_bytes();
        if held.block.mode() == Mode::Open
            && ordinary
            && !self.config.releases_immediately()
            && self.keep_empty(&mut held)
        {
            return;
        }
        self.unmap_block(shard, held);
        if shard.totals.blocks == 0 {
            // What little code there is comes and goes, and another shard keeps the block for it.
            self.shards.fold();
        }
    }

    /// Unmaps a block without live spans. Its shard is locked.
    pub(super) fn unmap_block(&self, shard: &mut Shard, mut held: Held<'_>) {
        let mut mappings = self.mappings.lock();
        if held.block.mode() == Mode::Orphan {
            return self.lose(shard, &mut mappings, held);
        }
        if held.guarded.kept {
            self.no_longer_kept(&mut held);
        }
        let Some(views) = held.take_views() else {
            return;
        };
        let len = views.len_bytes();
        self.index.remove(held.at);
        let unmapped = match views {
            // SAFETY: the mapping came from this provider, and no span of it is live.
            Views::Dual(mapping) => unsafe { self.provider.unmap_dual(mapping, Leave::Hole) }
                .map_err(|(mapping, error)| (Views::Dual(mapping), error)),
            // SAFETY: the range was reserved from this provider, and no span of it is live.
            Views::Single(range, page) => unsafe { self.provider.release(range) }
                .map_err(|error| (Views::Single(range, page), error)),
        };
        if let Err((views, error)) = unmapped
            && error.kind() != ErrorKind::RangeLost
        {
            // The writable view may be gone already, so the block serves no more spans.
            held.put_views(views);
            held.block.set_mode(Mode::ReadOnly);
            self.index.insert(held.at);
            shard.pools[held.block.pool].update(&mut held);
            return;
        }
        // Also where the views are no longer ours: they are forgotten.
        self.forget_block(shard, &mut mappings, held, len);
    }

    /// Forgets a block whose code is gone. Its addresses stay reserved, so that a stale pointer to
    /// code faults. Its shard is locked.
    pub(super) fn lose(&self, shard: &mut Shard, mappings: &mut Mappings, mut held: Held<'_>) {
        held.clear_tags();
        // Without the token the views, if there are any, stay mapped: that is the intention.
        let len = held
            .take_views()
            .map_or(held.lost_bytes(), |views| views.len_bytes());
        shard.totals.spans -= held.guarded.spans;
        shard.totals.used -= held.guarded.used << held.block.shift;
        self.index.remove(held.at);
        self.forget_block(shard, mappings, held, len);
    }

    fn forget_block(
        &self,
        shard: &mut Shard,
        mappings: &mut Mappings,
        mut held: Held<'_>,
        len: usize,
    ) {
        mappings.reserved -= len;
        shard.totals.blocks -= 1;
        shard.totals.reserved -= len;
        let pool = &mut shard.pools[held.block.pool];
        pool.remove(&held);
        keep_unmapped(pool, &mut held);
    }

    /// Runs `write` while `len` bytes at `rw` can be written. Where blocks are mapped once that
    /// takes executability from the pages meanwhile.
    ///
    /// # Safety
    ///
    /// The bytes lie in the writable view of a block of this allocator that stays mapped.
    #[inline]
    pub(super) unsafe fn while_writable<T>(
        &self,
        rw: NonNull<u8>,
        len: usize,
        write: impl FnOnce() -> T,
    ) -> Result<T, JitError> {
        if self.kind.way() != Way::Toggle {
            return Ok(write());
        }
        // SAFETY: the bytes lie in the writable view of a block that stays mapped, by this
        // function's `# Safety`.
        unsafe { self.toggled(rw, len, write) }
    }
}

/// Keeps a block that has no mapping for the next one of its capacity.
fn keep_unmapped(pool: &mut Pool, held: &mut Held<'_>) {
    held.forget_granules();
    held.guarded.next = pool.unmapped.replace(held.at);
}
