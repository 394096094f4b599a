//! Executable memory for many small pieces of code.
//!
//! A [`JitAllocator`] maps blocks twice, writable and executable, cuts them into granules and keeps
//! them by bitmaps outside the executable memory:
//!
//! ```text
//!   alloc(size) ─► block with a free run ─► used/stop bits ─► Span { rx, rw, len }
//!                       └─ none: map_dual ─► a new block, twice as large as the last
//!   write(span)  ─► bytes through rw ─► cache maintenance on rx ─► barrier if code was there before
//!   query(pc)    ─► index ─► bits ─► the whole span, without a lock
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `config` | what can be asked for |
//! | `bits` | the bitmaps of a block, and the order of their stores |
//! | `block` | one dual mapping cut into granules |
//! | `index` | the blocks by address, readable without a lock |
//! | `fork` | what happens around a fork |
//! | `span`, `error` | tokens and errors |

mod bits;
mod block;
mod config;
mod error;
mod fork;
mod index;
mod span;

pub use config::{JitConfig, SyncCores};
pub use error::JitError;
pub use span::{Refused, Span, SpanInfo};

use crate::{
    arch,
    arena::Arena,
    page::PageSize,
    provider::{
        Capabilities, CoreSync, DualError, DualMapProvider, DualMapping, DualRequest, Error,
        ErrorKind, Leave, PageProvider, PageWish, Target,
    },
    sync::{Lock, RelaxStrategy, Spin},
};
use bits::{Bits, words_for};
use block::{Block, Mode};
use core::{
    fmt,
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};
use fork::Snapshot;
use index::Index;

/// Capacities of bitmaps: powers of two words, up to what a 64-bit size can be.
const CLASSES: usize = usize::BITS as usize;

/// Numbers allocators, so that no span is mistaken for another allocator's.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What a [`JitAllocator`] holds, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitStatistics {
    /// Blocks mapped.
    pub blocks: usize,
    /// Live spans.
    pub spans: usize,
    /// Bytes of live spans, in whole granules.
    pub used: usize,
    /// Bytes mapped for code, once for both views.
    pub reserved: usize,
    /// Bytes of metadata committed.
    pub metadata: usize,
}

/// Executable memory from `P`, with metadata from `M`. Waiting threads do `R`.
///
/// All calls may be made from any thread. None but [`JitAllocator::query`] may be made from a
/// signal handler: it could have interrupted the holder of the lock.
pub struct JitAllocator<P, M = P, R = Spin>
where
    P: PageProvider + DualMapProvider + CoreSync + Copy,
    M: PageProvider + Copy,
{
    id: u64,
    config: JitConfig,
    page: PageSize,
    syncs_cores: bool,
    provider: P,
    metadata: M,
    index: Index,
    state: Lock<State, R>,
    arena: Arena<M, R>,
}

/// What the lock guards, beside the blocks and all writing to index and bitmaps.
struct State {
    /// The length of the next block.
    next_len: usize,
    /// Blocks without live spans that are kept mapped: at most one.
    empty: Option<NonNull<Block>>,
    /// Unmapped blocks by the capacity of their bitmaps.
    unmapped: [Option<NonNull<Block>>; CLASSES],
    totals: JitStatistics,
    snapshot: Option<Snapshot>,
}

// SAFETY: State reaches blocks by pointer; they live in the arena beside it, belong to this
// allocator alone, and are not tied to a thread.
unsafe impl Send for State {}

