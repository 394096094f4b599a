//! What a JIT allocator can be told.

use super::{Barrier, Words, tag::Carried};
use crate::{
    arch,
    config::{ConfigError, Step, check},
    page::{PageSize, RwxOptIn, align_up},
    provider::{Fork, Place, Placement},
};
use core::ffi::CStr;

/// Granularities that one allocator can have at most: g, 2g and 4g.
pub(super) const POOLS: usize = 3;

/// Shards that one allocator can have at most.
pub(super) const SHARDS: usize = 16;

/// What memory that belongs to no span reads as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fill {
    /// Whatever it held: zero at first, old code later. Costs nothing.
    #[default]
    Keep,
    /// An instruction that traps: `int3`, `brk #0`. A stray jump ends at once. Every new block, and
    /// the memory of every release, shrink and soft reset, is written.
    Trap,
    /// This pattern, in the CPU's byte order, at every address that is a multiple of four.
    Pattern(u32),
}

impl Fill {
    /// Returns the pattern, if any.
    #[must_use]
    pub const fn pattern(self) -> Option<u32> {
        match self {
            Self::Keep => None,
            Self::Trap => Some(arch::TRAP),
            Self::Pattern(pattern) => Some(pattern),
        }
    }
}

/// How blocks are mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mapping {
    /// Twice: written through one view, executed through the other. Nothing is ever both.
    #[default]
    Dual,
    /// Once, executable, and writable instead for the time of a write. A thread that executes code
    /// in the same pages meanwhile faults, so nobody may. Pages that several writers share become
    /// executable again when the last of them is done. For hosts that allow
    /// no dual mappings, and programs that do not write while they run; and for debugging, since
    /// a debugger can write breakpoints into this memory, but not into dual mappings.
    Toggle,
    /// As `Dual`; where the host refuses every strategy for that, as `Toggle`, if it can.
    Auto,
    /// Once, writable and executable at once.
    ReadWriteExec(RwxOptIn),
}

/// Whether blocks are made of large pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LargePages {
    /// The host's pages.
    #[default]
    Never,
    /// Pages of `bytes` for blocks that are a multiple of it; where there are none, and for other
    /// blocks, the host's pages with the advice that larger ones would be welcome.
    Wish {
        /// The page size in bytes, a power of two that the probe lists.
        bytes: usize,
    },
    /// As `Wish`, and every block is made a multiple of `bytes`.
    Align {
        /// The page size in bytes, a power of two that the probe lists.
        bytes: usize,
    },
}

impl LargePages {
    /// Returns the page size in bytes; 1 for the host's.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Never => 1,
            Self::Wish { bytes } | Self::Align { bytes } => bytes,
        }
    }
}

/// When other cores are made to see new instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncCores {
    /// When bytes are published where code was published before, on hosts that can: those with
    /// [`Capabilities::CORE_SYNC`]. Memory that never held code needs no barrier, and costs no system
    /// call. On other hosts ([`JitAllocator::syncs_cores`] tells) a thread may run what it fetched
    /// before until it next returns from the kernel.
    ///
    /// [`Capabilities::CORE_SYNC`]: crate::provider::Capabilities::CORE_SYNC
    /// [`JitAllocator::syncs_cores`]: super::JitAllocator::syncs_cores
    #[default]
    WhenReused,
    /// As `WhenReused`, but a host that cannot is refused when the allocator is made.
    Required,
    /// As `WhenReused`, but a write leaves it to the next [`JitAllocator::publish`] or the end of a
    /// batch: the program publishes code by these. So recycled memory costs no system call for each
    /// write.
    ///
    /// [`JitAllocator::publish`]: super::JitAllocator::publish
    Deferred,
    /// Never: the program has one thread, or synchronizes its executors itself.
    Never,
}

/// The configuration of a [`JitAllocator`](super::JitAllocator).
///
/// ```
/// use hostmem_core::{jit::JitConfig, provider::Placement};
/// let near = JitConfig::new().granularity(128).rx(Placement::near(0x4000_0000, 128 << 20));
/// assert_eq!(near.granularity_bytes(), 128);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct JitConfig {
    granularity: usize,
    block_size: usize,
    max_block_size: usize,
    rw: Placement,
    rx: Placement,
    landing_pads: bool,
    fork: Fork,
    sync_cores: SyncCores,
    metadata: usize,
    pools: usize,
    shards: usize,
    fill: Fill,
    mapping: Mapping,
    large_pages: LargePages,
    immediate_release: bool,
    padding: bool,
    limit: usize,
    strict: bool,
    name: &'static CStr,
    words: Words,
    groups: bool,
    numbers: bool,
}

