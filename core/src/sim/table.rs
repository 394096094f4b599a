//! The page table of a simulated host: one entry a page, in memory of its own.

use super::map::outside;
use crate::{
    page::{Access, AddressRange, Ceiling, PageRange, PageSize, RwxOptIn},
    provider::{Commit, Error, MapEntry, MapFlags, PageProvider, Request},
};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

/// The state of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimState {
    /// Not mapped.
    Hole,
    /// A caller's, without memory.
    Reserved,
    /// A guard of a reservation: never to be committed.
    Guard,
    /// With memory.
    Committed,
    /// In a view of a dual mapping.
    Dual,
}

impl SimState {
    /// Says whether the page is part of a reservation and in no dual view.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Reserved | Self::Guard | Self::Committed)
    }
}

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) state: SimState,
    pub(super) access: Access,
    pub(super) ceiling: Ceiling,
}

impl Page {
    pub(super) const HOLE: Self = Self::without_access(SimState::Hole);
    pub(super) const RESERVED: Self = Self::without_access(SimState::Reserved);
    pub(super) const GUARD: Self = Self::without_access(SimState::Guard);
    pub(super) const RW_VIEW: Self = Self::view(Access::ReadWrite);
    pub(super) const RX_VIEW: Self = Self::view(Access::ReadExec);

    const fn without_access(state: SimState) -> Self {
        Self {
            state,
            access: Access::None,
            ceiling: Ceiling::Read,
        }
    }

    const fn view(access: Access) -> Self {
        Self {
            access,
            ..Self::without_access(SimState::Dual)
        }
    }

    pub(super) const fn committed(access: Access, ceiling: Ceiling) -> Self {
        Self {
            state: SimState::Committed,
            access,
            ceiling,
        }
    }

    /// Packs the entry; a hole is zero, as fresh memory is.
    pub(super) fn encode(self) -> u16 {
        let state = match self.state {
            SimState::Hole => 0,
            SimState::Reserved => 1,
            SimState::Guard => 2,
            SimState::Committed => 3,
            SimState::Dual => 4,
        };
        state | encode_access(self.access) << 3 | encode_ceiling(self.ceiling) << 6
    }

    fn decode(raw: u16) -> Self {
        let state = match raw & 7 {
            0 => SimState::Hole,
            1 => SimState::Reserved,
            2 => SimState::Guard,
            3 => SimState::Committed,
            _ => SimState::Dual,
        };
        Self {
            state,
            access: decode_access(raw >> 3 & 7),
            ceiling: decode_ceiling(raw >> 6 & 7),
        }
    }
}

fn encode_access(access: Access) -> u16 {
    match access {
        Access::None => 0,
        Access::Read => 1,
        Access::ReadWrite => 2,
        Access::ReadExec => 3,
        Access::ReadWriteExec(_) => 4,
    }
}

fn decode_access(raw: u16) -> Access {
    match raw {
        0 => Access::None,
        1 => Access::Read,
        2 => Access::ReadWrite,
        3 => Access::ReadExec,
        // SAFETY: only an access that a caller gave was encoded so: the consent is theirs.
        _ => Access::ReadWriteExec(unsafe { RwxOptIn::accept() }),
    }
}

fn encode_ceiling(ceiling: Ceiling) -> u16 {
    match ceiling {
        Ceiling::Read => 0,
        Ceiling::ReadWrite => 1,
        Ceiling::ReadExec => 2,
        Ceiling::WriteXorExec => 3,
        Ceiling::ReadWriteExec(_) => 4,
    }
}

fn decode_ceiling(raw: u16) -> Ceiling {
    match raw {
        0 => Ceiling::Read,
        1 => Ceiling::ReadWrite,
        2 => Ceiling::ReadExec,
        3 => Ceiling::WriteXorExec,
        // SAFETY: only a ceiling that a caller gave was encoded so: the consent is theirs.
        _ => Ceiling::ReadWriteExec(unsafe { RwxOptIn::accept() }),
    }
}

pub(super) struct Table<B: PageProvider + Copy> {
    base: B,
    page: PageSize,
    space: PageRange,
    memory: PageRange,
    entries: NonNull<[AtomicU16]>,
}

// SAFETY: the entries belong to the table alone.
unsafe impl<B: PageProvider + Copy> Send for Table<B> {}
// SAFETY: the entries are atomics; who changes pages does so one at a time.
unsafe impl<B: PageProvider + Copy> Sync for Table<B> {}

