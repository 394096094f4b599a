//! What a JIT allocator can be told: settings, of which `options` has the choices; `read` says what
//! follows from them.

mod options;
mod read;

pub use options::{Fill, LargePages, Mapping, SyncCores};

use super::Words;
use crate::provider::{Fork, Placement};
use core::ffi::CStr;

/// Granularities that one allocator can have at most: g, 2g and 4g.
pub(super) const POOLS: usize = 3;

/// Shards that one allocator can have at most.
pub(super) const SHARDS: usize = 16;

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

    /// Sets the bound of the metadata in bytes. Metadata takes 3 bits a granule, and is reserved as
    /// it is needed.
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
    /// one on a host without [`EXEC_ONLY_WHERE_ASKED`], on which the writable views of dual
    /// mappings are executable too, and one with [`Mapping::ReadWriteExec`].
    ///
    /// [`EXEC_ONLY_WHERE_ASKED`]: crate::provider::Capabilities::EXEC_ONLY_WHERE_ASKED
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
    /// were allocated. A program that copies what names a span, as one in C does, is told by it
    /// that the span was released and its memory is another span's. Four bytes of metadata a
    /// granule.
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
}

impl Default for JitConfig {
    fn default() -> Self {
        Self::new()
    }
}