impl JitConfig {
    /// Granules that may be asked for, in bytes: from 16 to 4096.
    pub const GRANULARITY: core::ops::RangeInclusive<usize> = 16..=4096;
    /// Block sizes that may be asked for, in bytes: from 64 KiB to 1 GiB.
    pub const BLOCK_SIZE: core::ops::RangeInclusive<usize> = 64 << 10..=1 << 30;

    /// The defaults: granules of 64 bytes, one pool; blocks from 128 KiB that double up to 32 MiB,
    /// padded, mapped twice, both views anywhere, one empty one kept; forked children detach; cores
    /// are synchronized when memory is reused; no fill, no limit.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            granularity: 64,
            block_size: 128 << 10,
            max_block_size: 32 << 20,
            rw: Placement::ANYWHERE,
            rx: Placement::ANYWHERE,
            landing_pads: false,
            fork: Fork::Detach,
            sync_cores: SyncCores::WhenReused,
            metadata: 256 << 20,
            pools: 1,
            shards: SHARDS,
            fill: Fill::Keep,
            mapping: Mapping::Dual,
            large_pages: LargePages::Never,
            immediate_release: false,
            padding: true,
            limit: usize::MAX,
            strict: false,
            name: c"hostmem: jit",
            words: Words::None,
            groups: false,
            numbers: false,
        }
    }

    /// Sets the granule in bytes, the unit and the alignment of every span: a power of two within
    /// [`JitConfig::GRANULARITY`].
    #[must_use]
    pub const fn granularity(mut self, bytes: usize) -> Self {
        self.granularity = bytes;
        self
    }

    /// Sets the size of the first block and the bound to which blocks double, in bytes: powers of
    /// two within [`JitConfig::BLOCK_SIZE`], the first not above the second.
    #[must_use]
    pub const fn block_size(mut self, first: usize, max: usize) -> Self {
        self.block_size = first;
        self.max_block_size = max;
        self
    }

    /// Sets where executable views go: near what code calls, or below what a guest can see.
    ///
    /// With [`Placement::lowest`] spans are handed out in order: each at the lowest free address of
    /// the blocks that has room for it, and where none has, a block is mapped at the lowest place
    /// of the window. Blocks do not grow then, one lock serves all threads, and released memory is
    /// joined at once. Of several [pools](JitConfig::pools) each has an order of its own.
    #[must_use]
    pub const fn rx(mut self, placement: Placement) -> Self {
        self.rx = placement;
        self
    }

    /// Sets where writable views go.
    #[must_use]
    pub const fn rw(mut self, placement: Placement) -> Self {
        self.rw = placement;
        self
    }

    /// Sets whether indirect branches into code must land on a landing pad (`bti` on AArch64). All
    /// code then begins with one; hosts without the capability refuse the configuration.
    #[must_use]
    pub const fn landing_pads(mut self, wanted: bool) -> Self {
        self.landing_pads = wanted;
        self
    }

    /// Sets what a forked child sees.
    #[must_use]
    pub const fn fork(mut self, fork: Fork) -> Self {
        self.fork = fork;
        self
    }

    /// Sets when other cores are synchronized.
    #[must_use]
    pub const fn sync_cores(mut self, when: SyncCores) -> Self {
        self.sync_cores = when;
        self
    }

    /// Sets the bound of the metadata in bytes. Metadata takes 3 bits a granule, and is reserved as it
    /// is needed.
    #[must_use]
    pub const fn metadata(mut self, bytes: usize) -> Self {
        self.metadata = bytes;
        self
    }

    /// Sets how many granularities there are, from 1 to 3: the granule g, then 2g, then 4g, each
    /// with blocks of its own. A span goes to the largest that divides its size: longer granules
    /// make for fewer bits and less scatter, and more blocks.
    #[must_use]
    pub const fn pools(mut self, count: usize) -> Self {
        self.pools = count;
        self
    }

    /// Sets how many threads can allocate at once without waiting for each other: a power of two
    /// up to 16. Blocks belong to one shard each; a second one is used only once threads have met.
    #[must_use]
    pub const fn shards(mut self, count: usize) -> Self {
        self.shards = count;
        self
    }

    /// Sets what memory that belongs to no span reads as.
    #[must_use]
    pub const fn fill(mut self, fill: Fill) -> Self {
        self.fill = fill;
        self
    }

    /// Sets how blocks are mapped.
    #[must_use]
    pub const fn mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// Sets whether blocks are made of large pages.
    #[must_use]
    pub const fn large_pages(mut self, large_pages: LargePages) -> Self {
        self.large_pages = large_pages;
        self
    }

    /// Sets whether a block is unmapped as soon as it is empty. Otherwise one empty block a pool is
    /// kept, so that a span that comes and goes does not map and unmap.
    #[must_use]
    pub const fn immediate_release(mut self, wanted: bool) -> Self {
        self.immediate_release = wanted;
        self
    }

    /// Sets whether the first granule of every block stays unused, which keeps the first byte of a
    /// mapping from being anybody's code. A block that exceeds the [limit](JitConfig::limit) by
    /// its padding alone has none.
    #[must_use]
    pub const fn padding(mut self, wanted: bool) -> Self {
        self.padding = wanted;
        self
    }

    /// Sets the most bytes of code that are mapped at a time, each counted once for both views.
    ///
    /// A span as long as all that is left of a limit is served: its block goes without
    /// [padding](JitConfig::padding) where that alone would not fit.
    #[must_use]
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Sets whether an allocator is refused whose memory would be writable and executable at once:
    /// one on a host without [`Capabilities::EXEC_ONLY_WHERE_ASKED`], on which the writable views of
    /// dual mappings are executable too, and one with [`Mapping::ReadWriteExec`].
    ///
    /// [`Capabilities::EXEC_ONLY_WHERE_ASKED`]: crate::provider::Capabilities::EXEC_ONLY_WHERE_ASKED
    #[must_use]
    pub const fn strict(mut self, wanted: bool) -> Self {
        self.strict = wanted;
        self
    }

    /// Sets whether spans carry a word for the program, which queries and iteration return: four or
    /// eight bytes of metadata a granule, of which pages are taken where spans are.
    #[must_use]
    pub const fn words(mut self, words: Words) -> Self {
        self.words = words;
        self
    }

    /// Sets whether spans have groups, a number of 32 bits by which they are iterated and
    /// released: one for each guest file, say. Four bytes of metadata a granule.
    #[must_use]
    pub const fn groups(mut self, wanted: bool) -> Self {
        self.groups = wanted;
        self
    }

    /// Sets whether spans have a number, which no other span of the allocator has until 2^32 more
    /// were allocated. A program that copies what names a span, as one in C does, is told by it that
    /// the span was released and its memory is another span's. Four bytes of metadata a granule.
    ///
    /// See [`JitAllocator::span_at`](super::JitAllocator::span_at).
    #[must_use]
    pub const fn numbers(mut self, wanted: bool) -> Self {
        self.numbers = wanted;
        self
    }

    /// Sets the name of the blocks in the process map, where the host keeps names.
    #[must_use]
    pub const fn name(mut self, name: &'static CStr) -> Self {
        self.name = name;
        self
    }

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
    pub(super) const fn is_ordered(&self) -> bool {
        let start = self.rx.within.start();
        let whole = start == 0 && self.rx.within.last() == usize::MAX;
        matches!(self.rx.place, Place::Near(anchor) if anchor == start) && !whole
    }

    /// Returns when the barrier of a write comes.
    #[inline]
    pub(super) const fn barrier(&self) -> Barrier {
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
    pub(super) const fn carried(&self) -> Carried {
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
    /// [`JitAllocator::on`](super::JitAllocator::on) asks. What the provider and the CPU lack is
    /// told there alone.
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

    /// Says whether every value is one that may be asked for.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.check().is_ok()
    }

    /// Returns the bytes of the granule of a pool, as a power of two.
    #[inline]
    pub(super) const fn shift(&self, pool: usize) -> u32 {
        (self.granularity << pool).ilog2()
    }

    /// Returns the bytes before the first granule of a block whose granules are `1 << shift`.
    pub(super) const fn padding_bytes(&self, shift: u32) -> usize {
        if self.padding { 1 << shift } else { 0 }
    }

    /// Returns the length of a block that holds `need` bytes when blocks have grown to `grown`.
    pub(super) fn block_len(&self, need: usize, grown: usize, page: PageSize) -> Option<usize> {
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

impl Default for JitConfig {
    fn default() -> Self {
        Self::new()
    }
}
