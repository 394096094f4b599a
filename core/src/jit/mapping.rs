//! How blocks come and go.

use super::{
    CodeProvider, JitAllocator, JitError, LargePages, Mapping, Mappings,
    block::{Block, Held, Mode},
    pool::{Pool, give_back},
    shard::Shard,
    views::Views,
};
use crate::{
    atomic::{self, AtomicU64},
    page::{Access, Ceiling, PageRange, RwxOptIn},
    provider::{
        Capabilities, Commit, DualError, DualRequest, Error, ErrorKind, Leave, PageProvider,
        PageWish, Placement, Request, Target,
    },
    sync::RawMutex,
};
use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, Ordering},
};

/// Bytes of bitmaps whose memory goes with the mapping: those of a block that is much longer than usual.
/// Shorter ones wait for the next block as they are.
const LONG_METADATA: usize = 256 << 10;

/// How blocks are mapped, as far as it is known.
pub(super) struct Kind {
    first: Way,
    /// Whether the way is not what was wanted first.
    fell_back: AtomicBool,
}

/// A way to map a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Dual,
    Toggle,
    ReadWriteExec(RwxOptIn),
}

impl Kind {
    /// Chooses by what the provider says it can; `None` where it says it cannot.
    pub(super) fn choose(wanted: Mapping, able: Capabilities) -> Option<Self> {
        let (dual, toggle) = (
            able.contains(Capabilities::DUAL),
            able.contains(Capabilities::TOGGLE_EXEC),
        );
        let first = match wanted {
            Mapping::Dual | Mapping::Auto if dual => Way::Dual,
            Mapping::Toggle | Mapping::Auto if toggle => Way::Toggle,
            Mapping::ReadWriteExec(opt_in) if able.contains(Capabilities::RWX) => {
                Way::ReadWriteExec(opt_in)
            }
            _ => return None,
        };
        Some(Self {
            first,
            fell_back: AtomicBool::new(false),
        })
    }

    /// Returns the way in use.
    #[inline]
    pub(super) fn way(&self) -> Way {
        if self.fell_back.load(Ordering::Relaxed) {
            Way::Toggle
        } else {
            self.first
        }
    }

