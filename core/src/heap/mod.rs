//! The general heap: blocks of any size, from any provider, for any number of threads.
//!
//! ```text
//!   LocalHeap (a thread)        Heap (all threads)                               provider
//!   ┌──────────────────┐ half ┌───────────────────┐        ┌──────────────────┐
//!   │ magazine a class │ ◄──► │ bin a class:      │ ◄────► │ segments:        │ ◄── 4 … 64 MiB
//!   │ pop, push        │      │ slabs, lowest 1st │        │ granules of 64 K │     of addresses
//!   └──────────────────┘      └───────────────────┘        └──────────────────┘
//!     no lock                   a lock each                  a lock
//!                                                            ▲ large: up to 1 MiB
//!                                                            │ huge ──► its own reservation
//!   free(ptr) ─► page map ─► slab ─► its class, and the block's state: live, or refused
//! ```
//!
//! An allocation goes down this table as far as it has to: most end at `cache`. A free finds its
//! block by `map` and `slab`, puts it into the `cache`, and goes further down when that is full.
//!
//! | module | what it has |
//! |---|---|
//! | `config`, `error` | options, and errors |
//! | `global`, `slot` | a heap in a static, and how its threads find their caches |
//! | `local`, `shared` | the calls of a thread with a handle, and of any thread |
//! | `by_size`, `allocator` | calls without layouts, and heaps for collections |
//! | `deferred` | calls for signal handlers, which never wait |
//! | `class` | sizes |
//! | `cache` | a thread's magazines, and the quick calls |
//! | `map` | which slab has the granule around an address, without a lock |
//! | `slab` | granules cut into blocks |
//! | `hardened` | canaries, patterns, guards and the quarantine |
//! | `bin`, `order` | the slabs of one class, by address |
//! | `large`, `huge`, `kept`, `grow` | blocks without a class: made, kept when freed, resized |
//! | `space`, `segment`, `bits`, `index` | granules, and how they get addresses and memory |
//! | `provider_calls` | the calls of the provider, counted |
//! | `maintenance` | how free memory goes back |
//! | `parts`, `fork` | what locks guard, and what a forked child does about held ones |
//! | `ranges`, `walk`, `statistics` | what the heap holds: addresses, blocks, numbers |
//!
//! Blocks have no owner: the thread that frees one caches it, and what is too much goes to its bin
//! half a magazine at a time. So there are no queues of frees by other threads, and a thread that
//! ends leaves nothing to inherit.
//!
//! Locks nest as: the one of the sweep, or the one of the caches, then a bin's, then the one of the
//! granules, then the arena's, which is taken only with one of the others.

mod config;
mod error;

// The calls.
#[cfg(feature = "allocator-api2")]
mod allocator;
mod by_size;
mod deferred;
// Its locks are made by what constants can be, as those of the models cannot.
#[cfg(not(all(test, loom)))]
mod global;
mod local;
mod shared;
mod slot;

// The way without a lock.
mod cache;
mod class;
mod hardened;
mod map;
mod slab;

// The way behind locks.
mod bin;
mod bits;
mod grow;
mod huge;
mod index;
mod kept;
mod large;
mod order;
mod provider_calls;
mod segment;
mod space;

// The heap as a whole.
mod fork;
mod maintenance;
mod parts;
mod ranges;
mod statistics;
mod walk;

#[cfg(all(test, loom))]
mod models;

pub use config::{Hardening, HeapConfig, Return};
pub use error::{BlockAddr, HeapError, WrongSetting};
#[cfg(not(all(test, loom)))]
pub use global::{GlobalHeap, HeapOf, State, StaticHeap};
pub use local::LocalHeap;
pub use maintenance::Level;
pub use provider_calls::ProviderCalls;
pub use ranges::{HeapRange, RangeKind};
pub use slot::{DETACHED, FRESH, NoSlot, SlotTable, ThreadSlot};
pub use statistics::{ClassStatistics, HeapStatistics};

use crate::{
    arena::Arena,
    atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64},
    fork::Renewable,
    intervals::Intervals,
    page::PageSize,
    provider::{PageProvider, Resource},
    sync::{Lock, RawMutex, Spin},
};
use bin::Bin;
use cache::Cache;
use class::{CLASSES, GRANULE, NOTHING};
use core::{
    alloc::Layout,
    ffi::CStr,
    fmt,
    hint::cold_path,
    ptr::{NonNull, null_mut},
    sync::atomic::AtomicUsize,
};
use hardened::Hardened;
use local::Caches;
use maintenance::Sweep;
use map::Map;
use parts::{Mark, Parts};
use provider_calls::Calls;
use segment::SegmentLink;
use slab::{Handle, Notes};
use space::{IndexRef, Space};

