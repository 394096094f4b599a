//! The configuration of an allocator, and its statistics.

#[cfg(doc)]
use super::RegionAllocator;
use super::SignalHook;

/// Which free addresses are taken first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The lowest.
    #[default]
    Lowest,
    /// The highest.
    Highest,
    /// Those nearest to what was taken last.
    Recent,
}

/// The configuration of a [`RegionAllocator`].
#[derive(Clone, Copy, Debug)]
pub struct RegionConfig {
    pub(super) order: Order,
    pub(super) metadata_bytes: usize,
    pub(super) mapping_limit: usize,
    pub(super) signals: Option<SignalHook>,
}

impl RegionConfig {
    /// The defaults: lowest addresses first, up to 64 MiB of metadata, which serve about three
    /// million ranges, a limit of 65,530 mappings of the host, as Linux has it, and no hook for
    /// signals.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            order: Order::Lowest,
            metadata_bytes: 64 << 20,
            mapping_limit: 65_530,
            signals: None,
        }
    }

    /// Sets which free addresses are taken first.
    #[must_use]
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets how many bytes the metadata may take: addresses for them are reserved at once, or
    /// for fewer where address space is short.
    #[must_use]
    pub const fn metadata(mut self, max_bytes: usize) -> Self {
        self.metadata_bytes = max_bytes;
        self
    }
}

/// Mapping limits and signals.
impl RegionConfig {
    /// Sets how many mappings the host allows a process: `vm.max_map_count` on Linux, which is in
    /// the [probe](crate::probe::Probe::max_map_count). See [`RegionAllocator::mapping_pressure`].
    #[must_use]
    pub const fn mapping_limit(mut self, mappings: usize) -> Self {
        self.mapping_limit = mappings;
        self
    }

    /// Sets what keeps signals away from a thread that holds the lock, so that handlers may map and
    /// unmap, too.
    #[must_use]
    pub const fn signals(mut self, hook: SignalHook) -> Self {
        self.signals = Some(hook);
        self
    }
}

impl Default for RegionConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Reports that the host may soon refuse more mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingPressure {
    /// Mappings that the host keeps for the regions, [counted](RegionAllocator::host_mappings).
    pub mappings: usize,
    /// How many it allows the whole process.
    pub limit: usize,
}

/// The statistics of a [`RegionAllocator`], in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionStatistics {
    /// Addresses that were adopted and not returned.
    pub adopted: usize,
    /// Addresses given out.
    pub used: usize,
    /// Ranges in the tree, those of others included.
    pub ranges: usize,
    /// Metadata committed.
    pub metadata: usize,
    /// Metadata that a forked child left behind: the lock was held when it was forked, and what the
    /// lock guarded was built anew. It is not in `metadata`, and goes with the allocator.
    pub abandoned: usize,
}

impl RegionStatistics {
    /// Returns the bytes that are free.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.adopted - self.used
    }
}
