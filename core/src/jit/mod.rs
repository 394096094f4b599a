//! Executable memory for many small pieces of code.
//!
//! A [`JitAllocator`] maps blocks twice, writable and executable, cuts them into granules and keeps
//! them by bitmaps outside the executable memory:
//!
//! ```text
//!   alloc(size) ─► shard ─► pool: first block ─► first word ─► free run ─► Span { rx, rw, len }
//!                   (lock)        └─ none: map_dual ─► a new block, twice as large as the last
//!   write(span)  ─► bytes through rw ─► cache maintenance on rx ─► a barrier where code was
//!   query(pc)    ─► index ─► bits ─► the whole span, without a lock
//! ```
//!
//! A request comes by these files, in this order:
//!
//! | file | what it has |
//! |---|---|
//! | `config` | what can be asked for: `options`, and what follows from them, `read` |
//! | `alloc`, `placed` | the calls that take memory; those that say where |
//! | `shard`, `pool` | what one lock guards; the blocks of one granularity, and their bins |
//! | `block` | one mapping cut into granules: the lock's part of it, runs, spots |
//! | `tree`, `class` | where the long runs of a block are; lengths of runs |
//! | `bits` | the bitmaps of a block: stops, spans, runs |
//! | `mapping`, `views` | how blocks come and go, and the ways to map one; a block's mapping |
//! | `ahead` | how long a block is beyond its first span |
//! | `tables` | tables in the arena that are all zero at first |
//! | `index` | the blocks by address, readable without a lock |
//! | `span`, `error` | tokens and errors |
//! | `write`, `batch`, `patch` | the calls that write code: one, many, code that may be running |
//! | `toggle` | pages that are writable for the time of a write |
//! | `cores` | when other cores see new code |
//! | `find`, `release` | which block and span a call means; the calls that give memory back |
//! | `tag`, `numbers`, `spans` | what spans carry; spans by number; all spans, in order |
//! | `retire` | release that waits until no thread runs the code |
//! | `maintenance` | calls about all blocks: listing, resets, giving memory back |
//! | `fork` | what happens around a fork |
//! | `range` | one long range that its owner fills without spans |
//! | `runtime`, `func`, `cell` | functions: with fix-ups, called by type, replaced as they run |
//!
//! Locks nest as: a retire queue's, a shard's, then the one of all changes to the mappings, then
//! the arena's.

mod ahead;
mod alloc;
mod batch;
mod bits;
mod block;
mod cell;
mod class;
mod config;
mod cores;
mod error;
mod find;
mod fork;
mod func;
mod index;
mod maintenance;
mod mapping;
mod numbers;
mod patch;
mod placed;
mod pool;
mod range;
mod release;
mod retire;
mod runtime;
mod shard;
mod span;
mod spans;
mod tables;
mod tag;
mod toggle;
mod tree;

mod views;
mod write;

pub use batch::Batch;
pub use cell::FuncCell;
pub use config::{Fill, JitConfig, LargePages, Mapping, SyncCores};
pub use cores::Barrier;
pub use error::JitError;
pub use func::{Func, FuncPtr};
pub use maintenance::{CodeBlock, Reset};
pub use numbers::Numbered;
pub use patch::PatchWord;
pub use range::{CodeRange, CodeRangeConfig};
pub use retire::{
    Executor, Forking, Reclaimed, Releases, RetireConfig, RetireQueue, RetireStatistics,
};
pub use runtime::{AddError, Function, JitRuntime, ReleaseError};
pub use span::{Refused, Span, SpanInfo};
pub use spans::Spans;
pub use tag::{LiveSpan, Words};
pub use write::SpanWriter;

use crate::{
    arch,
    arena::Arena,
    page::PageSize,
    provider::{Capabilities, CoreSync, DualError, DualMapProvider, Leave, PageProvider},
    sync::{Lock, RawMutex, Spin},
};
use ahead::FullWindow;
use block::Block;
use config::{POOLS, SHARDS};
use core::{
    fmt, ptr,
    sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering},
};
use cores::Cores;
use fork::Snapshot;
use index::Index;
use mapping::Kind;
use shard::Shards;
use span::LAST_OWNER;
use toggle::Toggling;
use views::Views;

/// Numbers allocators, so that no span is mistaken for another allocator's.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Returns a number that no allocator had before; `None` after 2^40 of them.
fn next_id() -> Option<u64> {
    let next = |id: u64| (id < LAST_OWNER).then_some(id + 1);
    NEXT_ID
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .ok()
}