/// The name of a heap's reservations, where the host keeps names.
const NAME: &CStr = c"hostmem: heap";

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Where it starts.
    pub addr: usize,
    /// How many bytes of it may be used: at least as many as were asked for.
    pub len: usize,
}

/// A heap on memory from `P`, with metadata from `M`. `R` is how a thread waits for a
/// contended lock.
///
/// It is a value: several coexist, and dropping one gives all its memory back. All calls may be
/// made from any thread; those of a [`LocalHeap`] are faster. In a signal handler, which could have
/// interrupted the holder of a lock, [`Heap::owns`], [`Heap::block_of`], [`Heap::usable_size`],
/// [`Heap::try_alloc`], [`Heap::try_alloc_zeroed`], [`Heap::try_realloc`] and [`Heap::try_free`]
/// may be called, and no other.
pub struct Heap<P: PageProvider + Copy, M: PageProvider + Copy = P, R: RawMutex = Spin> {
    provider: P,
    metadata: M,
    config: HeapConfig,
    page: PageSize,
    map: Map,
    /// Bytes of huge blocks that are live.
    huge_bytes: AtomicUsize,
    /// The slab that the page map names for granules which are in no other.
    nothing: Handle,
    /// The parts that locks guard.
    parts: Renewable<Parts<R>>,
    /// How a thread is marked that holds one, if the heap lies in a static.
    mark: Option<Mark>,
    /// All segments that were ever made.
    first_segment: SegmentLink,
    /// All caches that were ever made.
    first_cache: AtomicPtr<Cache>,
    /// Ticks: threads that see another one bring back what they have cached.
    ticks: AtomicU32,
    /// When the last one was.
    ticked: AtomicU64,
    /// Trims: threads that see another one bring back what they have cached, and trim as well.
    trims: AtomicU32,
    /// Whether the last one was [`Level::Deep`].
    trim_deep: AtomicBool,
    is_sweeping: AtomicBool,
    /// Bytes that were ever asked for by calls without a handle.
    requested: AtomicU64,
    /// Blocks that were freed by calls that could not wait.
    deferred: AtomicPtr<u8>,
    /// Bytes that a forked child could not reuse.
    abandoned: AtomicUsize,
    calls: Calls,
    /// Above the first level of hardening.
    hardened: Option<Hardened>,
    arena: Renewable<Arena<M, R>>,
}