    /// Returns the way in use as a configuration would ask for it.
    pub(super) fn mapping(&self, wanted: Mapping) -> Mapping {
        match (self.way(), wanted) {
            (Way::Dual, _) => Mapping::Dual,
            (Way::Toggle, _) => Mapping::Toggle,
            (Way::ReadWriteExec(_), wanted) => wanted,
        }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Maps a block that has room for a span of `bytes`, and adds it to a pool of the shard, which
    /// is locked.
    pub(super) fn map_block(
        &self,
        n: usize,
        shard: &mut Shard,
        pool: usize,
        bytes: usize,
        placement: Placement,
    ) -> Result<(), JitError> {
        let shift = self.config.shift(pool);
        let padding = self.config.padding_bytes(shift);
        let least = bytes.checked_add(padding);
        let least = least
            .and_then(|bytes| self.page.round_up(bytes))
            .ok_or(JitError::InvalidSize)?;
        let grown = shard.pools[pool].next_len;
        let len = self.config.block_len(least, grown, self.page);
        let len = len.ok_or(JitError::InvalidSize)?;
        let mut mappings = self.mappings.lock();
        let room = self.config.limit_bytes().saturating_sub(mappings.reserved);
        if least > room {
            return Err(JitError::Limit);
        }
        let most = len.min(self.page.round_down(room)).max(least);
        let at = self
            .prepare(&mut shard.pools[pool], (n, pool, shift), most)
            .map_err(JitError::Metadata)?;
        // SAFETY: the arena outlives self; the shard is locked by the caller, and no other Held is
        // alive.
        let mut held = unsafe { Block::held(at) };
        let views = match self.map_at_most(&mut mappings, most, least, placement) {
            Ok(views) => views,
            Err(error) => {
                self.put_unmapped(&mut shard.pools[pool], held);
                return Err(JitError::Map(error));
            }
        };
        let got = views.len_bytes();
        held.map(views, padding);
        self.fill_block(&held);
        self.index.insert(held.at);
        mappings.reserved += got;
        shard.totals.blocks += 1;
        shard.totals.reserved += got;
        let pool = &mut shard.pools[pool];
        pool.add(&mut held);
        // Blocks double. One that was made larger for its first span, or smaller for want of
        // room, says nothing about the next.
        if got == len && least <= grown {
            pool.next_len = (grown * 2).min(self.config.max_block_size_bytes());
        }
        Ok(())
    }

    /// Makes room for one more block in the tables, and finds or makes one whose metadata is
    /// enough for `len` bytes.
    fn prepare(
        &self,
        pool: &mut Pool,
        home: (usize, usize, u32),
        len: usize,
    ) -> Result<NonNull<Block>, Error> {
        self.index.make_room(&self.arena)?;
        pool.make_room(&self.arena)?;
        let count = len >> home.2;
        let mut link = &mut pool.unmapped;
        while let Some(at) = *link {
            // SAFETY: the arena outlives self; the shard is locked, and unmapped blocks are
            // reached through this list alone.
            let held = unsafe { Block::held(at) };
            if held.block.capacity() >= count {
                *link = held.guarded.next.take();
                return Ok(at);
            }
            link = &mut held.guarded.next;
        }
        // Most blocks are a power of two long. Of others there are few sizes this way, so that they
        // serve again, and an eighth too much at most.
        let capacity = count.next_multiple_of((count.next_power_of_two() / 8).max(64));
        let (words, bytes) = Block::metadata_for(capacity);
        let words = self.arena.alloc_slice_zeroed(words)?;
        // SAFETY: zeroed memory of so many atomics, which is nobody else's.
        unsafe { atomic::init_zeroed(words.cast::<AtomicU64>(), words.len()) };
        let tree = self.arena.alloc_slice_zeroed(bytes).inspect_err(|_| {
            // SAFETY: allocated just now, and known to nobody else.
            unsafe { give_back(&self.arena, words) };
        })?;
        let block = Block::unmapped(home, words, tree, capacity);
        self.arena.alloc_value(block).inspect_err(|_| {
            // SAFETY: allocated above, and known to nobody else.
            unsafe { give_back(&self.arena, words) };
            // SAFETY: as above.
            unsafe { give_back(&self.arena, tree) };
        })
    }

    /// Keeps a block that could not be mapped, whose shard is locked; one that never was is given back
    /// to the arena, since no reader can know it.
    fn put_unmapped(&self, pool: &mut Pool, mut held: Held<'_>) {
        let Some((words, tree)) = held.never_mapped() else {
            return keep_unmapped(pool, &mut held);
        };
        let at = NonNull::slice_from_raw_parts(held.at, 1);
        // SAFETY: allocated by prepare; the block, its only user, goes.
        unsafe { give_back(&self.arena, words) };
        // SAFETY: as above.
        unsafe { give_back(&self.arena, tree) };
        // SAFETY: allocated by prepare as one block. It was never in the index, and has left the list
        // of unmapped ones, so that `held` was the only way to it, which ends here.
        unsafe { give_back(&self.arena, at) };
    }

    /// Maps `len` bytes; where there is no room for that, as in a window full of foreign mappings,
    /// half as much and so on down to `least`.
    fn map_at_most(
        &self,
        mappings: &mut Mappings,
        len: usize,
        least: usize,
        placement: Placement,
    ) -> Result<Views, DualError> {
        let mut len = len;
        loop {
            let mut result = self.map_views(self.kind.way(), len, placement);
            if let Err(error) = result
                && self.may_fall_back(&error)
            {
                result = self.map_views(Way::Toggle, len, placement);
                if result.is_ok() {
                    mappings.refused = Some(error);
                    self.kind.fell_back.store(true, Ordering::Relaxed);
                }
            }
            match result {
                Err(error) if error.kind() == ErrorKind::Exhausted && len > least => {
                    len = self.page.round_down(len / 2).max(least);
                }
                result => return result,
            }
        }
    }

    /// Says whether a host that refused dual mappings may be asked for single ones. Never after it
    /// gave one: all blocks are mapped the same way.
    fn may_fall_back(&self, error: &DualError) -> bool {
        self.config.mapping_wanted() == Mapping::Auto
            && self.kind.way() == Way::Dual
            && error.kind() != ErrorKind::Exhausted
            && self.index.block(0).is_none()
            && self
                .provider
                .capabilities()
                .contains(Capabilities::TOGGLE_EXEC)
    }

    fn map_views(&self, way: Way, len: usize, placement: Placement) -> Result<Views, DualError> {
        let large = self.config.large_pages_wanted().bytes();
        let none = || DualError::of(ErrorKind::OutsideRange);
        let rx = self.rx_placement(placement).ok_or_else(none)?;
        let wishes = match self.config.large_pages_wanted() {
            LargePages::Never => [Some(PageWish::Base), None],
            // Toggling protects the host's pages one by one.
            _ if way == Way::Toggle || !len.is_multiple_of(large) => {
                [Some(PageWish::Transparent), None]
            }
            _ => [
                Some(PageWish::Large {
                    bytes: large,
                    or_base: false,
                }),
                Some(PageWish::Transparent),
            ],
        };
        let mut result = Err(none());
        for pages in wishes.into_iter().flatten() {
            result = match way {
                Way::Dual => self.map_dual(len, rx, pages),
                Way::Toggle => {
                    self.map_single(len, rx, pages, Access::ReadExec, Ceiling::WriteXorExec)
                }
                Way::ReadWriteExec(ok) => self.map_single(
                    len,
                    rx,
                    pages,
                    Access::ReadWriteExec(ok),
                    Ceiling::ReadWriteExec(ok),
                ),
            };
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Returns where an executable view goes: where the configuration says and the request too.
    fn rx_placement(&self, placement: Placement) -> Option<Placement> {
        let mut rx = self.config.rx_placement();
        rx.within = rx.within.intersect(placement.within)?;
        // Granules may be longer than a page.
        let granule = 1 << self.config.shift(self.config.pool_count() - 1);
        let large = self.config.large_pages_wanted().bytes();
        rx.align = rx.align.max(large).max(granule);
        if placement.place != Placement::ANYWHERE.place {
            rx.place = placement.place;
        }
        Some(rx)
    }

    fn map_dual(&self, len: usize, rx: Placement, pages: PageWish) -> Result<Views, DualError> {
        let mut rw = self.config.rw_placement();
        rw.align = rw.align.max(self.config.large_pages_wanted().bytes());
        let request = DualRequest {
            len,
            rw: Target::Find(rw),
            rx: Target::Find(rx),
            pages,
            landing_pads: self.config.wants_landing_pads(),
            fork: self.config.fork_policy(),
            name: Some(self.config.block_name()),
        };
        // SAFETY: neither target is a range of ours.
        unsafe { self.provider.map_dual(&request) }.map(Views::Dual)
    }

    fn map_single(
        &self,
        len: usize,
        rx: Placement,
        pages: PageWish,
        access: Access,
        ceiling: Ceiling,
    ) -> Result<Views, DualError> {
        let failed = |error: Error| DualError::from(error);
        let request = Request::bytes(len)
            .placement(rx)
            .name(self.config.block_name());
        let range = self.provider.reserve(&request).map_err(failed)?;
        let how = Commit {
            access,
            ceiling,
            pages,
        };
        // SAFETY: the range was just reserved, and is ours.
        match unsafe { self.provider.commit(range, how) } {
            Ok(page) => Ok(Views::Single(range, page)),
            Err(error) => {
                // SAFETY: as above; nobody saw it. If this fails too, addresses are wasted, no more.
                let _ = unsafe { self.provider.release(range) };
                Err(failed(error))
            }
        }
    }

    /// Keeps an empty block, unless one of its pool is kept already. Its shard is locked.
    pub(super) fn keep_empty(&self, held: &mut Held<'_>) -> bool {
        let kept = &self.kept[held.block.pool];
        let at = held.at.as_ptr();
        let keeps = kept
            .compare_exchange(ptr::null_mut(), at, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        held.guarded.kept |= keeps;
        keeps
    }

    /// Says that a block that was kept empty is in use again, or is gone. Its shard is locked.
    pub(super) fn no_longer_kept(&self, held: &mut Held<'_>) {
        held.guarded.kept = false;
        self.kept[held.block.pool].store(ptr::null_mut(), Ordering::Release);
    }

    /// Keeps an empty block or unmaps it. Its shard is locked.
    pub(super) fn retire_empty(&self, shard: &mut Shard, mut held: Held<'_>) {
        // One is kept, so that a span that comes and goes does not map and unmap. Not one that was
        // made larger for its only span.
        let ordinary = held.len_bytes() <= self.config.max_block_size_bytes();
        if held.block.mode() == Mode::Open
            && ordinary
            && !self.config.releases_immediately()
            && self.keep_empty(&mut held)
        {
            return;
        }
        self.unmap_block(shard, held);
        if shard.totals.blocks == 0 {
            // What little code there is comes and goes, and another shard keeps the block for it.
            self.shards.fold();
        }
    }

    /// Unmaps a block without live spans. Its shard is locked.
    pub(super) fn unmap_block(&self, shard: &mut Shard, mut held: Held<'_>) {
        let mut mappings = self.mappings.lock();
        if held.block.mode() == Mode::Orphan {
            return self.lose(shard, &mut mappings, held);
        }
        if held.guarded.kept {
            self.no_longer_kept(&mut held);
        }
        let Some(views) = held.take_views() else {
            return;
        };
        let len = views.len_bytes();
        self.index.remove(held.at);
        let unmapped = match views {
            // SAFETY: the mapping came from this provider, and no span of it is live.
            Views::Dual(mapping) => unsafe { self.provider.unmap_dual(mapping, Leave::Hole) }
                .map_err(|(mapping, error)| (Views::Dual(mapping), error)),
            // SAFETY: the range was reserved from this provider, and no span of it is live.
            Views::Single(range, page) => unsafe { self.provider.release(range) }
                .map_err(|error| (Views::Single(range, page), error)),
        };
        if let Err((views, error)) = unmapped
            && error.kind() != ErrorKind::RangeLost
        {
            // The writable view may be gone already, so the block serves no more spans.
            held.put_views(views);
            held.block.set_mode(Mode::ReadOnly);
            self.index.insert(held.at);
            shard.pools[held.block.pool].update(&mut held);
            return;
        }
        // Also where the views are no longer ours: they are forgotten.
        self.forget_block(shard, &mut mappings, held, len);
    }

    /// Forgets a block whose code is gone. Its addresses stay reserved, so that a stale pointer to
    /// code faults. Its shard is locked.
    pub(super) fn lose(&self, shard: &mut Shard, mappings: &mut Mappings, mut held: Held<'_>) {
        // Without the token nobody unmaps the views, if there are any: that is the intention.
        let len = held
            .take_views()
            .map_or(held.lost_bytes(), |views| views.len_bytes());
        shard.totals.spans -= held.guarded.spans;
        shard.totals.used -= held.guarded.used << held.block.shift;
        self.index.remove(held.at);
        self.forget_block(shard, mappings, held, len);
    }

    fn forget_block(
        &self,
        shard: &mut Shard,
        mappings: &mut Mappings,
        mut held: Held<'_>,
        len: usize,
    ) {
        mappings.reserved -= len;
        shard.totals.blocks -= 1;
        shard.totals.reserved -= len;
        let pool = &mut shard.pools[held.block.pool];
        pool.remove(&held);
        keep_unmapped(pool, &mut held);
        let (words, tree) = held.metadata();
        let len = words.len() * size_of::<AtomicU64>();
        if len >= LONG_METADATA {
            // SAFETY: allocated by prepare, and never freed. Nothing in it is needed before the block
            // is mapped again, when it is cleared; readers that come late look at the version again
            // before they take anything for true.
            unsafe { self.arena.purge(words.cast(), len) };
            // SAFETY: as above; only who holds the shard's lock looks at the tree.
            unsafe { self.arena.purge(tree.cast(), tree.len()) };
        }
    }

    /// Runs `write` while `len` bytes at `rw` can be written. Where blocks are mapped once that
    /// takes executability from the pages meanwhile.
    ///
    /// # Safety
    ///
    /// The bytes lie in the writable view of a block of this allocator that stays mapped.
    #[inline]
    pub(super) unsafe fn while_writable<T>(
        &self,
        rw: NonNull<u8>,
        len: usize,
        write: impl FnOnce() -> T,
    ) -> Result<T, JitError> {
        if self.kind.way() != Way::Toggle {
            return Ok(write());
        }
        let start = self.page.round_down(rw.addr().get());
        let end = self.page.round_up(rw.addr().get() + len);
        // SAFETY: a block starts at a page, so the start of this page lies in it too.
        let first = unsafe { rw.sub(rw.addr().get() - start) };
        let pages = end.and_then(|end| PageRange::new(first, end - start, self.page));
        let pages = pages.ok_or(JitError::OutOfBounds)?;
        let _writers = self.toggling.lock();
        // SAFETY: the pages lie in one block that is mapped once, committed to be toggled.
        unsafe { self.provider.protect(pages, Access::ReadWrite) }.map_err(JitError::Protect)?;
        let executable = Executable(self, pages);
        let result = write();
        executable.again().map(|()| result)
    }
}

/// Makes pages executable again, also when a writer panics.
struct Executable<'a, P: CodeProvider, M: PageProvider + Copy, R: RawMutex>(
    &'a JitAllocator<P, M, R>,
    PageRange,
);

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Executable<'_, P, M, R> {
    fn again(self) -> Result<(), JitError> {
        let result = self.protect();
        core::mem::forget(self);
        result
    }

    fn protect(&self) -> Result<(), JitError> {
        // SAFETY: the pages lie in one block that is mapped once, committed to be toggled.
        unsafe { self.0.provider.protect(self.1, Access::ReadExec) }.map_err(JitError::Protect)
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Drop for Executable<'_, P, M, R> {
    fn drop(&mut self) {
        // A panic is on its way, and says more than this could.
        let _ = self.protect();
    }
}

/// Keeps a block that has no mapping for the next one of its capacity.
fn keep_unmapped(pool: &mut Pool, held: &mut Held<'_>) {
    held.forget_granules();
    held.guarded.next = pool.unmapped.replace(held.at);
}
