//! The options of a heap.

use super::{
    class::{CLASSES, GRANULE, size},
    error::{HeapError, end},
    segment::GRANULES,
};
use crate::config::{ConfigError, Step, check};
use core::fmt;

/// Bytes of a bin and its lock, at most.
pub(super) const BIN: usize = 64;

/// Bytes of addresses that a heap begins with, beside its bins: for one block of 1 MiB with guards,
/// and half as much for what comes before it, such as other metadata, and for alignment.
const LEAST: usize = 24 * GRANULE;

/// Shards that one heap can have at most.
pub(super) const SHARDS: usize = 64;

/// When memory that is free goes back to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Return {
    /// At a [tick](super::Heap::tick) that finds it free for this many milliseconds at least, and
    /// for twice as many at most if ticks come as often.
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
    /// That, and what is cheap to find: level 2. Canaries behind blocks, a pattern at the start of
    /// free ones, and frees and resizes by a wrong layout are refused.
    Canaries,
    /// All that the heap can find: level 3. The pattern fills free blocks, which wait in a
    /// [quarantine](HeapConfig::quarantine) and are handed out in any order; memory around large
    /// and huge blocks is inaccessible, as long as there are [mappings](HeapConfig::mappings) for
    /// that; and of calls that free a block at once, all but one are refused.
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
    keys: Option<Keys>,
    quarantine: usize,
    quarantine_addresses: usize,
    mappings: Option<usize>,
    on_invalid_free: fn(*mut u8, HeapError),
}