impl<P, M, R> JitAllocator<P, M, R>
where
    P: PageProvider + DualMapProvider + CoreSync + Copy,
    M: PageProvider + Copy,
    R: RelaxStrategy,
{
    /// Makes an allocator. Maps no code yet, but reserves the metadata.
    ///
    /// # Errors
    ///
    /// [`JitError::Config`] for a configuration with a value out of range, for a provider without
    /// [`Capabilities::DUAL`] or another capability that the configuration needs, and on a CPU
    /// without known cache maintenance;
    /// [`JitError::Metadata`] where the metadata cannot be reserved.
    pub fn new(provider: P, metadata: M, config: JitConfig) -> Result<Self, JitError> {
        let mut needed = Capabilities::DUAL;
        needed.set(Capabilities::LANDING_PADS, config.wants_landing_pads());
        let required = config.sync_cores_policy() == SyncCores::Required;
        needed.set(Capabilities::CORE_SYNC, required);
        let able = provider.capabilities().contains(needed) && arch::SUPPORTED;
        if !config.is_valid() || !able {
            return Err(JitError::Config);
        }
        let state = State {
            next_len: config.block_size_bytes(),
            empty: None,
            unmapped: [None; CLASSES],
            totals: JitStatistics::default(),
            snapshot: None,
        };
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            page: provider.page_size(),
            syncs_cores: config.sync_cores_policy() != SyncCores::Never
                && provider.capabilities().contains(Capabilities::CORE_SYNC),
            index: Index::new(config.granularity_bytes()),
            state: Lock::new(state),
            arena: Arena::new(metadata, config.metadata_bytes()).map_err(JitError::Metadata)?,
            config,
            provider,
            metadata,
        })
    }

    /// Says whether other cores are made to see code that replaces code. See [`SyncCores`].
    pub const fn syncs_cores(&self) -> bool {
        self.syncs_cores
    }

    /// Returns the configuration.
    pub const fn config(&self) -> &JitConfig {
        &self.config
    }

    /// Allocates at least `size` bytes of executable memory, aligned to a granule. Its contents are
    /// undefined until it is written.
    ///
    /// # Errors
    ///
    /// [`JitError::InvalidSize`] for zero or an overflowing size, [`JitError::Map`] where a new
    /// block was needed and the host gave none, [`JitError::Metadata`] without metadata.
    pub fn alloc(&self, size: usize) -> Result<Span, JitError> {
        let need = self.granules(size).ok_or(JitError::InvalidSize)?;
        let mut state = self.state.lock();
        let (block, span) = match self.allocate_in_blocks(need) {
            Some(found) => found,
            None => self.allocate_in_new_block(&mut state, need)?,
        };
        if state.empty == Some(block) {
            state.empty = None;
        }
        state.totals.spans += 1;
        state.totals.used += span.len() * self.config.granularity_bytes();
        // SAFETY: the lock is held, so the block is not changed meanwhile.
        let block = unsafe { block.as_ref() };
        Ok(Span::new(self.describe(block, &span), self.id))
    }

    /// Returns the granules that `size` bytes take; `None` for zero and for what no address space
    /// holds.
    fn granules(&self, size: usize) -> Option<usize> {
        let granularity = self.config.granularity_bytes();
        let most = isize::MAX.unsigned_abs() / 2;
        (size != 0 && size <= most).then(|| size.div_ceil(granularity))
    }

    fn describe(&self, block: &Block, span: &Range<usize>) -> SpanInfo {
        SpanInfo {
            rx: block.rx(span.start),
            rw: block.rw(span.start),
            len: span.len() * self.config.granularity_bytes(),
        }
    }

    /// Takes the first run that fits, in the lowest block that has one. The lock is held.
    fn allocate_in_blocks(&self, need: usize) -> Option<(NonNull<Block>, Range<usize>)> {
        self.index.blocks().find_map(|mut block| {
            // SAFETY: the lock is held; no other reference to the block is alive.
            let span = unsafe { block.as_mut() }.allocate(need)?;
            Some((block, span))
        })
    }

    /// Maps a block and takes its first run. The lock is held.
    fn allocate_in_new_block(
        &self,
        state: &mut State,
        need: usize,
    ) -> Result<(NonNull<Block>, Range<usize>), JitError> {
        let mut block = self.map_block(state, need)?;
        // SAFETY: the lock is held; no other reference to the block is alive.
        let span = unsafe { block.as_mut() }.allocate(need);
        // A fresh block has room for what it was made for.
        Ok((block, span.ok_or(JitError::InvalidSize)?))
    }

    /// Maps a block that has room for `need` granules. The lock is held.
    fn map_block(&self, state: &mut State, need: usize) -> Result<NonNull<Block>, JitError> {
        let granularity = self.config.granularity_bytes();
        let bytes = need.checked_add(1).and_then(|n| n.checked_mul(granularity));
        let bytes = bytes
            .and_then(|n| self.page.round_up(n))
            .ok_or(JitError::InvalidSize)?;
        let len = self.config.block_len(bytes, state.next_len, self.page);
        let len = len.ok_or(JitError::InvalidSize)?;
        let words = Bits::MAPS * words_for(len / granularity);
        self.index
            .make_room(&self.arena)
            .map_err(JitError::Metadata)?;
        let mut block = self
            .unmapped_block(state, words)
            .map_err(JitError::Metadata)?;
        let mapping = match self.map_at_most(len, bytes) {
            Ok(mapping) => mapping,
            Err(error) => {
                self.keep_unmapped(state, block);
                return Err(JitError::Map(error));
            }
        };
        let got = mapping.len_bytes();
        // SAFETY: the lock is held; no other reference to the block is alive.
        unsafe { block.as_mut() }.map(mapping);
        self.index.insert(block);
        state.totals.blocks += 1;
        state.totals.reserved += got;
        // Blocks double. One that was made larger for its first span, or smaller for want of
        // room, says nothing about the next.
        if got == len && len <= state.next_len.max(self.page.bytes()) {
            state.next_len = (state.next_len * 2).min(self.config.max_block_size_bytes());
        }
        Ok(block)
    }

    /// Maps `len` bytes twice; where there is no room for that, as in a window full of foreign
    /// mappings, half as much and so on down to `least`.
    fn map_at_most(&self, len: usize, least: usize) -> Result<DualMapping, DualError> {
        let mut len = len;
        loop {
            let request = DualRequest {
                len,
                rw: Target::Find(self.config.rw_placement()),
                rx: Target::Find(self.config.rx_placement()),
                pages: PageWish::Base,
                landing_pads: self.config.wants_landing_pads(),
                fork: self.config.fork_policy(),
                name: Some(c"hostmem: jit"),
            };
            // SAFETY: neither target is a range of ours.
            match unsafe { self.provider.map_dual(&request) } {
                Err(error) if error.kind() == ErrorKind::Exhausted && len > least => {
                    len = self.page.round_down(len / 2).max(least);
                }
                result => return result,
            }
        }
    }

    /// Finds or makes a block whose bitmaps have at least `words` words. The lock is held.
    fn unmapped_block(&self, state: &mut State, words: usize) -> Result<NonNull<Block>, Error> {
        let words = words
            .checked_next_power_of_two()
            .ok_or(ErrorKind::InvalidArgument)?;
        let list = &mut state.unmapped[class_of(words)];
        if let Some(mut block) = *list {
            // SAFETY: the lock is held; no other reference to the block is alive.
            *list = unsafe { block.as_mut() }.next.take();
            return Ok(block);
        }
        let words = self.arena.alloc_slice(words, || AtomicU64::new(0))?;
        // Should this fail, the words are lost to the arena's bound, and to nothing else.
        self.arena
            .alloc_value(Block::unmapped(self.config.granularity_bytes(), words))
    }

    /// Keeps a block that has no mapping for the next one of its capacity. The lock is held.
    fn keep_unmapped(&self, state: &mut State, mut block: NonNull<Block>) {
        // SAFETY: the lock is held; no other reference to the block is alive.
        let unmapped = unsafe { block.as_mut() };
        let list = &mut state.unmapped[class_of(unmapped.capacity())];
        unmapped.next = list.replace(block);
    }

    /// Writes `bytes` at `offset` in `span` through the writable view and publishes them, so that
    /// they can be executed. `bytes` lies outside this allocator's memory.
    ///
    /// # Errors
    ///
    /// [`JitError::OutOfBounds`] and [`JitError::NotOwned`] with nothing written;
    /// [`JitError::SyncCores`] with everything written, but another core may still run what it
    /// had fetched.
    pub fn write(&self, span: &mut Span, offset: usize, bytes: &[u8]) -> Result<(), JitError> {
        if span.owner() != self.id {
            return Err(JitError::NotOwned);
        }
        // SAFETY: the token owns the span, and `&mut` makes this the only writer.
        unsafe { self.write_at(span.rx().addr().get(), offset, bytes) }
    }

    /// Writes as [`JitAllocator::write`] does, to the span that starts at `rx`.
    ///
    /// # Errors
    ///
    /// As of [`JitAllocator::write`]; [`JitError::NotLive`] and [`JitError::Interior`] where no
    /// span starts at `rx`.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, the caller owns it, nobody else writes those bytes now, and nobody
    /// executes them unless any mix of old and new bytes does no harm.
    pub unsafe fn write_at(&self, rx: usize, offset: usize, bytes: &[u8]) -> Result<(), JitError> {
        let reused = {
            let _state = self.state.lock();
            let (block, span) = self.live_span(rx)?;
            // SAFETY: the lock is held, so the block is not changed meanwhile.
            let block = unsafe { block.as_ref() };
            let len = span.len() * self.config.granularity_bytes();
            if offset.checked_add(bytes.len()).is_none_or(|end| end > len) {
                return Err(JitError::OutOfBounds);
            }
            if !block.writable() {
                return Err(JitError::ReadOnly);
            }
            // SAFETY: the bytes lie in the span, and the caller owns it.
            unsafe { self.publish(block, span.start, offset, bytes) }
        };
        if reused && self.syncs_cores {
            return self.provider.sync_cores().map_err(JitError::SyncCores);
        }
        Ok(())
    }

    /// Copies and publishes; says whether code was published there before. The lock is held.
    ///
    /// # Safety
    ///
    /// The bytes fit behind `offset` in the live span that starts at `granule`, whose owner the
    /// caller is, and the block is writable.
    unsafe fn publish(&self, block: &Block, granule: usize, offset: usize, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return false;
        }
        // SAFETY: offset lies within the span, by the caller's promise.
        let rw = unsafe { block.rw(granule).add(offset) };
        // SAFETY: offset lies within the span, by the caller's promise.
        let rx = unsafe { block.rx(granule).add(offset) };
        // SAFETY: copying needs a source and a destination that do not overlap.
        // - bytes is a live slice outside the views, by write's contract;
        // - the span's bytes behind rw are writable and the caller's alone.
        unsafe { rw.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        // SAFETY: the same bytes, through the executable view, which is mapped and readable.
        unsafe { arch::publish_code(rx.as_ptr(), bytes.len()) };
        let granularity = self.config.granularity_bytes();
        let first = granule + offset / granularity;
        let touched = first..granule + (offset + bytes.len()).div_ceil(granularity);
        let reused = block.bits().seen.any(touched.clone());
        block.bits().seen.set(touched, true);
        reused
    }

    /// Finds the live span that starts at `rx`. The lock is held.
    fn live_span(&self, rx: usize) -> Result<(NonNull<Block>, Range<usize>), JitError> {
        let block = self
            .index
            .block_at(rx)
            .ok_or_else(|| self.why_not_found(rx))?;
        // SAFETY: the lock is held, so the block is not changed meanwhile.
        let found = unsafe { block.as_ref() };
        let (granule, aligned) = found.granule_at(rx);
        let span = found.bits().span_around(granule).ok_or(JitError::NotLive)?;
        if span.start == granule && aligned {
            Ok((block, span))
        } else {
            Err(JitError::Interior)
        }
    }

    /// Tells padding from foreign addresses. The lock is held.
    fn why_not_found(&self, addr: usize) -> JitError {
        let padding = self.index.blocks().any(|block| {
            // SAFETY: the lock is held, so the block is not changed meanwhile.
            let mapping = unsafe { block.as_ref() }.mapping();
            mapping.is_some_and(|m| m.rx().contains(addr))
        });
        if padding {
            JitError::NotLive
        } else {
            JitError::NotOwned
        }
    }

    /// Gives a span back.
    ///
    /// Nobody may execute it any more, which only its owner can know; releasing is safe because
    /// executing is not.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], with the span, where it belongs to another allocator, or to a block
    /// that a fork took away.
    #[expect(
        clippy::result_large_err,
        reason = "the token comes back, and nothing here can box it"
    )]
    pub fn release(&self, span: Span) -> Result<(), Refused> {
        let result = if span.owner() == self.id {
            // SAFETY: the token owns the span.
            unsafe { self.release_at(span.rx().addr().get()) }
        } else {
            Err(JitError::NotOwned)
        };
        result.map_err(|error| Refused { span, error })
    }

    /// Gives the span that starts at `rx` back.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], [`JitError::NotLive`] or [`JitError::Interior`] where no span starts
    /// at `rx`; nothing changes then.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, the caller owns it, and no token of it is used again.
    pub unsafe fn release_at(&self, rx: usize) -> Result<(), JitError> {
        let mut state = self.state.lock();
        let (mut at, span) = self.live_span(rx)?;
        state.totals.spans -= 1;
        state.totals.used -= span.len() * self.config.granularity_bytes();
        // SAFETY: the lock is held; no other reference to the block is alive.
        let block = unsafe { at.as_mut() };
        block.free_tail(span, 0);
        if block.spans == 0 {
            self.retire_empty(&mut state, at);
        }
        Ok(())
    }

    /// Keeps an empty block or unmaps it. The lock is held.
    fn retire_empty(&self, state: &mut State, mut at: NonNull<Block>) {
        // SAFETY: the lock is held; no other reference to the block is alive.
        let block = unsafe { at.as_mut() };
        // One is kept, so that a span that comes and goes does not map and unmap. Not one that was
        // made larger for its only span.
        let ordinary = block.len_bytes() <= self.config.max_block_size_bytes();
        if block.mode == Mode::Open && state.empty.is_none() && ordinary {
            state.empty = Some(at);
            return;
        }
        if block.mode == Mode::Orphan {
            return self.lose(state, at);
        }
        let len = block.len_bytes();
        let Some(mapping) = block.take_mapping() else {
            return;
        };
        self.index.remove(at);
        // SAFETY: the mapping came from this provider, and no span of it is live.
        match unsafe { self.provider.unmap_dual(mapping, Leave::Hole) } {
            Ok(()) => {
                state.totals.blocks -= 1;
                state.totals.reserved -= len;
                self.keep_unmapped(state, at);
            }
            Err((mapping, error)) => self.put_back(state, at, mapping, error),
        }
    }

    /// Keeps a block that could not be unmapped. The lock is held.
    fn put_back(
        &self,
        state: &mut State,
        mut at: NonNull<Block>,
        mapping: DualMapping,
        error: Error,
    ) {
        // SAFETY: the lock is held; no other reference to the block is alive.
        let block = unsafe { at.as_mut() };
        let len = mapping.len_bytes();
        if error.kind() == ErrorKind::RangeLost {
            // The views are no longer ours: forget them.
            state.totals.blocks -= 1;
            state.totals.reserved -= len;
            self.keep_unmapped(state, at);
            return;
        }
        block.put_mapping(mapping);
        // The writable view may be gone already, so the block serves no more spans.
        block.mode = Mode::ReadOnly;
        self.index.insert(at);
    }

    /// Shrinks `span` to `new_len` bytes, rounded up to granules, returning the tail to its block.
    ///
    /// # Errors
    ///
    /// [`JitError::InvalidSize`] for zero, [`JitError::Grow`] where `new_len` takes more granules
    /// than the span has, [`JitError::NotOwned`] for another allocator's span.
    pub fn shrink(&self, span: &mut Span, new_len: usize) -> Result<(), JitError> {
        if span.owner() != self.id {
            return Err(JitError::NotOwned);
        }
        // SAFETY: the token owns the span.
        let len = unsafe { self.shrink_at(span.rx().addr().get(), new_len)? };
        span.set_len(len);
        Ok(())
    }

    /// Shrinks as [`JitAllocator::shrink`] does the span that starts at `rx`; returns its length.
    ///
    /// # Errors
    ///
    /// As of [`JitAllocator::shrink`]; [`JitError::NotLive`] and [`JitError::Interior`] where no
    /// span starts at `rx`.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, the caller owns it, and nobody uses its tail.
    pub unsafe fn shrink_at(&self, rx: usize, new_len: usize) -> Result<usize, JitError> {
        let keep = self.granules(new_len).ok_or(JitError::InvalidSize)?;
        let mut state = self.state.lock();
        let (mut block, span) = self.live_span(rx)?;
        let cut = span.len().checked_sub(keep).ok_or(JitError::Grow)?;
        if cut > 0 {
            // SAFETY: the lock is held; no other reference to the block is alive.
            unsafe { block.as_mut() }.free_tail(span, keep);
            state.totals.used -= cut * self.config.granularity_bytes();
        }
        Ok(keep * self.config.granularity_bytes())
    }

    /// Returns the whole live span around `pc`, an address in the executable view.
    ///
    /// Takes no lock, waits for nobody and does not touch what is at `pc`, so that any address may
    /// be asked about, from a signal handler too. Exact for a span that is not being released or
    /// shrunk at that moment.
    pub fn query(&self, pc: usize) -> Option<SpanInfo> {
        let found = self.index.query(pc)?;
        Some(SpanInfo {
            rx: found.rx,
            rw: found.rw,
            len: found.len,
        })
    }

    /// Returns what the allocator holds.
    pub fn statistics(&self) -> JitStatistics {
        let state = self.state.lock();
        // Under the lock: fork_prepare relies on nobody else being in the arena.
        JitStatistics {
            metadata: self.arena.committed_bytes(),
            ..state.totals
        }
    }
}

/// Returns the class of bitmaps with `words` words, a power of two.
const fn class_of(words: usize) -> usize {
    words.trailing_zeros() as usize
}

impl<P, M, R> Drop for JitAllocator<P, M, R>
where
    P: PageProvider + DualMapProvider + CoreSync + Copy,
    M: PageProvider + Copy,
{
    fn drop(&mut self) {
        for mut block in self.index.blocks() {
            // SAFETY: `&mut self` keeps everybody else out; the arena is dropped after this.
            let block = unsafe { block.as_mut() };
            if block.mode == Mode::Orphan {
                continue;
            }
            if let Some(mapping) = block.take_mapping() {
                // SAFETY: the mapping came from this provider; running code of a dropped
                // allocator is what callers of that code promised not to do.
                let unmapped = unsafe { self.provider.unmap_dual(mapping, Leave::Hole) };
                // There is nobody to tell: the views stay mapped, which wastes memory and no more.
                let _ = unmapped;
            }
        }
    }
}

impl<P, M, R> fmt::Debug for JitAllocator<P, M, R>
where
    P: PageProvider + DualMapProvider + CoreSync + Copy,
    M: PageProvider + Copy,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JitAllocator")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
