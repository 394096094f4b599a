//! What a configuration says, whether it may be asked for, and what follows from it.

use super::{Fill, JitConfig, LargePages, Mapping, POOLS, SHARDS, SyncCores};
use crate::{
    config::{ConfigError, Step, check},
    jit::{Barrier, Words, tag::Carried},
    page::{PageSize, align_up},
    provider::{Fork, Place, Placement},
};
use core::ffi::CStr;

impl JitConfig {
    /// Returns the granule in bytes.
    #[must_use]
    pub const fn granularity_bytes(&self) -> usize {
        self.granularity
    }

    /// Returns the size of the first block in bytes.
    #[must_use]
    pub const fn block_size_bytes(&self) -> usize {
        self.block_size
    }

    /// Returns the bound to which blocks double, in bytes.
    #[must_use]
    pub const fn max_block_size_bytes(&self) -> usize {
        self.max_block_size
    }

    /// Returns where executable views go.
    #[must_use]
    pub const fn rx_placement(&self) -> Placement {
        self.rx
    }

    /// Returns where writable views go.
    #[must_use]
    pub const fn rw_placement(&self) -> Placement {
        self.rw
    }

    /// Says whether indirect branches into code must land on a landing pad.
    #[must_use]
    pub const fn wants_landing_pads(&self) -> bool {
        self.landing_pads
    }

    /// Returns what a forked child sees.
    #[must_use]
    pub const fn fork_policy(&self) -> Fork {
        self.fork
    }

    /// Returns when other cores are synchronized.
    #[must_use]
    pub const fn sync_cores_policy(&self) -> SyncCores {
        self.sync_cores
    }

    /// Says whether spans are handed out lowest first.
    pub(in crate::jit) const fn is_ordered(&self) -> bool {
        let start = self.rx.within.start();
        let whole = start == 0 && self.rx.within.last() == usize::MAX;
        matches!(self.rx.place, Place::Near(anchor) if anchor == start) && !whole
    }

    /// Returns when the barrier of a write comes.
    #[inline]
    pub(in crate::jit) const fn barrier(&self) -> Barrier {
        match self.sync_cores {
            SyncCores::WhenReused | SyncCores::Required => Barrier::Now,
            SyncCores::Deferred => Barrier::Deferred,
            SyncCores::Never => Barrier::Never,
        }
    }

    /// Returns the bound of the metadata in bytes.
    #[must_use]
    pub const fn metadata_bytes(&self) -> usize {
        self.metadata
    }

    /// Returns how many granularities there are.
    #[must_use]
    #[inline]
    pub const fn pool_count(&self) -> usize {
        self.pools
    }

    /// Returns how many shards there can be.
    #[must_use]
    pub const fn max_shards(&self) -> usize {
        self.shards
    }

    /// Returns what memory that belongs to no span reads as.
    #[must_use]
    pub const fn fill_kind(&self) -> Fill {
        self.fill
    }

    /// Returns how blocks are asked to be mapped.
    #[must_use]
    pub const fn mapping_wanted(&self) -> Mapping {
        self.mapping
    }

    /// Returns whether blocks are made of large pages.
    #[must_use]
    pub const fn large_pages_wanted(&self) -> LargePages {
        self.large_pages
    }

    /// Says whether a block is unmapped as soon as it is empty.
    #[must_use]
    pub const fn releases_immediately(&self) -> bool {
        self.immediate_release
    }

    /// Says whether the first granule of every block stays unused.
    #[must_use]
    pub const fn pads_blocks(&self) -> bool {
        self.padding
    }

    /// Returns the most bytes of code that are mapped at a time.
    #[must_use]
    pub const fn limit_bytes(&self) -> usize {
        self.limit
    }

    /// Says whether an allocator is refused whose memory would be writable and executable at once.
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        self.strict
    }

    /// Returns whether spans carry a word.
    #[must_use]
    pub const fn word_kind(&self) -> Words {
        self.words
    }

    /// Says whether spans have groups.
    #[must_use]
    pub const fn has_groups(&self) -> bool {
        self.groups
    }

    /// Says whether spans have numbers.
    #[must_use]
    pub const fn has_numbers(&self) -> bool {
        self.numbers
    }

    /// Returns what spans carry.
    pub(in crate::jit) const fn carried(&self) -> Carried {
        Carried {
            words: self.words,
            groups: self.groups,
            numbers: self.numbers,
        }
    }

    /// Returns the name of the blocks.
    #[must_use]
    pub const fn block_name(&self) -> &'static CStr {
        self.name
    }

    /// Says whether every value is one that may be asked for, as
    /// [`JitAllocator::on`](crate::jit::JitAllocator::on) asks. What the provider and the CPU lack
    /// is told there alone.
    ///
    /// # Errors
    ///
    /// The first setting that has another value. [`JitConfig::mapping`] has no range: it has the
    /// value 1 where [`JitConfig::strict`] allows 0, no mapping that is writable and executable.
    pub fn check(&self) -> Result<(), ConfigError> {
        let writes_code = self.strict && matches!(self.mapping, Mapping::ReadWriteExec(_));
        check(
            "granularity",
            self.granularity,
            Self::GRANULARITY,
            Step::Power,
        )?;
        check("block_size", self.block_size, Self::BLOCK_SIZE, Step::Power)?;
        let most = self.block_size..=*Self::BLOCK_SIZE.end();
        check("block_size", self.max_block_size, most, Step::Power)?;
        check("metadata", self.metadata, 1..=usize::MAX, Step::One)?;
        check("pools", self.pools, 1..=POOLS, Step::One)?;
        check("shards", self.shards, 1..=SHARDS, Step::Power)?;
        check(
            "large_pages",
            self.large_pages.bytes(),
            1..=usize::MAX,
            Step::Power,
        )?;
        check("mapping", usize::from(writes_code), 0..=0, Step::One)
    }

    /// Returns the bytes of the granule of a pool, as a power of two.
    #[inline]
    pub(in crate::jit) const fn shift(&self, pool: usize) -> u32 {
        (self.granularity << pool).ilog2()
    }

    /// Returns the bytes before the first granule of a block whose granules are `1 << shift`.
    pub(in crate::jit) const fn padding_bytes(&self, shift: u32) -> usize {
        if self.padding { 1 << shift } else { 0 }
    }

    /// Returns the length of a block that holds `need` bytes when blocks have grown to `grown`.
    pub(in crate::jit) fn block_len(
        &self,
        need: usize,
        grown: usize,
        page: PageSize,
    ) -> Option<usize> {
        let len = if need <= grown {
            grown
        } else {
            align_up(need, self.block_size)?
        };
        // A page may be larger than the smallest block.
        let len = page.round_up(len)?;
        match self.large_pages {
            LargePages::Align { bytes } => align_up(len, bytes),
            _ => Some(len),
        }
    }
}