/// Keys, which are not to be printed.
#[derive(Clone, Copy)]
struct Keys([u8; 32]);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Ends the program.
fn end_program(block: *mut u8, error: HeapError) {
    end(block, &error);
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
            keys: None,
            quarantine: 1 << 20,
            quarantine_addresses: if usize::BITS > 32 { 1 << 30 } else { 16 << 20 },
            mappings: None,
            on_invalid_free: end_program,
        }
    }

    /// Sets how many bytes of addresses are reserved for metadata; less where they are short.
    /// Default 1 GiB, enough for 16 GiB of blocks of 16 bytes, or 128 GiB of 128.
    #[must_use]
    pub const fn metadata(mut self, bytes: usize) -> Self {
        self.metadata = bytes;
        self
    }

    /// Sets in how many shards slabs are kept, each with its own locks; 1 to 64, default 4. Threads
    /// are spread over them, and memory that is partly used lies in as many places.
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

    /// Sets how many bytes of addresses are reserved at first, a multiple of 64 KiB up to 64 MiB;
    /// later twice as many each time, up to that. Less where they are short. Default 4 MiB.
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

    /// Sets whether the host is asked for large pages once a heap has grown to some 30 MiB; default
    /// yes. Free memory then goes back by whole ones, as long as the host
    /// [says](crate::provider::PageProvider::large_page), but for
    /// [`Level::Deep`](super::Level::Deep) and [`Heap::trim_to`](super::Heap::trim_to).
    #[must_use]
    pub const fn large_pages(mut self, wanted: bool) -> Self {
        self.large_pages = wanted;
        self
    }

    pub(super) const fn has_large_pages(&self) -> bool {
        // Guards are granules without memory among others.
        self.large_pages && !self.is_full()
    }

    /// Sets a clock that calls which take a lock look at, of those for blocks without a class one
    /// in sixteen at least, so that memory goes back without [`Heap::tick`](super::Heap::tick):
    /// milliseconds that only go forwards, such as those of [`Clock`](crate::provider::Clock). It
    /// must not allocate from the heap. Default none.
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

    /// Sets the keys of canaries and of the order of blocks, 16 bytes each: at a level above
    /// [`Hardening::Checked`]. Default what the provider says, of metadata or else of blocks
    /// ([`PageProvider::random_key`](crate::provider::PageProvider::random_key)). Where none has
    /// random numbers, keys come from where the heap's metadata lies, which is as hard to guess as
    /// the host makes it.
    #[must_use]
    pub const fn keys(mut self, bytes: [u8; 32]) -> Self {
        self.keys = Some(Keys(bytes));
        self
    }

    /// Sets keys that come from a number, so that a run repeats: for tests, since there are few.
    #[must_use]
    pub const fn seed(self, seed: u64) -> Self {
        let mut bytes = [0; 32];
        let mut n = 0;
        while n < 32 {
            bytes[n] = (seed >> (n % 8 * 8)).to_le_bytes()[0] ^ n.to_le_bytes()[0];
            n += 1;
        }
        self.keys(bytes)
    }

    /// Sets how many bytes of freed blocks up to 256 KiB wait at [`Hardening::Full`] before they
    /// serve again, 4096 blocks at most; default 1 MiB.
    #[must_use]
    pub const fn quarantine(mut self, bytes: usize) -> Self {
        self.quarantine = bytes;
        self
    }

    /// Sets how many bytes of addresses of freed larger blocks wait at [`Hardening::Full`], without
    /// memory; default 1 GiB where addresses have 64 bits. Less where few are left.
    #[must_use]
    pub const fn quarantine_addresses(mut self, bytes: usize) -> Self {
        self.quarantine_addresses = bytes;
        self
    }

    /// Sets about how many mappings of the host guards may take at [`Hardening::Full`]; default
    /// half of those that are left when the heap is made. Beyond that blocks have no guards, and
    /// freed ones stay accessible, which
    /// [`HeapStatistics::unguarded_blocks`](super::HeapStatistics::unguarded_blocks) tells.
    #[must_use]
    pub const fn mappings(mut self, count: usize) -> Self {
        self.mappings = Some(count);
        self
    }

    /// Sets what is told of faults where an interface has no error for them: the collections of
    /// `allocator-api2`, which free a block that is no live one of this heap, resize it or free it
    /// by another layout, and corrupt blocks. It must not unwind. By default, it ends the program.
    #[must_use]
    pub const fn on_invalid_free(mut self, tell: fn(*mut u8, HeapError)) -> Self {
        self.on_invalid_free = tell;
        self
    }

    /// Tells of a fault.
    #[cfg(feature = "allocator-api2")]
    pub(super) fn tell(&self, block: *mut u8, error: HeapError) {
        (self.on_invalid_free)(block, error);
    }

    /// Returns how many bytes of addresses a heap needs to begin with, so that it serves blocks of
    /// up to 1 MiB: 1.6 MiB for the default number of shards. With fewer left it is
    /// [refused](super::HeapError::TooSmall).
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

    /// Returns the keys, if they are told.
    pub(super) fn own_keys(&self) -> Option<[u8; 32]> {
        self.keys.map(|keys| keys.0)
    }

    pub(super) const fn is_full(&self) -> bool {
        matches!(self.hardening, Hardening::Full)
    }

    /// Returns how many bytes of freed blocks wait, of those that have memory and of those that
    /// have addresses.
    pub(super) const fn waiting(&self) -> (usize, usize) {
        if self.is_full() {
            (self.quarantine, self.quarantine_addresses)
        } else {
            (0, 0)
        }
    }

    pub(super) const fn mapping_count(&self) -> Option<usize> {
        self.mappings
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

    /// Says whether every value is one that may be asked for, as [`Heap::on`](super::Heap::on)
    /// asks.
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

    /// Returns how many blocks of a class a magazine may hold.
    pub(super) fn limit(&self, class: usize) -> u32 {
        debug_assert!(class < CLASSES, "a class");
        let by_bytes = u32::try_from(self.magazine / size(class)).unwrap_or(u32::MAX);
        by_bytes.clamp(MAGAZINE_LEAST, MAGAZINE_MOST)
    }
}

/// Blocks that a magazine may hold whatever their size: one more would go to and from a lock.
const MAGAZINE_LEAST: u32 = 2;

/// Blocks that a magazine may hold at most: locks cost little beside as many.
pub(super) const MAGAZINE_MOST: u32 = 1024;

impl Default for HeapConfig {
    fn default() -> Self {
        Self::new()
    }
}