/// What a [`JitAllocator`] asks of the provider of code.
pub trait CodeProvider: PageProvider + DualMapProvider + CoreSync + Copy {}

impl<P: PageProvider + DualMapProvider + CoreSync + Copy> CodeProvider for P {}

/// What a [`JitAllocator`] holds, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JitStatistics {
    /// Blocks mapped.
    pub blocks: usize,
    /// Live spans.
    pub spans: usize,
    /// Bytes of live spans, in whole granules.
    pub used: usize,
    /// Bytes mapped for code, once for both views.
    pub reserved: usize,
    /// Bytes of metadata committed, but for words, groups and numbers.
    pub metadata: usize,
    /// Bytes committed for the words, groups and numbers of spans.
    pub tags: usize,
}

impl JitStatistics {
    /// Returns the bytes that are mapped and belong to no span.
    #[must_use]
    pub const fn unused(&self) -> usize {
        self.reserved - self.used
    }
}

/// Executable memory from `P`, with metadata from `M`. `R` is how a
/// thread waits for a contended lock.
///
/// All calls may be made from any thread. None but [`JitAllocator::query`] may be made from a
/// signal handler: it could have interrupted the holder of a lock.
pub struct JitAllocator<P: CodeProvider, M: PageProvider + Copy = P, R = Spin> {
    /// What tokens carry; another one after a reset.
    id: AtomicU64,
    config: JitConfig,
    page: PageSize,
    /// Whether other cores are synchronized, one of [`Syncs`].
    syncs_cores: AtomicU8,
    /// Whether spans are handed out lowest first.
    ordered: bool,
    cores: Cores<R>,
    provider: P,
    metadata: M,
    index: Index,
    kind: Kind,
    /// Which pages of blocks that are mapped once are writable now.
    toggling: Lock<Toggling, R>,
    /// The empty block that is kept of each pool, or null. Written under the lock of that block's
    /// shard.
    kept: [AtomicPtr<Block>; POOLS],
    shards: Shards<R>,
    mappings: Lock<Mappings, R>,
    arena: Arena<M, R>,
    /// The last number of a span.
    numbers: AtomicU32,
    /// What spans carry, which is counted apart.
    tag_arena: Arena<M, R>,
}

/// What is known of a host that is to synchronize cores.
struct Syncs;

impl Syncs {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;
}

/// What the lock of all changes to the mappings guards, beside the index and the arena.
struct Mappings {
    /// Bytes mapped for code.
    reserved: usize,
    /// Why there are no dual mappings, where something else was chosen instead.
    refused: Option<DualError>,
    /// Where blocks had no place.
    full: FullWindow,
    snapshot: Option<Snapshot>,
}

