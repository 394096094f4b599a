//! How blocks come and go.

use super::{
    CodeProvider, JitAllocator, JitError, LargePages, Mapping, Mappings,
    block::{Block, Held, Home, Mode},
    pool::Pool,
    shard::Shard,
    tag::Tags,
    views::Views,
};
use crate::{
    page::{Access, Ceiling, PageRange, RwxOptIn},
    provider::{
        Capabilities, Commit, DualError, DualRequest, DualView, Error, ErrorKind, Leave,
        PageProvider, PageWish, Placement, Request, Target,
    },
    sync::RawMutex,
};
use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, Ordering},
};

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

/// Granules of a block that is made for one span alone, at most: the span is longer than was asked
/// for by a part in so many, and the metadata takes 25 KiB.
const LONE_GRANULES: usize = 1 << 16;

/// What a block is to be mapped as.
struct Wish {
    /// Bytes, at most.
    len: usize,
    /// Bytes that will do.
    least: usize,
    /// Where the executable view goes.
    rx: Placement,
    /// What both views are aligned to by the pages they are to have.
    align: usize,
    pages: PageWish,
}

impl Kind {
    /// Returns what [`Kind::choose`] looks at.
    pub(super) const fn looked_at(wanted: Mapping) -> Capabilities {
        match wanted {
            Mapping::Dual => Capabilities::DUAL,
            Mapping::Toggle => Capabilities::TOGGLE_EXEC,
            Mapping::Auto => Capabilities::DUAL.union(Capabilities::TOGGLE_EXEC),
            Mapping::ReadWriteExec(_) => Capabilities::RWX,
        }
    }

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
    /// Maps a block that has room for a span of `bytes` bytes aligned to `align`, wherever that
    /// falls, and adds it to a pool of the shard, which is locked. Returns the block.
    pub(super) fn map_block(
        &self,
        n: usize,
        shard: &mut Shard,
        pool: usize,
        (bytes, align): (usize, usize),
        placement: Placement,
    ) -> Result<NonNull<Block>, JitError> {
        let home = self.home(n, pool, bytes);
        let granule: usize = 1 << home.shift;
        let padding = self.config.padding_bytes(home.shift);
        let bare = bytes
            .checked_next_multiple_of(granule)
            .and_then(|bytes| bytes.checked_add(align.saturating_sub(granule)))
            .ok_or(JitError::InvalidSize)?;
        let padded = bare.checked_add(padding);
        let padded = padded.and_then(|bytes| self.page.round_up(bytes));
        let padded = padded.ok_or(JitError::InvalidSize)?;
        let grown = shard.pools[pool].next_len;
        let len = self.config.block_len(padded, grown, self.page);
        let len = len.ok_or(JitError::InvalidSize)?;
        let mut mappings = self.mappings.lock();
        let window = self.config.rx_placement().within;
        let window = window.intersect(placement.within).unwrap_or(window);
        let ahead = self.len_ahead(padded, len, window, mappings.full);
        let room = self.config.limit_bytes().saturating_sub(mappings.reserved);
        let room = self.page.round_down(room);
        // At a limit of whole blocks it is the padding that does not fit.
        let (least, padding) = if padded <= room {
            (padded, padding)
        } else {
            let bare = self.page.round_up(bare).filter(|bare| *bare <= room);
            (bare.ok_or(JitError::Limit)?, 0)
        };
        let most = ahead.min(room).max(least);
        let at = self
            .prepare(&mut shard.pools[pool], home, most)
            .map_err(JitError::Metadata)?;
        let views = self.map_at_most(&mut mappings, home.shift, (most, least), placement);
        // SAFETY: the arena outlives self; the shard is locked by the caller, and no other Held is
        // alive.
        let mut held = unsafe { Block::held(at) };
        let views = match views {
            Ok(views) => views,
            Err(error) => {
                if error.unplaced().is_some() {
                    mappings.full.note(window, true);
                }
                self.put_away(&mut shard.pools[pool], held);
                return Err(JitError::Map(error));
            }
        };
        mappings.full.note(window, false);
        let got = views.len_bytes();
        held.map(views, padding);
        self.fill_block(&held);
        self.index.insert(held.at);
        mappings.reserved += got;
        shard.totals.blocks += 1;
        shard.totals.reserved += got;
        let pool = &mut shard.pools[pool];
        pool.add(&mut held);
        // Without bins what is released is joined at once, so that the tree knows all holes.
        if !self.ordered {
            pool.make_bins(&self.arena);
        }
        // Blocks double. One that was made larger for its first span, or smaller for want of
        // room, says nothing about the next.
        if got == len && least <= grown && !self.ordered {
            pool.next_len = (grown * 2).min(self.config.max_block_size_bytes());
        }
        Ok(at)
    }

