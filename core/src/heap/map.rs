//! The page map: which slab has the granule around an address.
//!
//! ```text
//!   granule of an address, less the first one that the provider can give
//!   31 ········· 14 │ 13 ········ 0
//!        root       │     leaf          128 KiB for each GiB of addresses in which there ever was a block
//!
//!   addresses that the provider can give    root                        leaves
//!   any, and memory is not short            2 MiB, read-only where      a reservation each
//!                                           no leaf is entered
//!   any, and memory is short                4 KiB, in the arena: the    a reservation each
//!                                           512 GiB around the first
//!   a window, an array                      as long as needed           no longer than needed
//! ```
//!
//! An entry has all that a free needs: the class of the slab, as the place of its magazine in a
//! cache, which of its granules this is, and where its states lie, before which the descriptor is.
//! Those who know only an address so need not look at the descriptor, which at a million blocks
//! would seldom be in a cache.
//!
//! ```text
//!   63 ························· 16 │ 15 ··········· 12 │ 11 ················ 0
//!    address of the states          │ granule in a slab │ place of a magazine     zero is no slab's granule
//! ```
//!
//! Both levels are read without a lock, for any address, which itself is not touched. Leaves are
//! never taken away before the heap is dropped.
//!
//! Leaves around the first block lie side by side, in the *window*: who has an address there finds
//! its entry by a subtraction, as quick calls do. A thread whose blocks lie elsewhere, since others
//! have reserved many addresses in between, takes the leaf there for its window.
//!
//! ```text
//!   root     │ . │ . │ ▪ │ ▪ │ ▪ │ ▪ │ . │ ▪ │          window: 64 leaves, or all; fewer where memory is short
//!                      │   │   │   │       └──────────► ┌──────┐
//!                      ▼   ▼   ▼   ▼                    │ leaf │
//!   window           │ leaf│ leaf│ leaf│ leaf│          └──────┘
//! ```
//!
//! A huge block has an entry for its first granule, where that can be written without much ado: so
//! it is found as quickly as others by where it starts. What lies behind that only the index of
//! huge blocks tells.
//!
//! Root and window are committed readable as a whole, and made writable where leaves are entered,
//! or entries are set: one range of their pages each, which grows. So a process that locks its
//! memory holds no more of it than it uses, since untouched private pages that can only be read are
//! all the same page of zeros.

