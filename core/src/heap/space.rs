//! Granules: how addresses come from the provider, and memory into them.

use super::{
    Heap, NAME,
    class::GRANULE,
    error::HeapError,
    hardened::quarantine::Waiting,
    huge::{ahead, backed, guards_of, is_hole},
    index::Index,
    kept::Kept,
    map::Leaves,
    segment::{GRANULES, GRANULES_LARGE, LARGE_LEAST, Segment, SegmentLink, SegmentRef},
    slab::{FREED, Handle, ZERO},
};
use crate::{
    arena::Arena,
    intervals::{Intervals, Spares},
    page::PageRange,
    provider::{Error, ErrorKind, PageProvider, PageWish, Request, reserve_ahead},
    sync::RawMutex,
};
use core::{
    ops::{Deref, Range},
    ptr::NonNull,
    sync::atomic::Ordering::Relaxed,
};

/// New segments that may be lost to others one after the other, before a call gives up.
const TRIES: usize = 8;

/// What the lock of the granules guards, beside the page map and the bitmaps.
pub(super) struct Space {
    pub(super) segments: Index<SegmentRef>,
    spare: SegmentLink,
    /// No segment below this address has free granules.
    room_from: usize,
    /// Granules that the next segment is to have.
    step: usize,
    /// Descriptors of large and of huge blocks that are not in use.
    pub(super) spare_large: Option<Handle>,
    pub(super) spare_huge: Option<Handle>,
    /// Where huge blocks lie, live or kept, and what changes of that need.
    pub(super) huge: IndexRef,
    pub(super) spares: Spares,
    /// As of what this is a part of.
    pub(super) era: u32,
    /// Whether a call that never goes on may have left all this half changed.
    pub(super) is_torn: bool,
    pub(super) leaves: Leaves,
    /// Huge blocks that were freed.
    pub(super) kept: Kept,
    /// Large and huge blocks that were freed, and wait.
    pub(super) waiting: Waiting,
    pub(super) gauges: Gauges,
}

/// The place of an index of huge blocks in an arena, where it stays as long as the heap.
#[derive(Clone, Copy)]
pub(super) struct IndexRef(NonNull<Intervals>);

// SAFETY: a shared reference to what is Sync.
unsafe impl Send for IndexRef {}
// SAFETY: as for Send.
unsafe impl Sync for IndexRef {}

impl IndexRef {
    /// Puts an index into an arena of the heap that is to have it.
    ///
    /// # Errors
    ///
    /// Where there is no metadata.
    pub(super) fn new<M: PageProvider + Copy, R: RawMutex>(
        arena: &Arena<M, R>,
        index: Intervals,
    ) -> Result<Self, Error> {
        arena.alloc_value(index).map(Self)
    }
}

impl Deref for IndexRef {
    type Target = Intervals;

    #[inline]
    fn deref(&self) -> &Intervals {
        // SAFETY: initialised in `new`, and never freed before the arena, which is the heap's.
        unsafe { self.0.as_ref() }
    }
}

/// Runs of free granules that lose their access where memory is short, beside those that segments end with: each
/// splits a mapping.
const GAPS: usize = 16;

/// Mappings that a run of granules costs at most that loses its access or gets some.
const SPLIT: usize = 2;

/// Granules whose addresses are given back at once for want of metadata, at most: as much as it grows by.
const ADDRESSES: usize = 4;

/// Bytes, and blocks that are live.
#[derive(Clone, Copy, Default)]
pub(super) struct Gauges {
    pub(super) reserved: usize,
    pub(super) committed: usize,
    /// Of what is committed: behind huge blocks that are live, for them to grow into.
    pub(super) ahead: usize,
    pub(super) large: usize,
    pub(super) large_blocks: usize,
    pub(super) huge_blocks: usize,
    /// Mappings that guards and granules without access cost, about.
    pub(super) mappings: usize,
    /// Live blocks without guards that were to have some.
    pub(super) unguarded: usize,
}

impl Space {
    pub(super) const fn new(step: usize, huge: IndexRef, era: u32) -> Self {
        Self {
            segments: Index::new(),
            spare: SegmentLink::none(),
            room_from: 0,
            step,
            spare_large: None,
            spare_huge: None,
            huge,
            spares: Spares::new(),
            era,
            is_torn: false,
            leaves: Leaves::new(),
            kept: Kept::new(),
            waiting: Waiting::new(),
            gauges: Gauges {
                reserved: 0,
                committed: 0,
                ahead: 0,
                large: 0,
                large_blocks: 0,
                huge_blocks: 0,
                mappings: 0,
                unguarded: 0,
            },
        }
    }