impl<B: PageProvider + Copy> Table<B> {
    pub(super) fn new(base: B, page: PageSize, len: usize) -> Result<Self, Error> {
        let space = base.reserve(&Request::bytes(len).align(page.bytes()))?;
        let count = len / page.bytes();
        let memory = base
            .reserve(&Request::bytes(count * size_of::<u16>()))
            .inspect_err(|_| {
                // SAFETY: reserved just now, and not shown. If this fails, addresses are wasted.
                let _ = unsafe { base.release(space) };
            })?;
        let entries = NonNull::slice_from_raw_parts(memory.start().cast(), count);
        let table = Self {
            base,
            page,
            space,
            memory,
            entries,
        };
        // SAFETY: reserved above and not committed before. On failure Drop releases both ranges.
        unsafe { base.commit(memory, Commit::READ_WRITE)? };
        Ok(table)
    }

    pub(super) const fn space(&self) -> PageRange {
        self.space
    }

    fn entries(&self) -> &[AtomicU16] {
        // SAFETY: committed in new, zeroed, page-aligned and as long as the slice; released by
        // Drop; changed by atomics only.
        unsafe { self.entries.as_ref() }
    }

    pub(super) fn get(&self, addr: usize) -> Option<Page> {
        let offset = addr.checked_sub(self.space.addr())?;
        self.entries()
            .get(offset / self.page.bytes())
            .map(|raw| Page::decode(raw.load(Relaxed)))
    }

    /// Yields every page with its address.
    pub(super) fn pages(&self) -> impl Iterator<Item = (usize, Page)> + '_ {
        self.pages_of(self.space)
    }

    fn indices(&self, range: PageRange) -> core::ops::Range<usize> {
        let first = (range.addr() - self.space.addr()) / self.page.bytes();
        first..first + range.len_bytes() / self.page.bytes()
    }

    /// Yields the pages of a range inside the space.
    pub(super) fn pages_of(&self, range: PageRange) -> impl Iterator<Item = (usize, Page)> + '_ {
        let indices = self.indices(range);
        let size = self.page.bytes();
        self.entries()[indices]
            .iter()
            .enumerate()
            .map(move |(n, raw)| (range.addr() + n * size, Page::decode(raw.load(Relaxed))))
    }

    pub(super) fn set(&self, range: PageRange, page: Page) {
        self.update(range, |_| page);
    }

    /// Copies the entries of one range to another of the same length.
    pub(super) fn copy(&self, from: PageRange, to: PageRange) {
        let (from, to) = (self.indices(from), self.indices(to));
        for (from, to) in self.entries()[from].iter().zip(&self.entries()[to]) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }

    pub(super) fn update(&self, range: PageRange, change: impl Fn(Page) -> Page) {
        let indices = self.indices(range);
        for raw in &self.entries()[indices] {
            let page = change(Page::decode(raw.load(Relaxed)));
            raw.store(page.encode(), Relaxed);
        }
    }

    /// Visits runs of equal pages that are no holes, and what lies outside, in ascending order.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) {
        let below = self
            .space
            .addr()
            .checked_sub(1)
            .and_then(|last| outside(0, last));
        let above = outside(self.space.end(), usize::MAX);
        let size = self.page.bytes();
        let mut rest = self.entries();
        let mut at = self.space.addr();
        let runs = core::iter::from_fn(|| {
            // Read once: a handler may fork, and the child change the first page of a run that is
            // long, which then is no longer what the run consists of.
            let raw = rest.first()?.load(Relaxed);
            let same = |entry: &&AtomicU16| entry.load(Relaxed) == raw;
            let count = rest.iter().take_while(same).count().max(1);
            let start = at;
            at += count * size;
            rest = &rest[count..];
            Some((start, at, Page::decode(raw)))
        });
        let used = runs.filter(|(_, _, page)| page.state != SimState::Hole);
        let inside = used.filter_map(|(start, end, page)| {
            let range = AddressRange::new(start, end - 1)?;
            Some(MapEntry {
                range,
                flags: flags(page),
            })
        });
        for entry in below.into_iter().chain(inside).chain(above) {
            if !visit(entry) {
                return;
            }
        }
    }
}

fn flags(page: Page) -> MapFlags {
    let mut flags = MapFlags::empty();
    flags.set(MapFlags::READ, page.access.readable());
    flags.set(MapFlags::WRITE, page.access.writable());
    flags.set(MapFlags::EXEC, page.access.executable());
    flags.set(MapFlags::SHARED, page.state == SimState::Dual);
    flags
}

impl<B: PageProvider + Copy> Drop for Table<B> {
    fn drop(&mut self) {
        for range in [self.space, self.memory] {
            // SAFETY: both came from the base in new; users of a simulated host end before it.
            let released = unsafe { self.base.release(range) };
            // The error has no receiver: the range stays reserved, which wastes addresses.
            let _ = released;
        }
    }
}
