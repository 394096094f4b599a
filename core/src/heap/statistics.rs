//! The statistics of a heap.

use super::{
    Heap, ProviderCalls,
    bin::Bin,
    class::{self, CLASSES, GRANULE},
    hardened::Hardened,
    huge::is_hole,
    space::Space,
};
use crate::{arena::Arena, page::PageRange, provider::PageProvider, sync::RawMutex};
use core::sync::atomic::Ordering::Relaxed;

/// The memory of a heap, in bytes where nothing else is said. Threads that allocate meanwhile are
/// counted before or after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapStatistics {
    /// Bytes that were ever asked for, as layouts say; not by resizing in place.
    pub requested: u64,
    /// Bytes of live blocks, as they are rounded up.
    pub used: usize,
    /// Bytes of free blocks that threads have cached.
    pub cached: usize,
    /// Bytes of slabs, free blocks in them included.
    pub slabs: usize,
    /// Bytes of blocks without a slab that is shared, up to 1 MiB each.
    pub large: usize,
    /// How many of them are live.
    pub large_blocks: usize,
    /// Bytes of larger blocks.
    pub huge: usize,
    /// How many of them are live.
    pub huge_blocks: usize,
    /// How many segments there are: addresses that were reserved at once.
    pub segments: usize,
    /// Bytes of addresses, those of metadata excluded.
    pub reserved: usize,
    /// Bytes that have memory, or get it when they are written. Those whose memory went back do not
    /// count, though they are still committed as far as the provider is concerned: the next block
    /// there has memory again.
    pub committed: usize,
    /// An estimate of what the host holds in memory: what is committed, without pages that were
    /// never handed out since. What was handed out counts as touched, even where its user has not,
    /// and even when it is free again. So the host holds no more, unless it uses large pages, which
    /// bring parts of slabs with them that were never handed out; and it holds as much, if all that
    /// is handed out is written and nothing is swapped.
    pub resident: usize,
    /// Bytes of whole free granules and blocks whose memory the host would not take back when it
    /// was asked to: since it is locked, for instance, or since the provider cannot purge. They are
    /// resident.
    pub refused: usize,
    /// Bytes that were free when a [child was forked](crate::fork::ForkChild) which this is, and
    /// that it could not take over: a call may have been changing them. They are never used again.
    pub abandoned: usize,
    /// How many blocks were found corrupt, and are never used again, at
    /// [`Hardening::Full`](super::Hardening::Full). They count as live in the other numbers.
    pub corrupt_blocks: usize,
    /// Bytes of freed blocks up to 256 KiB that [wait](super::HeapConfig::quarantine) before they
    /// serve again.
    pub quarantined: usize,
    /// Bytes of addresses of freed larger blocks that
    /// [wait](super::HeapConfig::quarantine_addresses).
    pub quarantined_addresses: usize,
    /// How many large and huge blocks are live and have no guards at
    /// [`Hardening::Full`](super::Hardening::Full), since those would take too many
    /// [mappings](super::HeapConfig::mappings).
    pub unguarded_blocks: usize,
    /// Bytes of metadata that have memory, those of the page map excluded.
    pub metadata: usize,
    /// Bytes of addresses of the page map, but for what lies among the other metadata: 2 MiB, and
    /// 128 KiB for each GiB of addresses in which there ever was a block, on 64-bit hosts; less
    /// where the provider's [addresses](crate::provider::PageProvider::addresses) or its limits are
    /// few. Only pages that are used are touched: those of leaves one for each 32 MiB of blocks.
    pub page_map: usize,
    /// Calls of the provider since the heap was made.
    pub calls: ProviderCalls,
}