use super::{
    NAME,
    class::{self, CLASSES, GRANULE, Kind},
    error::HeapError,
    index::Index,
    slab::{Handle, LIVE, STATES},
};
use crate::{
    arena::Arena,
    atomic::{
        self, AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{Commit, Error, ErrorKind, PageProvider, Request, reserve_ahead},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ops::Range,
    ptr::{self, NonNull, null_mut, with_exposed_provenance_mut},
};

/// Bits of addresses that one map tells apart; no host maps above without being asked to. Few in
/// the models, where an entry takes a kilobyte, and under Miri, which looks through all of the map
/// at every call.
const ADDRESS_BITS: u32 = if cfg!(all(test, loom)) {
    24
} else if cfg!(miri) {
    32
} else if usize::BITS < 48 {
    usize::BITS
} else {
    48
};

/// Bits of an entry that are not the descriptor's address.
const ADDRESS_SHIFT: u32 = 16;

/// Where the granule's number in its slab is.
const INSIDE_SHIFT: u32 = 12;

const GRANULE_BITS: u32 = GRANULE.ilog2();
const LEAF_BITS: u32 = match ADDRESS_BITS {
    41.. => 14,
    32.. => 8,
    _ => 4,
};

/// Entries of a leaf, but for the last of a window.
const LEAF: usize = 1 << LEAF_BITS;

/// Granules that a map tells apart at most.
const MOST: usize = 1 << (ADDRESS_BITS - GRANULE_BITS);

/// Bytes of a root or a leaf that lies in the arena, at most.
const SMALL: usize = if cfg!(all(test, loom)) {
    usize::MAX
} else {
    4096
};

/// Granules that a map tells apart with a root of [`SMALL`] bytes.
const FEW: usize = if cfg!(all(test, loom)) {
    MOST
} else {
    SMALL / size_of::<usize>() * LEAF
};

/// Leaves that the window has at most: 64 GiB of blocks, by 8 MiB of addresses.
const WINDOW: usize = if cfg!(all(test, loom)) { 2 } else { 64 };

/// Bytes of the window that become writable at once for the first granule of a huge block, at most:
/// those of 512 MiB of addresses.
const NEAR: usize = 64 << 10;

pub(super) type Entry = AtomicU64;
type Slot = AtomicPtr<Entry>;

/// What is known of the memory of a map, which whoever holds the lock of the granules may change.
pub(super) struct Leaves {
    /// Leaves that are a reservation each, by address: few, while the root has room for many.
    own: Index<PageRange>,
    /// The root, if some of its pages can only be read.
    root: Growing,
    /// The window, likewise.
    window: Growing,
    /// Whether a window was made, or tried in vain.
    is_window_made: bool,
}

/// Memory whose pages are made writable as they are needed.
struct Growing {
    /// All of it, if it is a reservation with pages that can only be read.
    range: Option<PageRange>,
    /// Bytes that can be written.
    writable: Range<usize>,
}

impl Growing {
    const fn none() -> Self {
        Self {
            range: None,
            writable: 0..0,
        }
    }

    /// Says whether few bytes lie between these and those that can be written.
    fn is_near(&self, bytes: &Range<usize>) -> bool {
        let writable = &self.writable;
        self.range.is_none()
            || writable.is_empty()
            || bytes.end.saturating_add(NEAR) > writable.start
                && bytes.start < writable.end.saturating_add(NEAR)
    }

    /// Makes the pages writable that have these bytes, and all between them and those that are.
    fn make_writable<M: PageProvider>(
        &mut self,
        provider: &M,
        bytes: Range<usize>,
    ) -> Result<(), Error> {
        let Some(range) = self.range else {
            return Ok(());
        };
        let page = provider.page_size();
        let end = page.round_up(bytes.end).ok_or(ErrorKind::InvalidArgument)?;
        let wanted = page.round_down(bytes.start)..end;
        let old = self.writable.clone();
        if old.is_empty() {
            protect_part(provider, range, wanted.clone())?;
            self.writable = wanted;
            return Ok(());
        }
        if wanted.start < old.start {
            protect_part(provider, range, wanted.start..old.start)?;
            self.writable.start = wanted.start;
        }
        if wanted.end > old.end {
            protect_part(provider, range, old.end..wanted.end)?;
            self.writable.end = wanted.end;
        }
        Ok(())
    }
}

/// Makes pages of a root or a window writable.
fn protect_part<M: PageProvider>(
    provider: &M,
    range: PageRange,
    bytes: Range<usize>,
) -> Result<(), Error> {
    let part = range.part(bytes.start, bytes.len(), provider.page_size());
    let part = part.ok_or(ErrorKind::InvalidArgument)?;
    // SAFETY: committed pages of the map, which are only read meanwhile, as they can be afterwards.
    unsafe { provider.protect(part, Access::ReadWrite) }
}

impl Leaves {
    pub(super) const fn new() -> Self {
        Self {
            own: Index::new(),
            root: Growing::none(),
            window: Growing::none(),
            is_window_made: false,
        }
    }

    /// Adds one that is a reservation, unless it is there.
    fn note<M: PageProvider + Copy, R: RawMutex>(
        &mut self,
        arena: &Arena<M, R>,
        leaf: PageRange,
    ) -> Result<(), HeapError> {
        let place = self.own.below(leaf.addr());
        if self.own.nth(place) != Some(leaf) {
            self.own.make_room(arena)?;
            self.own.insert(leaf.addr(), leaf);
        }
        Ok(())
    }

    /// Returns the leaves that are a reservation each, by address.
    pub(super) const fn own(&self) -> &Index<PageRange> {
        &self.own
    }
}

/// The map. Whoever holds the lock of the granules may change it.
pub(super) struct Map {
    raw: RawRoot,
    /// The root, if it is a reservation.
    range: Option<PageRange>,
    /// Whether pages of it must be made writable.
    is_protected: bool,
    window: Window,
}

/// Where the window is, once there is one.
struct Window {
    /// Its entries; null before.
    entries: AtomicPtr<Entry>,
    /// The address that the first entry is of.
    start: AtomicUsize,
    /// How many entries there are: none before all else is known.
    len: AtomicUsize,
    /// Whether pages of it must be made writable.
    is_protected: AtomicBool,
}

/// Where an address lies in the slab of a class.
pub(super) struct Spot {
    pub(super) slab: Handle,
    pub(super) class: usize,
    /// Where the slab begins.
    pub(super) start: usize,
    /// The number of the block, or how many there are for what is left over behind them.
    pub(super) index: usize,
    /// The state of the block, or the one more.
    pub(super) state: NonNull<AtomicU8>,
}

/// Where a window is, for readers who know by other means that it is there.
#[derive(Clone, Copy)]
pub(super) struct RawWindow {
    pub(super) entries: NonNull<Entry>,
    /// The address that the first entry is of.
    pub(super) start: usize,
    /// How many entries there are.
    pub(super) len: usize,
}

impl Window {
    fn none() -> Self {
        Self {
            entries: AtomicPtr::new(null_mut()),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            is_protected: AtomicBool::new(false),
        }
    }

    /// Returns the entry of an address, if the window has one.
    #[inline]
    fn entry(&self, addr: usize) -> Option<&Entry> {
        // First, since `make_window` stores it last.
        let len = self.len.load(Acquire);
        let place = addr.wrapping_sub(self.start.load(Relaxed)) >> GRANULE_BITS;
        if place >= len {
            return None;
        }
        // SAFETY: there are `len` entries.
        let entry = unsafe { self.entries.load(Relaxed).add(place) };
        // SAFETY: zeroed when the window was made, changed by its atomics only, and there as long
        // as the map.
        Some(unsafe { &*entry })
    }
}

/// Reserves and commits zeroed memory.
fn memory<M: PageProvider>(provider: &M, bytes: usize, how: Commit) -> Result<PageRange, Error> {
    let range = provider.reserve(&Request::bytes(bytes).name(NAME))?;
    // SAFETY: reserved just now, and known to nobody else.
    match unsafe { provider.commit(range, how) } {
        Ok(_) => Ok(range),
        Err(error) => {
            if error.kind() != ErrorKind::RangeLost {
                // SAFETY: reserved above, and not used yet. An error has no consequence but that
                // the addresses stay reserved.
                let _ = unsafe { provider.release(range) };
            }
            Err(error)
        }
    }
}

/// Allocates `count` atomics in the arena, each zero.
fn small<A: Default, M: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<M, R>,
    count: usize,
) -> Result<NonNull<A>, Error> {
    let layout = Layout::array::<A>(count).map_err(|_| ErrorKind::InvalidArgument)?;
    let first = arena.alloc(layout)?;
    // SAFETY: fresh memory of this layout.
    unsafe { first.write_bytes(0, layout.size()) };
    let first = first.cast::<A>();
    // SAFETY: zeroed just now, and known to nobody else.
    unsafe { atomic::init_zeroed(first, count) };
    Ok(first)
}