    /// Returns where a block for a span of `bytes` bytes belongs, and how long its granules are. A
    /// span beyond the longest ordinary block has a block to itself: its granules are longer, so
    /// that the metadata does not grow with it.
    fn home(&self, shard: usize, pool: usize, bytes: usize) -> Home {
        let shift = self.config.shift(pool);
        let ordinary = self.config.max_block_size_bytes();
        let ordinary = ordinary.max(self.config.large_pages_wanted().bytes());
        let times = (bytes >> shift).div_ceil(LONE_GRANULES);
        let lone = bytes > ordinary && times > 1;
        let longer = if lone {
            times.next_power_of_two().ilog2()
        } else {
            0
        };
        Home {
            shard,
            pool,
            shift: shift + longer,
            lone,
        }
    }

    /// Makes room for one more block in the tables, and finds or makes one whose metadata is
    /// enough for `len` bytes.
    fn prepare(&self, pool: &mut Pool, home: Home, len: usize) -> Result<NonNull<Block>, Error> {
        self.index.make_room(&self.arena)?;
        pool.make_room(&self.arena)?;
        let count = len >> home.shift;
        let mut link = &mut pool.unmapped;
        while let Some(at) = *link {
            // SAFETY: the arena outlives self; the shard is locked, and unmapped blocks are
            // reached through this list alone.
            let held = unsafe { Block::held(at) };
            if held.block.home() == home && held.block.capacity() >= count {
                *link = held.guarded.next.take();
                return Ok(at);
            }
            link = &mut held.guarded.next;
        }
        // Most blocks are a power of two long. Of others there are few sizes this way, so that they
        // serve again, and an eighth too much at most.
        let capacity = count.next_multiple_of((count.next_power_of_two() / 8).max(64));
        let tags = Tags::make(&self.tag_arena, self.config.carried(), capacity)?;
        Block::make(&self.arena, home, capacity, self.page, tags).inspect_err(|_| {
            // SAFETY: made just now, and used by no other code: there is no block.
            unsafe { tags.free(&self.tag_arena) };
        })
    }

    /// Keeps a block that could not be mapped for the next one of its capacity. Where that is no
    /// ordinary block's, and no reader can have met it, its metadata goes back instead.
    fn put_away(&self, pool: &mut Pool, held: Held<'_>) {
        let mut held = held;
        let ordinary = self.config.max_block_size_bytes() >> held.block.shift;
        if held.guarded.fresh && (held.block.home().lone || held.block.capacity() > ordinary) {
            // SAFETY: the block is in no list and no index, and never was in an index.
            unsafe { held.block.tags.free(&self.tag_arena) };
            // SAFETY: as above.
            unsafe { held.free(&self.arena) };
        } else {
            keep_unmapped(pool, &mut held);
        }
    }

    /// Maps at most so many bytes and no less than so many: as much as there is room for, as in a
    /// window full of foreign mappings, or memory.
    fn map_at_most(
        &self,
        mappings: &mut Mappings,
        shift: u32,
        lens: (usize, usize),
        placement: Placement,
    ) -> Result<Views, DualError> {
        let outside = Error::of(ErrorKind::OutsideRange);
        let rx = self.rx_placement(placement, 1 << shift);
        let rx = rx.ok_or(DualError::unplaceable(DualView::Rx, outside))?;
        let error = match self.map_halving(self.kind.way(), lens, rx) {
            Err(error) if self.may_fall_back(&error) => error,
            result => return result,
        };
        let views = self.map_halving(Way::Toggle, lens, rx)?;
        mappings.refused = Some(error);
        self.kind.fell_back.store(true, Ordering::Relaxed);
        Ok(views)
    }

    /// Maps one way; where memory is short, half as much and so on down to `least`. What room there
    /// is for the views the provider finds out by itself, once.
    fn map_halving(
        &self,
        way: Way,
        (most, least): (usize, usize),
        rx: Placement,
    ) -> Result<Views, DualError> {
        let mut len = most;
        loop {
            match self.map_views(way, len, least, rx) {
                Err(error) if error.is_shortage() && len > least => {
                    len = self.page.round_down(len / 2).max(least);
                }
                result => return result,
            }
        }
    }

    /// Says whether a host that refused dual mappings may be asked for single ones. Never after it
    /// gave one: all blocks are mapped the same way. Nor for want of a place, which single ones
    /// have no more of, and of memory or descriptors, which there may be later; but where a
    /// strategy was refused, what is short for another, as room in a file system, is no reason to
    /// wait.
    fn may_fall_back(&self, error: &DualError) -> bool {
        let short = |error: Error| error.kind() == ErrorKind::Exhausted;
        let refused = if error.steps().next().is_some() {
            error.steps().any(|(_, error)| !short(error))
        } else {
            !short(error.cause())
        };
        refused
            && error.unplaced().is_none()
            && self.config.mapping_wanted() == Mapping::Auto
            && self.kind.way() == Way::Dual
            && self.index.block(0).is_none()
            && self
                .provider
                .capabilities_among(Capabilities::TOGGLE_EXEC)
                .contains(Capabilities::TOGGLE_EXEC)
    }

