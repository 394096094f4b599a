//! What a heap can be told.

use super::{
    class::{CLASSES, GRANULE, size},
    segment::GRANULES,
};
use crate::config::{ConfigError, Step, check};

/// Bytes of a bin and its lock, at most.
pub(super) const BIN: usize = 64;

/// Bytes of addresses that a heap begins with, beside its bins: for one block of 1 MiB with guards, and half as much
/// for what comes before it, such as other metadata, and for alignment.
const LEAST: usize = 24 * GRANULE;

/// Shards that one heap can have at most.
const SHARDS: usize = 64;

/// When memory that is free goes back to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Return {
    /// At a [tick](super::Heap::tick) that finds it free for this many milliseconds at least, and for
    /// twice as many at most if ticks come as often.
    After(u64),
    /// At once, as soon as whole granules of 64 KiB are free: one call of the provider each time.
    Eager,
    /// Only by [`Heap::trim`](super::Heap::trim).
    Never,
}

/// How much a heap does to find faults of its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hardening {
    /// Frees of what is no live block are refused: level 1.
    Checked,
    /// That, and writes outside of live blocks are found: level 2. Canaries behind blocks, a pattern in free
    /// ones, inaccessible memory around large and huge ones, and any free block of a slab is handed out. Every
    /// call takes a lock.
    Full,
}

/// The configuration of a heap. Its defaults suit an emulator's primary heap.
///
/// ```
/// use hostmem_core::heap::{HeapConfig, Return};
/// let small = HeapConfig::new().metadata(16 << 20).shards(1).memory_return(Return::Eager);
/// # let _ = small;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeapConfig {
    metadata: usize,
    shards: usize,
    magazine: usize,
    segment: usize,
    memory_return: Return,
    large_pages: bool,
    clock: Option<fn() -> Option<u64>>,
    hardening: Hardening,
    seed: Option<u64>,
}