/// Says whether a host that gave `page`, which is readable, can make it writable: if not, all of a
/// root has to be.
fn can_protect<M: PageProvider>(provider: &M, page: PageRange) -> bool {
    [Access::ReadWrite, Access::Read].iter().all(|access| {
        // SAFETY: committed by the caller, with a ceiling that allows it, and known to nobody else.
        unsafe { provider.protect(page, *access) }.is_ok()
    })
}

/// Makes a root or a window that is a reservation; says whether its pages must be made writable.
fn reserve_readable<M: PageProvider>(
    provider: &M,
    bytes: usize,
) -> Result<(PageRange, bool), Error> {
    let readable = Commit {
        access: Access::Read,
        ..Commit::READ_WRITE
    };
    let page = provider.page_size();
    if let Ok(range) = memory(provider, bytes, readable) {
        let part = range.part(0, page.bytes(), page);
        if part.is_some_and(|part| can_protect(provider, part)) {
            return Ok((range, true));
        }
        // SAFETY: reserved just now, and not used yet. An error has no consequence but that the
        // addresses stay reserved.
        let _ = unsafe { provider.release(range) };
    }
    memory(provider, bytes, Commit::READ_WRITE).map(|range| (range, false))
}

impl Map {
    /// Makes a map of the addresses that `pages` can give.
    ///
    /// # Errors
    ///
    /// Where there is no memory for its root.
    pub(super) fn new<P: PageProvider, M: PageProvider + Copy, R: RawMutex>(
        pages: &P,
        metadata: &M,
        arena: &Arena<M, R>,
    ) -> Result<Self, HeapError> {
        let all = pages.addresses();
        let first = all.start() >> GRANULE_BITS;
        let count = (all.last() >> GRANULE_BITS) - first;
        let mut granules = count.saturating_add(1).min(MOST);
        let mut first = first;
        let bytes = |granules: usize| granules.div_ceil(LEAF) * size_of::<Slot>();
        if reserve_ahead(metadata, SMALL, bytes(granules)) < bytes(granules) {
            (first, granules) = few_around(pages, first, granules)?;
        }
        let slots = granules.div_ceil(LEAF);
        let raw = |root| RawRoot {
            root,
            first,
            granules,
        };
        if bytes(granules) <= SMALL {
            let root = small(arena, slots).map_err(HeapError::Metadata)?;
            return Ok(Self {
                raw: raw(root),
                range: None,
                is_protected: false,
                window: Window::none(),
            });
        }
        let (range, is_protected) =
            reserve_readable(metadata, bytes(granules)).map_err(HeapError::Metadata)?;
        let root = range.start().cast::<Slot>();
        // SAFETY: committed just now, zeroed; models have small roots only.
        unsafe { atomic::init_zeroed(root, slots) };
        Ok(Self {
            raw: raw(root),
            range: Some(range),
            is_protected,
            window: Window::none(),
        })
    }

    /// Returns where the root lies, if it is a reservation.
    pub(super) const fn range(&self) -> Option<PageRange> {
        self.range
    }

