//! Calls about all blocks: what there is, starting over, and giving memory back.

use super::{
    CodeProvider, JitAllocator,
    block::{Block, Held, Mode},
    config::LargePages,
    next_id,
    shard::Shard,
    views::Views,
};
use crate::{
    page::{PageRange, PageSize},
    provider::{Capabilities, PageProvider},
    sync::RawMutex,
};
use core::{ops::Range, sync::atomic::Ordering};

/// What [`JitAllocator::reset`] does with the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reset {
    /// Keeps one block a pool mapped, if there is one of the first size.
    Soft,
    /// Unmaps all.
    Hard,
    /// Keeps all blocks mapped and makes them empty, to be filled again without a system call: for
    /// a cache that is flushed when it is full. Blocks that were made for one long span go all the
    /// same. What is written next replaces code, which may take [barriers](super::SyncCores).
    Keep,
}

/// A block, as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeBlock {
    /// The executable view.
    pub rx: PageRange,
    /// The writable view; the same range where blocks are mapped once.
    pub rw: PageRange,
    /// The size of its pages.
    pub page_size: PageSize,
    /// Bytes of a granule.
    pub granularity: usize,
    /// Live spans.
    pub spans: usize,
    /// Bytes of live spans, in whole granules.
    pub used: usize,
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Yields the blocks by address. Each is described as it is when the iterator comes to it.
    pub fn blocks(&self) -> impl Iterator<Item = CodeBlock> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            loop {
                let (first, block) = self.index.block_from(from)?;
                from = first + 1;
                // SAFETY: the block lives as long as this allocator, whose index it is in.
                let guard = self.shards.lock(unsafe { block.as_ref() }.shard);
                // SAFETY: the arena outlives the borrow of self; the shard is locked until the
                // Held is gone, at the end of this turn.
                let held = unsafe { Block::held(block) };
                let info = held.views().map(|views| CodeBlock {
                    rx: views.rx(),
                    rw: views.rw(),
                    page_size: views.page_size(),
                    granularity: 1 << held.block.shift,
                    spans: held.guarded.spans,
                    used: held.guarded.used << held.block.shift,
                });
                drop(guard);
                // Without views it was unmapped since.
                if info.is_some() {
                    return info;
                }
            }
        })
    }

    /// Releases all spans at once. Tokens from before are refused from now on, and the allocator
    /// behaves as a new one; after [`Reset::Keep`] as one that has its blocks already.
    ///
    /// # Safety
    ///
    /// During the call and afterwards no thread executes, reads or writes a span from before;
    /// during the call no other code uses a token or an address of one in another call.
    pub unsafe fn reset(&self, how: Reset) {
        let mut guards: [_; super::SHARDS] = core::array::from_fn(|n| self.shards.lock(n));
        let id = next_id().expect("no process resets allocators 2^40 times");
        self.id.store(id, Ordering::Relaxed);
        self.shards.gather();
        for guard in &mut guards {
            let shard = &mut **guard;
            for n in 0..super::POOLS {
                if how != Reset::Keep {
                    shard.pools[n].next_len = self.config.block_size_bytes();
                }
                shard.pools[n].forget_hints();
                let mut slot = 0;
                while let Some((at, block)) = shard.pools[n].block_from(slot) {
                    slot = at + 1;
                    // SAFETY: the arena outlives the borrow of self; the shard is locked, and no
                    // other Held is alive.
                    let held = unsafe { Block::held(block) };
                    self.reset_block(shard, held, how);
                }
            }
        }
    }

    /// Calls `act` with every block that is empty, and its shard, which is locked: those that are
    /// kept, and those that a reset left.
    pub(super) fn for_each_empty(&self, mut act: impl FnMut(&mut Shard, Held<'_>)) {
        for shard in self.shards.all() {
            let mut guard = shard.lock();
            for n in 0..super::POOLS {
                let mut slot = 0;
                while let Some((at, block)) = guard.pools[n].block_from(slot) {
                    slot = at + 1;
                    // SAFETY: the arena outlives the borrow of self; the shard is locked, and no
                    // other Held is alive.
                    let held = unsafe { Block::held(block) };
                    if held.guarded.spans == 0 && held.block.mode() == Mode::Open {
                        act(&mut guard, held);
                    }
                }
            }
        }
    }

    fn reset_block(&self, shard: &mut Shard, mut held: Held<'_>, how: Reset) {
        shard.totals.spans -= held.guarded.spans;
        shard.totals.used -= held.guarded.used << held.block.shift;
        let dense = held.guarded.used * 2 > held.count();
        (held.guarded.spans, held.guarded.used) = (0, 0);
        held.clear_tags();
        if how == Reset::Keep && held.block.mode() == Mode::Open && !held.block.home().lone {
            held.empty(dense);
            self.fill_granules(&held, 0..held.count());
            return shard.pools[held.block.pool].update(&mut held);
        }
        let first = self.config.block_size_bytes().max(self.page.bytes());
        let large = match self.config.large_pages_wanted() {
            LargePages::Align { bytes } => bytes,
            _ => 0,
        };
        if how != Reset::Soft
            || held.block.mode() != Mode::Open
            || held.len_bytes() != first.max(large)
            || self.config.releases_immediately()
            || (!held.guarded.kept && !self.keep_empty(&mut held))
        {
            return self.unmap_block(shard, held);
        }
        held.empty(dense);
        self.fill_granules(&held, 0..held.count());
        let pool = &mut shard.pools[held.block.pool];
        // To the first slot that is free by now, as a block of a new pool.
        pool.remove(&held);
        pool.add(&mut held);
        pool.next_len = (2 * first).min(self.config.max_block_size_bytes());
    }

    /// Gives the pages that lie wholly in free runs back to the host, and returns how many bytes
    /// that were at most: pages that were never touched, or given back before, count again. Blocks
    /// whose pages cannot be given back ([`DualMapping::purges`]) are unmapped if they are empty.
    ///
    /// What is allocated there afterwards gets its memory from the host again, or fails.
    ///
    /// Does nothing where the host cannot ([`Capabilities::PURGE_DUAL`]), where blocks are mapped
    /// once, and with a fill pattern, which those pages would lose.
    ///
    /// [`DualMapping::purges`]: crate::provider::DualMapping::purges
    pub fn decommit_unused(&self) -> usize {
        let able = self
            .provider
            .capabilities_among(Capabilities::PURGE_DUAL)
            .contains(Capabilities::PURGE_DUAL);
        if !able || self.config.fill_kind().pattern().is_some() {
            return 0;
        }
        let mut bytes = 0;
        for shard in self.shards.all() {
            let mut guard = shard.lock();
            for n in 0..super::POOLS {
                let mut slot = 0;
                while let Some((at, block)) = guard.pools[n].block_from(slot) {
                    slot = at + 1;
                    // SAFETY: the arena outlives the borrow of self; the shard is locked, and no
                    // other Held is alive.
                    let held = unsafe { Block::held(block) };
                    bytes += self.decommit_in(&mut guard, held);
                }
            }
        }
        bytes
    }

    fn decommit_in(&self, shard: &mut Shard, mut held: Held<'_>) -> usize {
        let Some(Views::Dual(mapping)) = held.views() else {
            return 0;
        };
        if held.block.mode() != Mode::Open {
            return 0;
        }
        if !mapping.purges() {
            if held.guarded.spans != 0 {
                return 0;
            }
            let len = mapping.len_bytes();
            let before = shard.totals.blocks;
            self.unmap_block(shard, held);
            return if shard.totals.blocks < before { len } else { 0 };
        }
        let page = mapping.page_size();
        let mut bytes = 0;
        for run in held.free_runs() {
            let Range { start, end } = held.bytes_of(&run);
            let Some(first) = page.round_up(start) else {
                continue;
            };
            let len = page.round_down(end).saturating_sub(first);
            let Some(Views::Dual(mapping)) = held.views().filter(|_| len != 0) else {
                continue;
            };
            // SAFETY: the pages belong to no span, and the lock keeps it so; they are noted, so
            // that they are refilled before they belong to one again.
            if unsafe { self.provider.purge_dual(mapping, first, len) }.is_ok() {
                let unit = self.page.bytes();
                held.note_purged(first / unit..(first + len) / unit, true);
                bytes += len;
            }
        }
        bytes
    }
}