    /// Counts a huge block and the addresses that were reserved for it.
    pub(super) fn count_huge(&mut self, reserved: usize, slab: Option<Handle>) {
        self.gauges.reserved += reserved;
        if let Some(slab) = slab {
            self.gauges.mappings += guards_of(slab);
            if !is_hole(slab) {
                self.gauges.committed += backed(slab);
                self.gauges.ahead += ahead(slab);
            }
            if !matches!(slab.only().state().load(Relaxed), FREED | ZERO) {
                self.gauges.huge_blocks += 1;
            }
        }
    }

    pub(super) fn insert(&mut self, segment: SegmentRef) {
        self.segments.insert(segment.addr(), segment);
        self.room_from = self.room_from.min(segment.addr());
    }

    /// Finds the lowest run of `count` granules that are free and can be written.
    pub(super) fn writable_run(&self, count: usize) -> Option<(SegmentRef, Range<usize>)> {
        self.segments.all().iter().find_map(|&(_, segment)| {
            let next = |from| segment.writable(from);
            let mut runs = core::iter::successors(next(0), |run| next(run.end));
            let run = runs.find(|run| run.len() >= count)?;
            Some((segment, run.start..run.start + count))
        })
    }

    /// Takes free granules of a segment, which can be written; says whether they read zero.
    pub(super) fn take(&mut self, segment: SegmentRef, part: Range<usize>) -> bool {
        self.gauges.committed += segment.purged_in(&part) * GRANULE;
        segment.take(part)
    }

    /// Counts mappings, where the [borders](Segment::borders) in and around some granules have
    /// changed.
    fn note_borders(&mut self, before: usize, now: usize) {
        self.gauges.mappings = (self.gauges.mappings + now).saturating_sub(before);
    }

    /// Forgets free granules of a segment.
    fn lose(&mut self, segment: SegmentRef, part: &Range<usize>) {
        self.gauges.committed -= segment.with_memory(part) * GRANULE;
        self.gauges.reserved -= part.len() * GRANULE;
        let borders = segment.borders(part);
        segment.lose(part);
        self.note_borders(borders, segment.borders(part));
    }

    fn remove(&mut self, segment: SegmentRef) {
        self.segments.remove(segment.addr());
        segment.close();
        segment.next.set(self.spare.get());
        self.spare.set(Some(segment));
    }

    /// Returns the segment around an address; `None` where a call got it that had begun before a
    /// fork, and has ended in the child.
    fn find(&self, addr: usize) -> Option<SegmentRef> {
        let found = self.segments.nth(self.segments.around(addr));
        found.filter(|segment| segment.contains(addr))
    }