    #[inline]
    pub(super) fn root(&self) -> RootRef<'_> {
        // SAFETY: the root is released when the heap is dropped, which a borrow of the map keeps
        // from happening.
        unsafe { self.raw.get() }
    }

    #[inline]
    fn entry(&self, addr: usize) -> Option<&Entry> {
        match self.window.entry(addr) {
            Some(entry) => Some(entry),
            None => self.root().entry(addr),
        }
    }

    /// Returns whose granule lies around `addr`, any address at all.
    #[inline]
    pub(super) fn slab(&self, addr: usize) -> Option<Handle> {
        let value = self.entry(addr)?.load(Acquire);
        // SAFETY: a value of this map; the heap is there, as for entries.
        unsafe { slab(value) }
    }

    /// Returns the slab of a class that has the granule around `addr`, any address at all, where it
    /// begins, and the number of its block there.
    #[inline]
    pub(super) fn block(&self, addr: usize) -> Option<Spot> {
        let value = self.entry(addr)?.load(Acquire);
        let kind = kind(value);
        let class = class::of_kind(kind)?;
        let offset = offset(value, addr);
        let (index, _) = class::index(offset, class::reciprocal(class));
        // SAFETY: `set` stored the value, of a class, so that it is that of a descriptor; the heap
        // is there, as for entries.
        let slab = unsafe { Handle::from_exposed_unchecked(states(value) - STATES) };
        // SAFETY: as above: there is a state for each number of a block in the granules of a slab,
        // and one more.
        let state = unsafe { state(value, index) };
        Some(Spot {
            slab,
            class,
            start: addr.wrapping_sub(offset),
            index,
            state,
        })
    }

    /// Says whether some slab has the granule around `addr`.
    #[inline]
    pub(super) fn owns(&self, addr: usize) -> bool {
        self.entry(addr)
            .is_some_and(|entry| entry.load(Relaxed) != 0)
    }

    /// Returns the addresses that the map tells apart.
    pub(super) fn addresses(&self) -> AddressRange {
        let start = self.raw.first << GRANULE_BITS;
        let len = self.raw.granules << GRANULE_BITS;
        // The last may be the last that there is.
        let last = start.wrapping_add(len).wrapping_sub(1);
        AddressRange::new(start, last).unwrap_or(AddressRange::ALL)
    }

    /// Makes the leaves for `len` bytes at `start`, so that [`Map::set`] can be called there, and
    /// keeps record of them in `leaves`.
    ///
    /// # Errors
    ///
    /// Where there is no memory, and where the map does not reach; leaves that were made stay.
    pub(super) fn cover<M: PageProvider + Copy, R: RawMutex>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        arena: &Arena<M, R>,
        start: usize,
        len: usize,
    ) -> Result<(), HeapError> {
        let range = AddressRange::from_len(start, len);
        let Some(range) = range.filter(|range| self.addresses().contains_range(*range)) else {
            return Err(HeapError::Memory(ErrorKind::OutsideRange.into()));
        };
        let number = |addr: usize| (addr >> GRANULE_BITS) - self.raw.first;
        let (first, last) = (number(range.start()), number(range.last()));
        self.make_window(provider, leaves, arena, first >> LEAF_BITS);
        for n in first >> LEAF_BITS..=last >> LEAF_BITS {
            let Some(slot) = self.root().slot(n) else {
                return Err(HeapError::Memory(ErrorKind::OutsideRange.into()));
            };
            let window = self.window.entry(self.leaf_start(n));
            if let Some(entry) = window {
                let before = (self.leaf_start(n) - self.window.start.load(Relaxed)) >> GRANULE_BITS;
                let (from, to) = (first.max(n * LEAF), last.min(n * LEAF + LEAF - 1));
                let place = |granule: usize| (before + granule - n * LEAF) * size_of::<Entry>();
                leaves
                    .window
                    .make_writable(provider, place(from)..place(to + 1))
                    .map_err(HeapError::Metadata)?;
                if slot.load(Relaxed).is_null() {
                    self.make_writable(provider, leaves, n)?;
                    // The same entry, by a pointer that may be used for those behind it.
                    let leaf = self
                        .window
                        .entries
                        .load(Relaxed)
                        .with_addr(ptr::from_ref(entry).addr());
                    publish(slot, leaf);
                }
                continue;
            }
            if !slot.load(Relaxed).is_null() {
                continue;
            }
            self.make_writable(provider, leaves, n)?;
            let entries = LEAF.min(self.raw.granules - n * LEAF);
            let bytes = entries * size_of::<Entry>();
            let leaf = if bytes <= SMALL {
                small(arena, entries).map_err(HeapError::Metadata)?
            } else {
                leaves.own.make_room(arena)?;
                let leaf =
                    memory(provider, bytes, Commit::READ_WRITE).map_err(HeapError::Metadata)?;
                leaves.own.insert(leaf.addr(), leaf);
                let leaf = leaf.start().cast::<Entry>();
                // SAFETY: committed just now, zeroed.
                unsafe { atomic::init_zeroed(leaf, entries) };
                leaf
            };
            publish(slot, leaf.as_ptr());
        }
        Ok(())
    }

    /// Finds again what [`Map::cover`] keeps record of, from the leaves themselves: for a forked
    /// child. `blocks` are the addresses that leaves were made for.
    ///
    /// # Errors
    ///
    /// Where there is no metadata.
    pub(super) fn find_leaves<M: PageProvider + Copy, R: RawMutex>(
        &self,
        page: PageSize,
        arena: &Arena<M, R>,
        blocks: impl Iterator<Item = AddressRange>,
    ) -> Result<Leaves, HeapError> {
        let mut leaves = Leaves::new();
        if let Some(window) = self.window() {
            leaves.is_window_made = true;
            let bytes = window.len * size_of::<Entry>();
            let range = PageRange::new(window.entries.cast(), bytes, page);
            if let Some(range) = range.filter(|_| bytes > SMALL) {
                leaves.note(arena, range)?;
                let is_protected = self.window.is_protected.load(Relaxed);
                leaves.window.range = Some(range).filter(|_| is_protected);
            }
        }
        for range in blocks {
            let number = |addr: usize| ((addr >> GRANULE_BITS) - self.raw.first) >> LEAF_BITS;
            for n in number(range.start())..=number(range.last()) {
                let entries = LEAF.min(self.raw.granules - n * LEAF);
                let bytes = entries * size_of::<Entry>();
                let is_own = bytes > SMALL && self.window.entry(self.leaf_start(n)).is_none();
                let leaf = self.root().slot(n).filter(|_| is_own);
                let leaf = leaf.and_then(|slot| NonNull::new(slot.load(Acquire)));
                let leaf = leaf.and_then(|leaf| PageRange::new(leaf.cast(), bytes, page));
                if let Some(leaf) = leaf {
                    leaves.note(arena, leaf)?;
                }
            }
        }
        Ok(leaves)
    }

    /// Returns the address that the first entry of leaf `n` is of.
    const fn leaf_start(&self, n: usize) -> usize {
        (self.raw.first + n * LEAF) << GRANULE_BITS
    }

    /// Makes the page of the root writable that has slot `n`, and all between it and those that
    /// are.
    fn make_writable<M: PageProvider>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        n: usize,
    ) -> Result<(), HeapError> {
        leaves.root.range = self.range.filter(|_| self.is_protected);
        let bytes = n * size_of::<Slot>()..(n + 1) * size_of::<Slot>();
        let made = leaves.root.make_writable(provider, bytes);
        made.map_err(HeapError::Metadata)
    }

    /// Makes the window around leaf `n`, if there is memory for one, at the first call.
    fn make_window<M: PageProvider + Copy, R: RawMutex>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        arena: &Arena<M, R>,
        n: usize,
    ) {
        if leaves.is_window_made {
            return;
        }
        leaves.is_window_made = true;
        let all = self.raw.granules.div_ceil(LEAF);
        let wanted = all.min(WINDOW);
        let bytes = |leaves: usize| (leaves * LEAF).min(self.raw.granules) * size_of::<Entry>();
        let (count, entries) = if bytes(wanted) <= SMALL {
            match small(arena, bytes(wanted) / size_of::<Entry>()) {
                Ok(entries) => (wanted, entries),
                Err(_) => return,
            }
        } else {
            let ahead = reserve_ahead(provider, 0, bytes(wanted));
            let count = if ahead < bytes(wanted) {
                ahead / bytes(1)
            } else {
                wanted
            };
            if count == 0 || leaves.own.make_room(arena).is_err() {
                return;
            }
            let Ok((range, is_protected)) = reserve_readable(provider, bytes(count)) else {
                return;
            };
            leaves.own.insert(range.addr(), range);
            leaves.window.range = Some(range).filter(|_| is_protected);
            self.window.is_protected.store(is_protected, Relaxed);
            let entries = range.start().cast::<Entry>();
            // SAFETY: committed just now, zeroed; in models it is writable.
            unsafe { atomic::init_zeroed(entries, bytes(count) / size_of::<Entry>()) };
            (count, entries)
        };
        let first = n.saturating_sub(count / 2).min(all - count);
        let len = (count * LEAF).min(self.raw.granules - first * LEAF);
        self.window.start.store(self.leaf_start(first), Relaxed);
        self.window.entries.store(entries.as_ptr(), Relaxed);
        self.window.len.store(len, Release);
    }

    /// Returns where the window is, if there is one.
    pub(super) fn window(&self) -> Option<RawWindow> {
        let len = self.window.len.load(Acquire);
        Some(RawWindow {
            entries: NonNull::new(self.window.entries.load(Relaxed)).filter(|_| len != 0)?,
            start: self.window.start.load(Relaxed),
            len,
        })
    }

    /// Returns a window that has an address, if blocks lie near it: *the* window, or a leaf that
    /// serves as one. Where they do not, returns the window.
    pub(super) fn window_around(&self, addr: usize) -> Option<RawWindow> {
        if self.window.entry(addr).is_none()
            && let Some(leaf) = self.root().leaf(addr)
        {
            return Some(leaf);
        }
        self.window()
    }

    /// Says whose the granule at `addr` is, of a block that is found without it as well: if there
    /// is an entry for it, and that can be written, or lies near those that can.
    pub(super) fn set_first<M: PageProvider + Copy, R: RawMutex>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        arena: &Arena<M, R>,
        addr: usize,
        slab: Handle,
    ) {
        if self.addresses().contains(addr) {
            let granule = (addr >> GRANULE_BITS) - self.raw.first;
            self.make_window(provider, leaves, arena, granule >> LEAF_BITS);
        }
        if self.window.entry(addr).is_some() {
            let before = (addr - self.window.start.load(Relaxed)) >> GRANULE_BITS;
            let bytes = before * size_of::<Entry>()..(before + 1) * size_of::<Entry>();
            let near = leaves.window.is_near(&bytes);
            if !near || leaves.window.make_writable(provider, bytes).is_err() {
                return;
            }
        }
        self.set(addr, GRANULE, Some(slab));
    }

    /// Takes back what [`Map::set_first`] did, if it did.
    pub(super) fn unset_first(&self, addr: usize) {
        if let Some(entry) = self.entry(addr)
            && entry.load(Relaxed) != 0
        {
            entry.store(0, Release);
        }
    }

    /// Says whose the granules in `len` bytes at `start` are. Leaves are there.
    pub(super) fn set(&self, start: usize, len: usize, slab: Option<Handle>) {
        for (granule, addr) in (0_u64..).zip((start..start + len).step_by(GRANULE)) {
            let value = slab.map_or(0, |slab| {
                let inside = if slab.class() < CLASSES { granule } else { 0 };
                ((slab.exposed() + STATES) as u64) << ADDRESS_SHIFT
                    | inside << INSIDE_SHIFT
                    | u64::from(class::place(slab.class()))
            });
            if let Some(entry) = self.entry(addr) {
                entry.store(value, Release);
            }
        }
    }

    /// Releases the map's memory.
    ///
    /// # Safety
    ///
    /// `provider` is the one that the map and its leaves came from, `leaves` are all of them, and
    /// nobody uses the map any more.
    pub(super) unsafe fn release<M: PageProvider>(&self, provider: &M, leaves: &Leaves) {
        let leaves = leaves.own.all().iter().map(|(_, leaf)| *leaf);
        for range in leaves.chain(self.range) {
            // SAFETY: reserved by `cover` or by `new`; not used any more, as the caller says. An
            // error has no consequence but that the addresses stay reserved.
            let _ = unsafe { provider.release(range) };
        }
    }
}