/// The memory of one class: blocks that are rounded up to the same size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStatistics {
    /// Bytes of a block.
    pub size: usize,
    /// How many slabs there are.
    pub slabs: usize,
    /// How many blocks they have, live and free.
    pub blocks: usize,
    /// How many blocks are live.
    pub used: usize,
    /// How many free blocks threads have cached.
    pub cached: usize,
    /// How many freed blocks [wait](super::HeapConfig::quarantine) before they serve again.
    pub quarantined: usize,
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Returns what is held now.
    pub fn statistics(&self) -> HeapStatistics {
        let mut all = HeapStatistics::default();
        for (number, class) in self.class_statistics().enumerate() {
            all.slabs += class.slabs * class::granules(number) * GRANULE;
            all.cached += class.cached * class.size;
            all.used += class.used * class.size;
        }
        let holes = self.sum_of_bins(|bin| bin.holes) * self.page.bytes();
        all.resident = self.resident_bytes();
        let by_caches = self.all_caches().map(|cache| cache.requested());
        all.requested = by_caches.fold(self.requested.load(Relaxed), u64::wrapping_add);
        all.corrupt_blocks = self.hardened.as_ref().map_or(0, Hardened::corrupt_blocks);
        all.quarantined = self.hardened.as_ref().map_or(0, Hardened::quarantined);
        all.calls = self.calls.counts();
        all.metadata = self.arena.all().map(Arena::committed_bytes).sum();
        all.abandoned = self.abandoned.load(Relaxed);
        let space = self.lock_space();
        let gauges = space.gauges;
        all.huge = self.huge_bytes.load(Relaxed);
        all.used += gauges.large + all.huge;
        all.large = gauges.large;
        all.large_blocks = gauges.large_blocks;
        all.huge_blocks = gauges.huge_blocks;
        all.quarantined_addresses = space.waiting.bytes;
        all.unguarded_blocks = gauges.unguarded;
        all.reserved = gauges.reserved;
        all.committed = gauges.committed.saturating_sub(holes);
        all.refused = refused_bytes(&space);
        all.segments = space.segments.len();
        let leaves = space.leaves.own().all().iter().map(|(_, leaf)| *leaf);
        let maps = leaves.chain(self.map.range());
        all.page_map = maps.map(PageRange::len_bytes).sum();
        all
    }

    /// Yields what is held of each class now, by size. Each step takes locks, for itself alone.
    pub fn class_statistics(&self) -> impl Iterator<Item = ClassStatistics> {
        let waiting = self.waiting_blocks();
        (0..CLASSES).map(move |class| {
            let (mut slabs, mut taken) = (0, 0);
            for shard in 0..self.config.shard_count() {
                let bin = self.lock_bin(shard, class);
                slabs += bin.slabs as usize;
                taken += bin.taken;
            }
            let lens = self.all_caches().map(|cache| cache.stack(class).len());
            let cached = lens.map(|len| len as usize).sum::<usize>().min(taken);
            let quarantined = waiting[class].min(taken - cached);
            ClassStatistics {
                size: class::size(class),
                slabs,
                blocks: slabs * class::blocks(class),
                used: taken - cached - quarantined,
                cached,
                quarantined,
            }
        })
    }

    /// Adds up what there is in each bin, under its lock.
    fn sum_of_bins(&self, what: impl Fn(&Bin) -> u32) -> usize {
        let shards = 0..self.config.shard_count();
        let bins = shards.flat_map(|shard| (0..CLASSES).map(move |class| (shard, class)));
        bins.map(|(shard, class)| what(&self.lock_bin(shard, class)) as usize)
            .sum()
    }

    /// Returns the estimate of what is resident.
    pub(super) fn resident_bytes(&self) -> usize {
        let untouched = self.sum_of_bins(|bin| bin.fresh + bin.holes) * self.page.bytes();
        let space = self.lock_space();
        let segments = space.segments.all().iter();
        let unused: usize = segments.map(|(_, segment)| segment.unused()).sum();
        let touched = space.gauges.committed.saturating_sub(unused * GRANULE);
        touched.saturating_sub(untouched)
    }
}

/// Returns the bytes of free memory that the host would not take back.
fn refused_bytes(space: &Space) -> usize {
    let segments = space.segments.all().iter();
    let granules: usize = segments.map(|(_, segment)| segment.refused_count()).sum();
    let huge = space.kept.unreleased().filter(|slab| !is_hole(*slab));
    granules * GRANULE + huge.map(|slab| slab.block_bytes()).sum::<usize>()
}
