//! What a JIT allocator can be told.

use crate::{
    page::{PageSize, align_up},
    provider::{Fork, Placement},
};

/// When other cores are made to see new instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

impl JitConfig {
    /// Granules that may be asked for, in bytes: from 16 to 4096.
    pub const GRANULARITY: core::ops::RangeInclusive<usize> = 16..=4096;
    /// Block sizes that may be asked for, in bytes: from 64 KiB to 256 MiB.
    pub const BLOCK_SIZE: core::ops::RangeInclusive<usize> = 64 << 10..=256 << 20;

    /// The defaults: granules of 64 bytes; blocks from 64 KiB that double up to 64 MiB; both views
    /// anywhere; forked children detach; cores are synchronized when memory is reused.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            granularity: 64,
            block_size: 64 << 10,
            max_block_size: 64 << 20,
            rw: Placement::ANYWHERE,
            rx: Placement::ANYWHERE,
            landing_pads: false,
            fork: Fork::Detach,
            sync_cores: SyncCores::WhenReused,
            metadata: 256 << 20,
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

    /// Sets the bound of the metadata in bytes. Metadata takes 3 bits a granule; the bound is
    /// address space until it is used.
    #[must_use]
    pub const fn metadata(mut self, bytes: usize) -> Self {
        self.metadata = bytes;
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

    /// Returns the bound of the metadata in bytes.
    #[must_use]
    pub const fn metadata_bytes(&self) -> usize {
        self.metadata
    }

    /// Says whether every value is one that may be asked for.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let granularity =
            self.granularity.is_power_of_two() && Self::GRANULARITY.contains(&self.granularity);
        let block = |n: usize| n.is_power_of_two() && Self::BLOCK_SIZE.contains(&n);
        granularity
            && block(self.block_size)
            && block(self.max_block_size)
            && self.block_size <= self.max_block_size
            && self.metadata != 0
    }

    /// Returns the length of a block that holds `need` bytes when blocks have grown to `grown`.
    pub(super) fn block_len(&self, need: usize, grown: usize, page: PageSize) -> Option<usize> {
        if need <= grown {
            // A page may be larger than the smallest block.
            return page.round_up(grown);
        }
        page.round_up(align_up(need, self.block_size)?)
    }
}

impl Default for JitConfig {
    fn default() -> Self {
        Self::new()
    }
}