/// Enters a leaf, unless a call has entered one that interrupted this one, and forked.
fn publish(slot: &Slot, leaf: *mut Entry) {
    let _ = slot.compare_exchange(null_mut(), leaf, Release, Relaxed);
}

/// Returns the first granule of a map of fewer, around where `pages` gives addresses now, and how
/// many they are.
fn few_around<P: PageProvider>(
    pages: &P,
    first: usize,
    granules: usize,
) -> Result<(usize, usize), HeapError> {
    let few = granules.min(FEW);
    let request = Request::bytes(GRANULE).align(GRANULE);
    let range = pages.reserve(&request).map_err(HeapError::Memory)?;
    // SAFETY: reserved just now, and known to nobody else. An error has no consequence but that the
    // addresses stay reserved.
    let _ = unsafe { pages.release(range) };
    // In the middle of a leaf, so that a short region needs but one.
    let around = (range.addr() >> GRANULE_BITS).saturating_sub(few / 2 + LEAF / 2);
    Ok((around.clamp(first, first + (granules - few)), few))
}

/// The root of a map, for readers.
#[derive(Clone, Copy)]
pub(super) struct RootRef<'map> {
    raw: RawRoot,
    _map: core::marker::PhantomData<&'map Map>,
}

/// The root of a map, for readers who know by other means that it is there.
#[derive(Clone, Copy)]
pub(super) struct RawRoot {
    root: NonNull<Slot>,
    /// The first granule that the map tells apart, by its address.
    first: usize,
    granules: usize,
}