    /// Returns the place of the first segment that may have free granules.
    fn first_with_room(&mut self) -> usize {
        let mut place = self.segments.below(self.room_from);
        self.room_from = loop {
            match self.segments.nth(place) {
                Some(segment) if segment.free_count() == 0 => place += 1,
                found => break found.map_or(usize::MAX, |segment| segment.addr()),
            }
        };
        place
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Takes `count` granules, the lowest there are, with memory, and `guards` without any on both sides; says
    /// whether they read zero.
    ///
    /// # Errors
    ///
    /// Where there is no memory, no address, or no metadata.
    pub(super) fn take_granules(
        &self,
        space: &mut Space,
        count: usize,
        guards: usize,
    ) -> Result<(NonNull<u8>, bool), HeapError> {
        let count = count + 2 * guards;
        let start = |segment, part: &Range<usize>| {
            let inner = part.start + guards..part.end - guards;
            self.part_start(segment, &inner)
        };
        let mut place = space.first_with_room();
        while let Some(segment) = space.segments.nth(place) {
            place += 1;
            while let Some(part) = segment.find(count) {
                if let Some(zero) = self.take_part(space, segment, part.clone(), guards)? {
                    return Ok((start(segment, &part)?, zero));
                }
            }
        }
        for _ in 0..TRIES {
            let segment = self.new_segment(space, count)?;
            if let Some(zero) = self.take_part(space, segment, 0..count, guards)? {
                return Ok((start(segment, &(0..count))?, zero));
            }
        }
        Err(HeapError::Memory(ErrorKind::RangeLost.into()))
    }

    /// Takes `count` granules with memory where as many as `room` are free behind them; `None` where there are none,
    /// or none is to be left.
    pub(super) fn take_with_room(
        &self,
        space: &mut Space,
        count: usize,
        room: usize,
    ) -> Result<Option<(NonNull<u8>, bool)>, HeapError> {
        let mut place = space.first_with_room();
        while room != 0
            && let Some(segment) = space.segments.nth(place)
        {
            place += 1;
            let Some(run) = segment.find(count + room) else {
                continue;
            };
            let part = run.start..run.start + count;
            if let Some(zero) = self.take_part(space, segment, part.clone(), 0)? {
                return Ok(Some((self.part_start(segment, &part)?, zero)));
            }
        }
        Ok(None)
    }

    pub(super) fn part_start(
        &self,
        segment: SegmentRef,
        part: &Range<usize>,
    ) -> Result<NonNull<u8>, HeapError> {
        let range = segment.range(part, self.page);
        range.map(PageRange::start).ok_or(HeapError::Config)
    }

    /// Takes free granules of a segment, `guards` of them without memory on both sides; `None` where the
    /// provider says that some are lost.
    fn take_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: Range<usize>,
        guards: usize,
    ) -> Result<Option<bool>, HeapError> {
        let sides = [part.start..part.start + guards, part.end - guards..part.end];
        for side in sides.iter().filter(|side| !segment.are_empty(side)) {
            // What it could not do is seen below.
            let _ = self.return_part(space, segment, side);
            if !segment.are_free(side) {
                return Ok(None);
            }
            if !segment.are_empty(side) {
                return Err(HeapError::Memory(ErrorKind::Exhausted.into()));
            }
        }
        let part = part.start + guards..part.end - guards;
        while let Some(hole) = segment.uncommitted(&part) {
            let mut tried = match segment.whole(&hole) {
                Some(whole) => self.commit_part(space, segment, whole, PageWish::Transparent),
                None => Err(ErrorKind::Unsupported.into()),
            };
            if tried.is_err_and(|error| error.kind() != ErrorKind::RangeLost) {
                tried = self.commit_part(space, segment, hole, PageWish::Base);
            }
            match tried {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::RangeLost => return Ok(None),
                Err(error) => return Err(HeapError::Memory(error)),
            }
        }
        let zero = space.take(segment, part);
        for side in sides {
            segment.reserve(side);
        }
        Ok(Some(zero))
    }