impl HeapConfig {
    /// Starts with the defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            metadata: 1 << 30,
            shards: 4,
            magazine: 64 << 10,
            segment: 4 << 20,
            memory_return: Return::After(250),
            large_pages: true,
            clock: None,
            hardening: Hardening::Checked,
            seed: None,
        }
    }

    /// Sets how many bytes of addresses are reserved for metadata; less where they are short. Default
    /// 1 GiB, enough for 16 GiB of blocks of 16 bytes, or 128 GiB of 128.
    #[must_use]
    pub const fn metadata(mut self, bytes: usize) -> Self {
        self.metadata = bytes;
        self
    }

    /// Sets in how many shards slabs are kept, each with its own locks; 1 to 64, default 4. Threads are
    /// spread over them, and memory that is partly used lies in as many places.
    #[must_use]
    pub const fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Sets how many bytes of free blocks a thread may keep of each class; default 64 KiB.
    #[must_use]
    pub const fn magazine(mut self, bytes: usize) -> Self {
        self.magazine = bytes;
        self
    }

    /// Sets how many bytes of addresses are reserved at first, a multiple of 64 KiB up to 64 MiB; later
    /// twice as many each time, up to that. Less where they are short. Default 4 MiB.
    #[must_use]
    pub const fn segment(mut self, bytes: usize) -> Self {
        self.segment = bytes;
        self
    }

    /// Sets when free memory goes back; default after a quarter of a second.
    #[must_use]
    pub const fn memory_return(mut self, when: Return) -> Self {
        self.memory_return = when;
        self
    }

    /// Sets whether the host is asked for large pages once a heap has grown to some 30 MiB; default yes. Free memory
    /// then goes back by whole ones, as long as the host [says](crate::provider::PageProvider::large_page), but for [`Level::Deep`](super::Level::Deep) and
    /// [`Heap::trim_to`](super::Heap::trim_to).
    #[must_use]
    pub const fn large_pages(mut self, wanted: bool) -> Self {
        self.large_pages = wanted;
        self
    }

    pub(super) const fn has_large_pages(&self) -> bool {
        // Guards are granules without memory among others.
        self.large_pages && matches!(self.hardening, Hardening::Checked)
    }

    /// Sets a clock that calls which take a lock look at, of those for blocks without a class one in
    /// sixteen at least, so that memory goes back without
    /// [`Heap::tick`](super::Heap::tick): milliseconds that only go forwards, as of
    /// [`Clock`](crate::provider::Clock). It must not allocate from the heap. Default none.
    #[must_use]
    pub const fn clock(mut self, now_ms: fn() -> Option<u64>) -> Self {
        self.clock = Some(now_ms);
        self
    }

    /// Sets what is done to find faults; default [`Hardening::Checked`].
    #[must_use]
    pub const fn hardening(mut self, level: Hardening) -> Self {
        self.hardening = level;
        self
    }

    /// Sets what canaries and the order of blocks are made of at [`Hardening::Full`], so that a run repeats.
    /// Default where the heap's metadata lies, which is as hard to guess as the host makes it.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Returns how many bytes of addresses a heap needs to begin with, so that it serves blocks of up to 1 MiB:
    /// 1.6 MiB for the default number of shards. With fewer left it is [refused](super::HeapError::TooSmall).
    #[must_use]
    pub const fn least_window(&self) -> usize {
        let bins = self.shards * CLASSES * BIN;
        bins.next_multiple_of(GRANULE) + LEAST
    }

    /// Returns what is done to find faults.
    #[must_use]
    pub const fn level(&self) -> Hardening {
        self.hardening
    }

    /// Returns the seed for a heap at an address, if there is to be one.
    pub(super) fn hard_seed(&self, addr: usize) -> Option<u64> {
        let is_full = self.hardening == Hardening::Full;
        is_full.then(|| self.seed.unwrap_or(addr as u64))
    }

    /// Reads the clock, if there is one and it is needed.
    pub(super) fn now_ms(&self) -> Option<u64> {
        matches!(self.memory_return, Return::After(_)).then_some(self.clock?)?()
    }

    /// Returns how long memory stays free before it goes back, in milliseconds.
    pub(super) const fn period_ms(&self) -> u64 {
        match self.memory_return {
            Return::After(period) => period,
            Return::Eager | Return::Never => u64::MAX,
        }
    }

    pub(super) const fn metadata_bytes(&self) -> usize {
        self.metadata
    }

    pub(super) const fn shard_count(&self) -> usize {
        self.shards
    }

    pub(super) const fn segment_granules(&self) -> usize {
        self.segment / GRANULE
    }

    pub(super) const fn returns(&self) -> Return {
        self.memory_return
    }

    /// Says whether every value is one that may be asked for, as [`Heap::on`](super::Heap::on) asks.
    ///
    /// # Errors
    ///
    /// The first setting that has another value.
    pub fn check(&self) -> Result<(), ConfigError> {
        check("metadata", self.metadata, 1..=usize::MAX, Step::One)?;
        check("shards", self.shards, 1..=SHARDS, Step::One)?;
        let segment = GRANULE..=GRANULES * GRANULE;
        check("segment", self.segment, segment, Step::Multiple(GRANULE))
    }

    pub(super) fn is_valid(&self) -> bool {
        self.check().is_ok()
    }

    /// Returns how many blocks of a class a magazine may hold.
    pub(super) fn limit(&self, class: usize) -> u32 {
        debug_assert!(class < CLASSES, "a class");
        // None at hand: every call has to be seen.
        if self.hardening == Hardening::Full {
            return 0;
        }
        let by_bytes = u32::try_from(self.magazine / size(class)).unwrap_or(u32::MAX);
        by_bytes.clamp(MAGAZINE_LEAST, MAGAZINE_MOST)
    }
}

/// Blocks that a magazine may hold whatever their size: one more would go to and from a lock.
const MAGAZINE_LEAST: u32 = 2;

/// Blocks that a magazine may hold at most: locks cost little beside so many.
pub(super) const MAGAZINE_MOST: u32 = 1024;

impl Default for HeapConfig {
    fn default() -> Self {
        Self::new()
    }
}