// SAFETY: what is there is an array of atomics, in memory that belongs to the map.
unsafe impl Send for RawRoot {}
// SAFETY: as for Send.
unsafe impl Sync for RawRoot {}

impl RawRoot {
    /// Returns the root.
    ///
    /// # Safety
    ///
    /// The map is there as long as the result.
    #[inline]
    pub(super) const unsafe fn get<'map>(self) -> RootRef<'map> {
        RootRef {
            raw: self,
            _map: core::marker::PhantomData,
        }
    }
}

impl<'map> RootRef<'map> {
    /// Forgets how long the map is there.
    pub(super) const fn raw(self) -> RawRoot {
        self.raw
    }

    /// Returns the slot of a leaf.
    fn slot(self, n: usize) -> Option<&'map Slot> {
        if n >= self.raw.granules.div_ceil(LEAF) {
            return None;
        }
        // SAFETY: `Map::new` made as many slots.
        let slot = unsafe { self.raw.root.add(n) };
        // SAFETY: zeroed by `Map::new`, which is an array of null pointers, and only changed
        // through its atomics; there as long as the map, as whoever made this said.
        Some(unsafe { slot.as_ref() })
    }

    /// Returns the leaf that has an address, as a window.
    fn leaf(self, addr: usize) -> Option<RawWindow> {
        let granule = (addr >> GRANULE_BITS).wrapping_sub(self.raw.first);
        let n = granule >> LEAF_BITS;
        let entries = NonNull::new(self.slot(n)?.load(Acquire))?;
        Some(RawWindow {
            entries,
            start: (self.raw.first + n * LEAF) << GRANULE_BITS,
            len: LEAF.min(self.raw.granules - n * LEAF),
        })
    }

    #[inline]
    fn entry(self, addr: usize) -> Option<&'map Entry> {
        let granule = (addr >> GRANULE_BITS).wrapping_sub(self.raw.first);
        if granule >= self.raw.granules {
            return None;
        }
        // SAFETY: below `granules`, for which there are slots.
        let slot = unsafe { self.raw.root.add(granule >> LEAF_BITS) };
        // SAFETY: as in `slot`.
        let slot = unsafe { slot.as_ref() };
        let leaf = NonNull::new(slot.load(Acquire))?;
        // SAFETY: a leaf has LEAF entries, but for the last, which has as many as there are
        // granules.
        let entry = unsafe { leaf.add(granule % LEAF) };
        // SAFETY: zeroed by `Map::cover`, changed by its atomics only, and there as long as the
        // map.
        Some(unsafe { entry.as_ref() })
    }

    /// Returns the entry of the granule around `addr`, any address at all, or zero.
    #[inline]
    pub(super) fn value(self, addr: usize) -> u64 {
        self.entry(addr).map_or(0, |entry| entry.load(Acquire))
    }
}