    /// Gives free granules memory. If the provider says that they are lost, they are forgotten.
    fn commit_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: Range<usize>,
        pages: PageWish,
    ) -> Result<(), Error> {
        let range = segment.range(&part, self.page);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        // SAFETY: reserved as part of the segment, not committed, and free.
        match unsafe { self.commit_pages(range, pages) } {
            Ok(()) => {
                let borders = segment.borders(&part);
                segment.commit(part.clone());
                space.note_borders(borders, segment.borders(&part));
                space.gauges.committed += range.len_bytes();
                Ok(())
            }
            Err(error) => {
                if error.kind() == ErrorKind::RangeLost {
                    self.lose(space, segment, &part);
                }
                Err(error)
            }
        }
    }

    /// Forgets free granules that are somebody else's now.
    fn lose(&self, space: &mut Space, segment: SegmentRef, part: &Range<usize>) {
        space.lose(segment, part);
        let start = segment.addr() + part.start * GRANULE;
        self.map.set(start, part.len() * GRANULE, None);
    }

    /// Takes the granules at `addr` as well, if they are free and of the same segment as those before them.
    pub(super) fn take_behind(&self, space: &mut Space, addr: usize, count: usize) -> bool {
        // The next segment may begin there.
        let Some(segment) = space.find(addr - 1) else {
            return false;
        };
        let first = segment.number(addr);
        let part = first..first + count;
        segment.are_free(&part) && matches!(self.take_part(space, segment, part, 0), Ok(Some(_)))
    }

    /// Gives granules back, which keep their memory for now.
    pub(super) fn give_granules(&self, space: &mut Space, addr: usize, len: usize) {
        self.map.set(addr, len, Some(self.nothing));
        let Some(segment) = space.find(addr) else {
            return;
        };
        let first = segment.number(addr);
        let part = first..first + len / GRANULE;
        segment.give(part.clone());
        space.room_from = space.room_from.min(segment.addr());
        let eager = self.config.returns() == super::Return::Eager || self.is_full();
        if eager {
            self.return_around(space, segment, &part);
        }
    }

    /// Gives the memory of free granules back; returns how many bytes of it went. They keep their access, and
    /// no mapping is split, but at the highest level of hardening.
    ///
    /// # Errors
    ///
    /// What the provider says; the granules stay as they are, and the next call tries again.
    fn return_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: &Range<usize>,
    ) -> Result<usize, Error> {
        let range = segment.range(part, self.page);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        let before = space.gauges.committed;
        if self.is_full() && self.may_split(space, 1) {
            self.decommit_part(space, segment, part)?;
        } else {
            // SAFETY: free and committed granules of the segment, whose contents nobody needs.
            let shown = unsafe { self.purge_pages(range) }?;
            let with_memory = segment.with_memory(part);
            segment.purge(part, shown);
            space.gauges.committed -= (with_memory - segment.with_memory(part)) * GRANULE;
        }
        Ok(before - space.gauges.committed)
    }

    /// Takes the access of free granules away, of few and long runs of them: on hosts that charge for what can be written,
    /// and under limits that count it, purging is not enough.
    pub(super) fn decommit_longest(&self, space: &mut Space) {
        let all = space.segments.all().iter();
        let gaps: usize = all.map(|(_, segment)| segment.gaps()).sum();
        for _ in gaps..space.segments.len() + GAPS {
            let all = space.segments.all().iter();
            let runs = all.filter_map(|(_, segment)| Some((*segment, segment.longest_writable()?)));
            let Some((segment, run)) = runs.max_by_key(|(_, run)| run.len()) else {
                return;
            };
            if self.decommit_part(space, segment, &run).is_err() {
                return;
            }
        }
    }

    /// Takes memory and access of free granules away. If the provider says that they are lost, they are forgotten.
    fn decommit_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: &Range<usize>,
    ) -> Result<(), Error> {
        let range = segment.range(part, self.page);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        let (with_memory, borders) = (segment.with_memory(part), segment.borders(part));
        // Given up before it goes, so that a forked child does not take it for writable.
        let before = segment.take_access(part);
        // SAFETY: free and committed granules of the segment, which nobody uses.
        match unsafe { self.decommit_pages(range) } {
            Ok(()) => {
                space.gauges.committed -= with_memory * GRANULE;
                segment.decommit(part);
                space.note_borders(borders, segment.borders(part));
            }
            Err(error) => {
                segment.restore_access(&before);
                if error.kind() != ErrorKind::RangeLost {
                    return Err(error);
                }
                self.lose(space, segment, part);
            }
        }
        Ok(())
    }

    /// Gives the memory of free granules at `addr` back, if they have any.
    pub(super) fn return_granules(&self, space: &mut Space, addr: usize, len: usize) {
        let Some(segment) = space.find(addr) else {
            return;
        };
        let first = segment.number(addr);
        let part = first..first + len / GRANULE;
        self.return_around(space, segment, &part);
    }

    /// Gives the memory of free granules back, by whole large pages where it came by those.
    fn return_around(&self, space: &mut Space, segment: SegmentRef, part: &Range<usize>) {
        for part in segment.worth_around(part) {
            // What could not be done, the next pass tries again.
            let _ = self.return_part(space, segment, &part);
        }
    }

    /// Gives the memory of free granules back: of all, or of those that are aged; then ages the others. Where it came
    /// by large pages, whole ones go, unless `parts` of them are to. Stops at the first error.
    pub(super) fn return_free(&self, space: &mut Space, only_aged: bool, parts: bool) {
        let mut goes_on = true;
        for place in 0..space.segments.len() {
            let Some(segment) = space.segments.nth(place) else {
                return;
            };
            let mut from = 0;
            while goes_on && let Some(run) = segment.returnable(from, only_aged) {
                let part = if !parts {
                    segment.worth(&run)
                } else {
                    run.clone()
                };
                if !part.is_empty() {
                    goes_on = self.return_part(space, segment, &part).is_ok();
                }
                from = run.end;
            }
            segment.age();
        }
    }

    /// Gives the memory of free granules back, the highest first, until it is `wanted` bytes, or there are no more,
    /// or one fails; returns how many bytes of it.
    pub(super) fn return_some(&self, space: &mut Space, wanted: usize) -> usize {
        let mut given = 0;
        for place in (0..space.segments.len()).rev() {
            let Some(segment) = space.segments.nth(place) else {
                continue;
            };
            let mut end = segment.granules();
            while given < wanted
                && let Some(run) = segment.last_returnable(end)
            {
                let count = (wanted - given).div_ceil(GRANULE).min(run.len());
                let part = run.end - count..run.end;
                match self.return_part(space, segment, &part) {
                    Ok(bytes) => given += bytes,
                    Err(_) => return given,
                }
                end = part.start;
            }
        }
        given
    }

    /// Reserves addresses for a new segment of `least` granules or more.
    fn new_segment(&self, space: &mut Space, least: usize) -> Result<SegmentRef, HeapError> {
        debug_assert!(least <= GRANULES, "larger blocks come from the provider");
        let segment = match space.spare.get() {
            Some(segment) => segment,
            None => {
                let made = self.arena().alloc_value(Segment::new());
                let made = made.map_err(HeapError::Metadata)?;
                // SAFETY: initialised just now, and never freed before the arena, which is the heap's.
                let segment = unsafe { SegmentRef::new(made) };
                self.note_segment(segment);
                space.spare.set(Some(segment));
                segment
            }
        };
        space.segments.make_room(self.arena())?;
        let wanted = space.step.max(least);
        let ahead = reserve_ahead(&self.provider, least * GRANULE, wanted * GRANULE) / GRANULE;
        // Where addresses are short, no rest is left that has no room for such a block.
        let whole = |count: usize| count - count % least;
        let mut count = if ahead < wanted { whole(ahead) } else { wanted };
        let (range, large) = loop {
            let large = self.large_granules(count);
            let align = large.max(1);
            count = count.next_multiple_of(align);
            match self.reserve(space, count * GRANULE, align * GRANULE) {
                Err(HeapError::Memory(e)) if e.kind() == ErrorKind::Exhausted && count > least => {
                    count = whole(count / 2).max(least);
                }
                result => break (result?, large),
            }
        };
        // What is short now will be short again: the next one is no larger than what was got twice.
        space.step = (count * 2).min(GRANULES);
        space.spare.set(segment.next.get());
        segment.open(range, large);
        space.insert(segment);
        space.gauges.reserved += range.len_bytes();
        self.map
            .set(range.addr(), range.len_bytes(), Some(self.nothing));
        Ok(segment)
    }

    /// Adds a segment to all that were ever made. The lock of the granules is held, or this is a
    /// forked child.
    pub(super) fn note_segment(&self, segment: SegmentRef) {
        segment.made_before.set(self.first_segment.get());
        self.first_segment.set(Some(segment));
    }

    /// Returns how many granules the large pages have that a segment of `count` granules is to get its memory by; zero
    /// where it is to get others.
    fn large_granules(&self, count: usize) -> usize {
        if !self.config.has_large_pages() || count < GRANULES_LARGE {
            return 0;
        }
        // Asked for now only, as it costs some system calls.
        let large = self.provider.large_page().bytes() / GRANULE;
        if large * LARGE_LEAST <= count {
            large
        } else {
            0
        }
    }

    /// Says whether the heap may have so many more granules or blocks that split a mapping.
    fn may_split(&self, space: &Space, count: usize) -> bool {
        let most = self
            .hardened
            .as_ref()
            .map_or(0, |hardened| hardened.mappings);
        space.gauges.mappings.saturating_add(SPLIT * count) <= most
    }

    /// Returns the bytes that are to be inaccessible on either side of a large or huge block that
    /// is made now.
    pub(super) fn guard_now(&self, space: &Space) -> usize {
        // The two guards, and the block.
        if self.is_full() && self.may_split(space, 3) {
            GRANULE
        } else {
            0
        }
    }

    /// Returns the bytes that are inaccessible on either side of a large or huge block.
    pub(super) fn guard_of(&self, slab: Handle) -> usize {
        slab.shard() * GRANULE
    }

    /// Counts a block that was made live or was freed, if it has no guards and is to have some.
    pub(super) fn count_guards(&self, space: &mut Space, slab: Handle, is_new: bool) {
        if self.guard_of(slab) != 0 || !self.is_full() {
            return;
        }
        if is_new {
            space.gauges.unguarded += 1;
        } else {
            space.gauges.unguarded = space.gauges.unguarded.saturating_sub(1);
        }
    }

    /// Takes the memory of a large block that is free, and its access if the heap may split
    /// mappings, and keeps its granules; says whether it could.
    pub(super) fn hold_granules(&self, space: &mut Space, slab: Handle) -> bool {
        let (addr, len) = (slab.addr(), slab.len_bytes());
        self.give_granules(space, addr, len);
        let Some(segment) = space.find(addr) else {
            return false;
        };
        let first = segment.number(addr);
        let part = first..first + len / GRANULE;
        if !segment.are_free(&part) {
            // They were lost as their memory went.
            return false;
        }
        if segment.are_empty(&part) {
            segment.reserve(part);
        } else {
            // Whether it reads zero is not asked before it is free again.
            space.take(segment, part);
        }
        self.map.set(addr, len, Some(slab));
        true
    }

    /// Describes what was reserved for a huge block.
    pub(super) fn whole(&self, slab: Handle) -> Option<PageRange> {
        let guard = self.guard_of(slab);
        let start = NonNull::new(slab.start().as_ptr().wrapping_sub(guard))?;
        PageRange::new(start, slab.len_bytes() + 2 * guard, self.page)
    }

    /// Reserves addresses that the page map covers.
    fn reserve(&self, space: &mut Space, len: usize, align: usize) -> Result<PageRange, HeapError> {
        let request = Request::bytes(len).align(align).name(NAME);
        let mut range = self.reserve_pages(&request).map_err(HeapError::Memory)?;
        if !self.map.addresses().contains_range(range.addresses()) {
            // An error wastes addresses and no more.
            let _ = self.release_range(range);
            let request = request.within(self.map.addresses());
            range = self.reserve_pages(&request).map_err(HeapError::Memory)?;
        }
        let (start, len) = (range.addr(), range.len_bytes());
        let (leaves, arena) = (&mut space.leaves, self.arena());
        if let Err(error) = self.map.cover(&self.metadata, leaves, arena, start, len) {
            // As above.
            let _ = self.release_range(range);
            return Err(error);
        }
        Ok(range)
    }

    /// Releases addresses that nobody uses any more.
    ///
    /// # Errors
    ///
    /// What the provider says, but for addresses that were lost.
    pub(super) fn release_range(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the heap reserved the range and has forgotten, or is about to forget, all that lay there.
        match unsafe { self.release_pages(range) } {
            Err(error) if error.kind() != ErrorKind::RangeLost => Err(error),
            _ => Ok(()),
        }
    }

    /// Releases free granules. Where the provider cannot, they stay.
    fn release_part(
        &self,
        space: &mut Space,
        segment: SegmentRef,
        part: &Range<usize>,
    ) -> Result<(), Error> {
        let range = segment.range(part, self.page);
        let range = range.ok_or(ErrorKind::InvalidArgument)?;
        // Before the addresses can be somebody else's.
        self.map.set(range.addr(), range.len_bytes(), None);
        segment.give_up(part);
        match self.release_range(range) {
            Ok(()) => {
                space.lose(segment, part);
                Ok(())
            }
            Err(error) => {
                segment.regain(part);
                let nothing = Some(self.nothing);
                self.map.set(range.addr(), range.len_bytes(), nothing);
                Err(error)
            }
        }
    }

    /// Releases some free granules of a segment that others keep from being released, so that there are addresses
    /// for metadata; says whether there were any. They come back with the rest of the segment only.
    pub(super) fn release_some(&self, space: &mut Space) -> bool {
        let segments = (0..space.segments.len()).rev();
        let found = segments.into_iter().find_map(|place| {
            let segment = space.segments.nth(place)?;
            Some((segment, segment.last_free(segment.granules())?))
        });
        let Some((segment, run)) = found else {
            return false;
        };
        let part = run.end - run.len().min(ADDRESSES)..run.end;
        self.release_part(space, segment, &part).is_ok()
    }

    /// Releases segments that are free, until one cannot be.
    pub(super) fn release_free(&self, space: &mut Space) {
        // From behind, as those that follow one that is taken out move up.
        for place in (0..space.segments.len()).rev() {
            let Some(segment) = space.segments.nth(place).filter(|s| s.is_empty()) else {
                continue;
            };
            let mut from = 0;
            while let Some(part) = segment.kept(from) {
                if self.release_part(space, segment, &part).is_err() {
                    return;
                }
                from = part.end;
            }
            space.remove(segment);
        }
    }
}