    fn map_views(
        &self,
        way: Way,
        len: usize,
        least: usize,
        rx: Placement,
    ) -> Result<Views, DualError> {
        let large = self.config.large_pages_wanted().bytes();
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
        let mut result = Err(DualError::of(ErrorKind::Unsupported));
        // A shorter block would take the addresses of a large page, and have none.
        let align = if len < large { 1 } else { large };
        for pages in wishes.into_iter().flatten() {
            let unit = match pages {
                PageWish::Large { bytes, .. } => bytes,
                _ => 1,
            };
            let wish = Wish {
                len,
                least: least.next_multiple_of(unit).min(len),
                rx: Placement {
                    align: rx.align.max(align),
                    ..rx
                },
                align,
                pages,
            };
            result = match way {
                Way::Dual => self.map_dual(&wish),
                Way::Toggle => self.map_single(&wish, Access::ReadExec, Ceiling::WriteXorExec),
                Way::ReadWriteExec(ok) => {
                    self.map_single(&wish, Access::ReadWriteExec(ok), Ceiling::ReadWriteExec(ok))
                }
            };
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Returns where an executable view goes: where the configuration says and the request too.
    fn rx_placement(&self, placement: Placement, granule: usize) -> Option<Placement> {
        let mut rx = self.config.rx_placement();
        rx.within = rx.within.intersect(placement.within)?;
        // Granules may be longer than a page.
        rx.align = rx.align.max(granule);
        let unit = self.config.block_size_bytes();
        if self.ordered && rx.within.start().is_multiple_of(unit) {
            // On the grid that alloc_at goes by.
            rx.align = rx.align.max(unit);
        }
        if placement.place != Placement::ANYWHERE.place {
            rx.place = placement.place;
        }
        Some(rx)
    }

    fn map_dual(&self, wish: &Wish) -> Result<Views, DualError> {
        let mut rw = self.config.rw_placement();
        rw.align = rw.align.max(wish.align);
        let request = DualRequest {
            len: wish.len,
            min_len: Some(wish.least),
            rw: Target::Find(rw),
            rx: Target::Find(wish.rx),
            pages: wish.pages,
            landing_pads: self.config.wants_landing_pads(),
            fork: self.config.fork_policy(),
            name: Some(self.config.block_name()),
        };
        // SAFETY: neither target is a range of ours.
        unsafe { self.provider.map_dual(&request) }.map(Views::Dual)
    }

    fn map_single(
        &self,
        wish: &Wish,
        access: Access,
        ceiling: Ceiling,
    ) -> Result<Views, DualError> {
        let failed = |error: Error| DualError::from(error);
        let request = Request::bytes(wish.len)
            .at_least(wish.least)
            .placement(wish.rx)
            .name(self.config.block_name());
        // As little as will do was asked for: half as much would not be had either.
        let unplaced = |error| DualError::unplaceable(DualView::Rx, error);
        let mut range = self.provider.reserve(&request).map_err(unplaced)?;
        if let PageWish::Large { bytes, .. } = wish.pages {
            range = self.cut_to_whole(range, bytes);
        }
        let pages = wish.pages;
        let how = Commit {
            access,
            ceiling,
            pages,
        };
        // SAFETY: the range was just reserved, and is ours.
        match unsafe { self.provider.commit(range, how) } {
            Ok(page) => Ok(Views::Single(range, page)),
            Err(error) => {
                // SAFETY: as above; nobody saw it. If this fails too, addresses are wasted, no
                // more.
                let _ = unsafe { self.provider.release(range) };
                Err(failed(error))
            }
        }
    }

    /// Gives back what a range has beyond a multiple of `unit` bytes.
    fn cut_to_whole(&self, range: PageRange, unit: usize) -> PageRange {
        let len = range.len_bytes() - range.len_bytes() % unit;
        let (whole, tail) = (
            range.part(0, len, self.page),
            range.part(len, range.len_bytes() - len, self.page),
        );
        let (Some(whole), Some(tail)) = (whole, tail) else {
            return range;
        };
        // SAFETY: reserved just now, and used by no other code. A failure wastes addresses.
        let _ = unsafe { self.provider.release(tail) };
        whole
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
        held.clear_tags();
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
        // SAFETY: the caller's promise: the bytes lie in a block that stays mapped.
        unsafe { self.toggled(rw, len, write) }
    }
}

/// Keeps a block that has no mapping for the next one of its capacity.
fn keep_unmapped(pool: &mut Pool, held: &mut Held<'_>) {
    held.forget_granules();
    held.guarded.next = pool.unmapped.replace(held.at);
}