/// Returns whose a granule is of which an entry has this value.
///
/// # Safety
///
/// As [`live`] asks.
#[inline]
pub(super) unsafe fn slab(value: u64) -> Option<Handle> {
    // Zero, if that is what there is.
    let descriptor = states(value).saturating_sub(STATES);
    // SAFETY: `set` stores more than what `Handle::exposed` returned, or zero; the heap is there,
    // as the caller says.
    unsafe { Handle::from_exposed(descriptor) }
}

/// Returns the class and the state of the live block that starts at `addr`, of whose granule an
/// entry has this value, if it has a class. Unless `CHECKED`, one is known to start there.
///
/// # Safety
///
/// The map of a heap has or had this value there, and the heap is there as long as the result.
#[inline]
pub(super) unsafe fn live<const CHECKED: bool>(
    value: u64,
    addr: usize,
) -> Option<(usize, NonNull<AtomicU8>)> {
    let (index, class) = class::divide(offset(value, addr), kind(value));
    let class = class?;
    // SAFETY: `set` stored all of the value at once: a class, a granule of a slab of that class,
    // and where its descriptor lies, which keeps its class as long as the heap: the index is that
    // of a block, or one more.
    let state = unsafe { state(value, index) };
    // SAFETY: as above; states are initialised, and changed by atomics only.
    let is_live = unsafe { state.as_ref() }.load(Relaxed) == LIVE;
    (!CHECKED || is_live).then_some((class, state))
}

/// Returns the [place](class::place) of the magazine for a block of whose granule an entry has this
/// value, if it is the first one of a slab whose [class is quick](class::is_quick).
#[inline]
pub(super) const fn quick_place(value: u64) -> Option<usize> {
    let place = low(value);
    // What is no slab has a lower one, and other granules of a slab have higher ones.
    if place.wrapping_sub(class::place(0)) > class::QUICK_LAST - class::place(0) {
        return None;
    }
    Some(place as usize)
}

/// Says whether an entry of this value has the [place](class::place) of a [quick
/// class](class::is_quick), and so is of the first granule of a slab of that.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "places have twelve bits")]
pub(super) const fn has_place(value: u64, place: usize) -> bool {
    low(value) == place as u16
}