impl<P: PageProvider + Copy + Default, M: PageProvider + Copy + Default, R: RawMutex>
    Heap<P, M, R>
{
    /// Makes a heap on providers that need no arguments, such as an operating system's.
    ///
    /// # Errors
    ///
    /// The errors of [`Heap::on`].
    pub fn new(config: HeapConfig) -> Result<Self, HeapError> {
        Self::on(P::default(), M::default(), config)
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Makes a heap on memory from `provider`, with metadata from `metadata`. Reserves metadata,
    /// but no memory for blocks yet.
    ///
    /// # Errors
    ///
    /// [`HeapError::Config`] for a configuration with a value out of its range;
    /// [`HeapError::PagesTooLarge`]; [`HeapError::TooSmall`] where the provider says that fewer
    /// addresses are [left](PageProvider::left) than are needed: [`HeapConfig::least_window`]
    /// bytes; [`HeapError::Metadata`] where the metadata cannot be had.
    pub fn on(provider: P, metadata: M, config: HeapConfig) -> Result<Self, HeapError> {
        const { assert!(size_of::<Lock<Bin, R>>() <= config::BIN || cfg!(all(test, loom))) };
        let page = provider.page_size();
        if let Some(wrong) = WrongSetting::of(&config) {
            return Err(HeapError::Config(wrong));
        }
        if page.bytes() > GRANULE {
            return Err(HeapError::PagesTooLarge);
        }
        let needed = config.least_window();
        let left = provider.left(Resource::Addresses);
        if left.is_some_and(|left| left < needed) {
            return Err(HeapError::TooSmall { needed });
        }
        let arena = Arena::new(metadata, config.metadata_bytes()).map_err(HeapError::Metadata)?;
        let bins = arena
            .alloc_slice(config.shard_count() * CLASSES, || Lock::new(Bin::new()))
            .map_err(HeapError::Metadata)?;
        let huge = IndexRef::new(&arena, Intervals::new()).map_err(HeapError::Metadata)?;
        let nothing = slab::make(&arena, NOTHING, 1, Notes::None)?;
        let map = Map::new(&provider, &metadata, &arena)?;
        let hardened = hardened::make(&provider, &metadata, &arena, &config, nothing.exposed())?;
        Ok(Self {
            map,
            huge_bytes: AtomicUsize::new(0),
            nothing,
            parts: Renewable::new(Parts {
                bins,
                space: Lock::new(Space::new(config.segment_granules(), huge, 0)),
                caches: Lock::new(Caches::new()),
                sweep: Lock::new(Sweep::new()),
                huge,
                era: 0,
            }),
            mark: None,
            first_segment: SegmentLink::none(),
            first_cache: AtomicPtr::new(null_mut()),
            ticks: AtomicU32::new(0),
            ticked: AtomicU64::new(0),
            requested: AtomicU64::new(0),
            deferred: AtomicPtr::new(null_mut()),
            abandoned: AtomicUsize::new(0),
            trims: AtomicU32::new(0),
            trim_deep: AtomicBool::new(false),
            is_sweeping: AtomicBool::new(false),
            calls: Calls::new(),
            hardened,
            provider,
            metadata,
            config,
            page,
            arena: Renewable::new(arena),
        })
    }

    /// Returns the configuration.
    pub const fn config(&self) -> &HeapConfig {
        &self.config
    }

    /// Says whether `addr`, any address at all, lies in the heap's memory, freed blocks included.
    /// Takes no lock, touches nothing there, and may be called from a signal handler.
    #[inline]
    pub fn owns(&self, addr: usize) -> bool {
        self.map.owns(addr) || self.parts().huge.find(addr).is_some()
    }

    /// Finds the live block around `addr`, any address at all. Takes no lock, touches nothing
    /// there, and may be called from a signal handler.
    ///
    /// The answer is exact for a block that is not being freed at that moment. Blocks that threads
    /// have cached are free.
    #[inline]
    pub fn block_of(&self, addr: usize) -> Option<BlockInfo> {
        let info = self.live_around(addr)?;
        (addr.wrapping_sub(info.addr) < info.len.max(1)).then_some(info)
    }

    /// Returns the live block around an address, and what may be used of it, which may end before
    /// the address.
    #[inline]
    fn live_around(&self, addr: usize) -> Option<BlockInfo> {
        if !self.is_hardened()
            && let Some(spot) = self.map.block(addr)
        {
            let (addr, len) = spot.slab.around_spot(&spot)?;
            return Some(BlockInfo { addr, len });
        }
        cold_path();
        let slab = self.slab_at(addr)?;
        let (start, size) = slab.around(addr)?;
        let len = slab.usable(start, size);
        Some(BlockInfo { addr: start, len })
    }

    /// Returns the slab that has the addresses around one, any address at all.
    #[inline]
    fn slab_at(&self, addr: usize) -> Option<Handle> {
        self.map.slab(addr).or_else(|| self.huge_at(addr))
    }

    /// Frees metadata that changes its size.
    ///
    /// # Safety
    ///
    /// Those of [`Arena::free`], but that it may have come from an arena of before a fork.
    unsafe fn free_metadata(&self, memory: NonNull<u8>, layout: Layout) {
        let arena = self.arena();
        // Memory of other arenas is never freed: a fork may have left those half changed.
        if self.arena.is_first(arena) || arena.holds(memory.addr().get()) {
            // SAFETY: `free` asks for memory of this arena with this layout that is used no more:
            // the caller says the last two, and this arena holds it.
            unsafe { arena.free(memory, layout) };
        }
    }

    /// Returns where metadata comes from.
    fn arena(&self) -> &Arena<M, R> {
        self.arena.current()
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Drop for Heap<P, M, R> {
    fn drop(&mut self) {
        // Handles borrow the heap, so there are none; blocks are given up with it, as their users
        // promised when they used them no longer than it lives.
        let parts = self.parts.current_mut();
        let (huge, era) = (parts.huge, parts.era);
        let mut space = core::mem::replace(parts.space.get_mut(), Space::new(1, huge, era));
        self.drop_kept(&mut space, false);
        // At a host's limit of mappings what lies between others may go only when those have gone.
        while self.release_all(&mut space) {}
        // SAFETY: the map came from this provider, these are its leaves, and no other code has the
        // heap any more.
        unsafe { self.map.release(&self.metadata, &space.leaves) };
        self.parts.dispose(&self.metadata);
        self.arena.dispose(&self.metadata);
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> fmt::Debug for Heap<P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