impl<P: CodeProvider + Default, M: PageProvider + Copy + Default, R: RawMutex>
    JitAllocator<P, M, R>
{
    /// Makes an allocator on providers that need no arguments, such as an operating system's.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::on`].
    pub fn new(config: JitConfig) -> Result<Self, JitError> {
        Self::on(P::default(), M::default(), config)
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Makes an allocator of executable memory from `provider`, with metadata from `metadata`. Maps
    /// no code yet, and takes no memory for metadata.
    ///
    /// # Errors
    ///
    /// [`JitError::Config`] for a configuration with a value out of its range;
    /// [`JitError::Unsupported`] for a provider without a capability that the configuration needs,
    /// and on a CPU without known cache maintenance; [`JitError::TooManyAllocators`];
    /// [`JitError::Metadata`] where no page ends behind the bound of the metadata.
    pub fn on(provider: P, metadata: M, config: JitConfig) -> Result<Self, JitError> {
        let mut needed = Capabilities::empty();
        needed.set(Capabilities::LANDING_PADS, config.wants_landing_pads());
        needed.set(Capabilities::EXEC_ONLY_WHERE_ASKED, config.is_strict());
        let sync = config.sync_cores_policy();
        needed.set(Capabilities::CORE_SYNC, sync == SyncCores::Required);
        // The rest is not asked for: some answers cost system calls.
        let wanted = needed | Kind::looked_at(config.mapping_wanted());
        let able = provider.capabilities_among(wanted);
        config.check().map_err(JitError::Config)?;
        let kind = Kind::choose(config.mapping_wanted(), able).ok_or(JitError::Unsupported)?;
        if !able.contains(needed) || !arch::SUPPORTED {
            return Err(JitError::Unsupported);
        }
        Ok(Self {
            id: AtomicU64::new(next_id().ok_or(JitError::TooManyAllocators)?),
            page: provider.page_size(),
            syncs_cores: AtomicU8::new(match sync {
                SyncCores::Required => Syncs::YES,
                SyncCores::Never => Syncs::NO,
                _ => Syncs::UNKNOWN,
            }),
            ordered: config.is_ordered(),
            cores: Cores::new(),
            index: Index::new(),
            kind,
            toggling: Lock::new(Toggling::NONE),
            kept: [const { AtomicPtr::new(ptr::null_mut()) }; POOLS],
            shards: Shards::new(
                config.block_size_bytes(),
                if config.is_ordered() {
                    1
                } else {
                    config.max_shards()
                },
            ),
            mappings: Lock::new(Mappings {
                reserved: 0,
                refused: None,
                full: FullWindow::NONE,
                snapshot: None,
            }),
            arena: Arena::new(metadata, config.metadata_bytes()).map_err(JitError::Metadata)?,
            tag_arena: Arena::new(metadata, config.metadata_bytes()).map_err(JitError::Metadata)?,
            numbers: AtomicU32::new(0),
            config,
            provider,
            metadata,
        })
    }

    /// Says whether other cores are made to see code that replaces code. See [`SyncCores`].
    pub fn syncs_cores(&self) -> bool {
        match self.syncs_cores.load(Ordering::Relaxed) {
            Syncs::YES => true,
            Syncs::NO => false,
            _ => self.find_syncs_cores(),
        }
    }

    /// Asks the host, which programs that never replace code need not.
    #[cold]
    fn find_syncs_cores(&self) -> bool {
        let able = self.provider.capabilities_among(Capabilities::CORE_SYNC);
        let syncs = able.contains(Capabilities::CORE_SYNC);
        let known = if syncs { Syncs::YES } else { Syncs::NO };
        self.syncs_cores.store(known, Ordering::Relaxed);
        syncs
    }

    /// Returns the configuration.
    pub const fn config(&self) -> &JitConfig {
        &self.config
    }

    /// Returns how blocks are mapped: what the configuration asked for, or what [`Mapping::Auto`]
    /// became; with it, why the host refused dual mappings, if it was tried and did.
    pub fn mapping(&self) -> (Mapping, Option<DualError>) {
        let refused = self.mappings.lock().refused;
        (self.kind.mapping(self.config.mapping_wanted()), refused)
    }

    /// Finds the live span around `addr`, any address at all, without a lock and without touching
    /// what is there. May be called from a signal handler.
    ///
    /// The answer is exact for a span that is not being released or shrunk at that moment.
    #[inline]
    pub fn query(&self, addr: usize) -> Option<SpanInfo> {
        self.index.query(addr).map(|found| found.info)
    }

    /// Returns what is held now. Threads that allocate meanwhile are counted before or after.
    pub fn statistics(&self) -> JitStatistics {
        let mut total = JitStatistics::default();
        for shard in self.shards.all() {
            let part = shard.lock().totals;
            total.blocks += part.blocks;
            total.spans += part.spans;
            total.used += part.used;
            total.reserved += part.reserved;
        }
        let _mappings = self.mappings.lock();
        total.metadata = self.arena.committed_bytes();
        total.tags = self.tag_arena.committed_bytes();
        total
    }

    #[inline]
    fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    #[inline]
    fn check_owner(&self, span: &Span) -> Result<(), JitError> {
        if span.owner() == self.id() {
            Ok(())
        } else {
            Err(JitError::NotOwned)
        }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R> Drop for JitAllocator<P, M, R> {
    fn drop(&mut self) {
        for block in self.index.blocks() {
            // SAFETY: the arena is a field of self; an exclusive borrow of self stands for all
            // locks, and no other Held is alive.
            let mut held = unsafe { Block::held(block) };
            let orphan = held.block.mode() == block::Mode::Orphan;
            let Some(views) = held.take_views().filter(|_| !orphan) else {
                continue;
            };
            // An error has no receiver: the views stay mapped, which wastes memory and no more.
            match views {
                // SAFETY: the mapping came from this provider; running code of a dropped allocator
                // is what callers of that code promised not to do.
                Views::Dual(mapping) => unsafe {
                    let _ = self.provider.unmap_dual(mapping, Leave::Hole);
                },
                // SAFETY: the range was reserved from this provider; running code of a dropped
                // allocator is what callers of that code promised not to do.
                Views::Single(range, _) => unsafe {
                    let _ = self.provider.release(range);
                },
            }
        }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R> fmt::Debug for JitAllocator<P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JitAllocator")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