/// Returns the state of the live block that starts at `addr`, of whose granule an entry has this
/// value. Unless `CHECKED`, one is known to start there.
///
/// # Safety
///
/// As [`live`] asks; [`quick_place`] returns the place of a class for the value, and the reciprocal
/// is that one's.
#[inline]
pub(super) unsafe fn live_quick<const CHECKED: bool>(
    value: u64,
    addr: usize,
    reciprocal: u64,
) -> Option<NonNull<AtomicU8>> {
    let (index, is_start) = class::quick_index(addr % GRANULE, reciprocal);
    if !is_start {
        return None;
    }
    // SAFETY: as in `live`: the value is of a slab of the class.
    let state = unsafe { state(value, index) };
    // SAFETY: as above; states are initialised, and changed by atomics only.
    let is_live = unsafe { state.as_ref() }.load(Relaxed) == LIVE;
    (!CHECKED || is_live).then_some(state)
}

/// Returns the state of a block by its number in a slab.
///
/// # Safety
///
/// The value has the address of more than `index` states.
#[inline]
unsafe fn state(value: u64, index: usize) -> NonNull<AtomicU8> {
    let first = with_exposed_provenance_mut::<AtomicU8>(states(value));
    // SAFETY: the caller's promise: there are more states.
    let state = unsafe { first.add(index) };
    // SAFETY: as above: within an allocation.
    unsafe { NonNull::new_unchecked(state) }
}

/// Returns the kind of slab in an entry.
#[inline]
const fn kind(value: u64) -> Kind {
    (value >> class::MAGAZINE.ilog2() & 0x7f) as Kind
}

/// Returns how far an address is from the start of a slab, of a granule of which an entry has this
/// value.
#[inline]
#[cfg_attr(
    not(target_pointer_width = "64"),
    expect(
        clippy::cast_possible_truncation,
        reason = "it has twenty bits at most"
    )
)]
const fn offset(value: u64, addr: usize) -> usize {
    let inside = (value << (GRANULE_BITS - INSIDE_SHIFT)) & (0xf << GRANULE_BITS);
    inside as usize | (addr % GRANULE)
}

/// Returns what an entry has beside an address.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
const fn low(value: u64) -> u16 {
    value as u16
}

/// Returns the address of the states in an entry.
#[inline]
#[cfg_attr(
    not(target_pointer_width = "64"),
    expect(
        clippy::cast_possible_truncation,
        reason = "it was the address of something"
    )
)]
const fn states(value: u64) -> usize {
    (value >> ADDRESS_SHIFT) as usize
}

/// Says whether an entry can hold the address of a descriptor.
pub(super) const fn fits(addr: usize) -> bool {
    addr as u64 <= u64::MAX >> ADDRESS_SHIFT
}

#[cfg(all(test, not(loom), target_pointer_width = "64"))]
mod tests {
    use super::{
        super::{Heap, HeapConfig, cache::Cache, fork::tests::Memory},
        *,
    };

    /// Blocks of a heap lie where others have left room: a thread finds entries by a subtraction
    /// there too.
    #[test]
    fn a_thread_takes_the_window_that_its_blocks_lie_in() {
        let heap = Heap::<Memory>::on(Memory, Memory, HeapConfig::new()).expect("metadata");
        let [near, far] = [1 << 40, 3 << 40];
        for (addr, len) in [(near, GRANULE), (far, 3 * GRANULE)] {
            let mut space = heap.lock_space();
            let made = heap
                .map
                .cover(&Memory, &mut space.leaves, heap.arena(), addr, len);
            made.expect("memory");
            heap.map.set(addr, len, Some(heap.nothing));
        }
        let cache = Cache::new(heap.map.root().raw());
        let follow = || {
            let addr = cache.place_for_window()?;
            cache.set_window(heap.map.window_around(addr)?);
            Some(addr)
        };
        assert_eq!(follow(), Some(0), "it has none");
        let wanted = |addr: usize| Some(heap.map.entry(addr)?.load(Relaxed));
        assert_eq!(cache.value_in_window(near), wanted(near));
        assert!(wanted(far).is_some_and(|value| value != 0));
        for end in [far, far + 2 * GRANULE] {
            assert_eq!(cache.value_in_window(end), None);
            // A few addresses elsewhere change nothing, many do.
            cache.miss(end);
            assert_eq!(follow(), None);
            (0..100).for_each(|_| cache.miss(end));
            assert_eq!(follow(), Some(end));
            assert_eq!(cache.value_in_window(end), wanted(end));
            assert_eq!(cache.value_in_window(near), None);
            (0..100).for_each(|_| cache.miss(near));
            assert_eq!(follow(), Some(near));
            assert_eq!(cache.value_in_window(near), wanted(near));
        }
        // Where nothing lies there is none to take.
        (0..100).for_each(|_| cache.miss(5 << 40));
        assert_eq!(follow(), Some(5 << 40));
        assert_eq!(cache.value_in_window(near), wanted(near));
        // One that is in a hurry finds its own again.
        cache.hurry();
        assert_eq!(follow(), Some(heap.map.window().map_or(0, |w| w.start)));
        assert_eq!(cache.value_in_window(near), wanted(near));
    }
}
