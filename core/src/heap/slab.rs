//! Slabs: granules cut into blocks of one class, described outside of them.
//!
//! ```text
//!   Slab (128 bytes)         states                         free bits
//!   ┌───────┬───────────────┬──────────────────────────────┬──────────────────────────────┐
//!   │ where │ links, counts │ a byte a block, and one more │ a bit a block                │
//!   └───────┴───────────────┴──────────────────────────────┴──────────────────────────────┘
//!    any thread  bin's lock   any thread: live, or not       bin's lock: may be handed out
//!
//!   hardened heaps: behind the states, by the byte, what was not asked for of each block, which
//!   so is found by where the state lies; at the highest level, behind the bits, a canary a block
//!
//!   a block        free bit  state           goes to
//!   in its slab       1      ZERO, FREED     a magazine
//!   in a magazine     0      ZERO, FREED     its user, back to its slab
//!   in use            0      LIVE            a magazine
//!   put aside         0      DEFERRED           its slab
//!   given up          0      CORRUPT         nowhere
//!   being freed       0      CLAIMED         its slab, or nowhere
//!   left behind       0      LOST            nowhere
//! ```
//!
//! Nothing is written into free blocks: no stray write reaches a link, a block is known to be live by
//! its state, and what was never used is known to be zero. A large or huge block is a slab of one
//! block without a class.
//!
//! Descriptors keep their class and are never freed, so that whoever reads one without a lock reads a
//! descriptor: an old one at worst, if the block that was asked about is being freed at that moment.

use super::{
    class::{self, GRANULE},
    error::HeapError,
    hardened::{CANARY_LEAST, can_note},
    map::{self, Spot},
};
use crate::{
    arena::Arena,
    atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
    page::{PageRange, PageSize},
    provider::{ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ops::Deref,
    ptr::{NonNull, null_mut, with_exposed_provenance_mut},
};

/// Never handed out, in memory that reads zero.
pub(super) const ZERO: u8 = 0;
/// Free, and of unknown contents.
pub(super) const FREED: u8 = 1;
/// In use. Stored with release, for those who look without a lock: see [`Slab::around`].
pub(super) const LIVE: u8 = 2;
/// Freed by a call that could not wait for a lock.
pub(super) const DEFERRED: u8 = 3;
/// Given up.
pub(super) const CORRUPT: u8 = 4;
/// Being freed by a call that has it for itself, and looks whether it is corrupt.
pub(super) const CLAIMED: u8 = 5;
/// Free, in a slab that a forked child has left behind: it does not serve again.
const LOST: u8 = 6;

/// More blocks than any slab has.
const NEVER: u16 = u16::MAX;

/// Where a slab's states are, in bytes behind its descriptor's start.
pub(super) const STATES: usize = size_of::<Slab>();

/// What is known of some granules, at a cache line each for those who free and those who hold the lock.
#[repr(C, align(64))]
pub(super) struct Slab {
    start: AtomicPtr<u8>,
    len: AtomicUsize,
    size: AtomicUsize,
    /// As of the class.
    reciprocal: u64,
    states: NonNull<[AtomicU8]>,
    /// Of a class, its blocks' canaries, if the heap keeps those; of one block without a class,
    /// what was asked for.
    numbers: Option<NonNull<AtomicU64>>,
    class: u8,
    /// Whether the heap keeps what was asked for.
    has_asked: bool,
    shard: AtomicU8,
    /// Whether a forked child has left it behind: a call that the fork interrupted may be in it.
    is_abandoned: AtomicBool,
    /// Changes when granules are taken; odd while they are.
    version: AtomicU32,
    guarded: Guarded,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slab>() == 128, "two cache lines");

/// What only the holder of a lock looks at: of the slab's bin, or of the granules.
#[repr(C, align(64))]
pub(super) struct Guarded {
    bits: NonNull<[AtomicU64]>,
    /// Parts that gave their memory back, a bit each.
    holes: AtomicU64,
    free: AtomicU32,
    /// No free block lies in words of bits before this one.
    first: AtomicU16,
    /// How many blocks were free when idle pages were last given back; [`NEVER`] if a block was taken since.
    looked_at: AtomicU16,
    /// No block that begins so many bytes from the start, or more, was ever taken, and it reads zero.
    fresh_from: AtomicU32,
    /// The tick at which a block was taken last.
    taken_at: AtomicU32,
    pub(super) child: Link,
    pub(super) next: Link,
    pub(super) previous: Link,
}

// SAFETY: fields that change are atomics, and the two pointers are to atomics in memory that is never
// freed before the descriptor.
unsafe impl Send for Slab {}
// SAFETY: as for Send.
unsafe impl Sync for Slab {}

/// A descriptor, or none.
pub(super) struct Link(AtomicPtr<Slab>);

impl Link {
    fn none() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    pub(super) fn get(&self) -> Option<Handle> {
        NonNull::new(self.0.load(Relaxed)).map(Handle)
    }

    pub(super) fn set(&self, to: Option<Handle>) {
        self.0
            .store(to.map_or(null_mut(), |handle| handle.0.as_ptr()), Relaxed);
    }
}

/// A descriptor's place in the arena. It is only made here, of memory that stays as long as the heap,
/// and never leaves the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(NonNull<Slab>);

// SAFETY: a shared reference to a Slab, which is Sync.
unsafe impl Send for Handle {}
// SAFETY: as for Send.
unsafe impl Sync for Handle {}

impl Handle {
    /// Returns the address of the descriptor, by which [`Handle::from_exposed`] finds it again.
    pub(super) fn exposed(self) -> usize {
        self.0.expose_provenance().get()
    }

    /// Returns the descriptor at that address.
    ///
    /// # Safety
    ///
    /// `addr` came from [`Handle::exposed`], and the heap is not dropped.
    #[inline]
    pub(super) unsafe fn from_exposed_unchecked(addr: usize) -> Self {
        // SAFETY: the caller's promise: the address of a descriptor, which is not zero.
        Self(unsafe { NonNull::new_unchecked(with_exposed_provenance_mut(addr)) })
    }

    /// Returns the descriptor at that address; `None` for zero.
    ///
    /// # Safety
    ///
    /// `addr` is zero, or came from [`Handle::exposed`], and the heap is not dropped.
    #[inline]
    pub(super) unsafe fn from_exposed(addr: usize) -> Option<Self> {
        NonNull::new(with_exposed_provenance_mut(addr)).map(Self)
    }
}

impl Deref for Handle {
    type Target = Slab;

    #[inline]
    fn deref(&self) -> &Slab {
        // SAFETY: every handle was made by `make` of an initialised descriptor, which changes by atomics
        // only and stays as long as the arena; handles live in the heap, which owns the arena.
        unsafe { self.0.as_ref() }
    }
}

/// What is kept of blocks beside their states.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Notes {
    None,
    /// What was asked for.
    Asked,
    /// That, and the canaries of blocks with a class.
    Canaries,
}

/// Makes `count` descriptors of a class, each with room for the states of its blocks and for what
/// is kept of them, linked by `next`; returns the first.
///
/// # Errors
///
/// Where there is no metadata, or it lies above the addresses that the page map has room for.
pub(super) fn make<M: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<M, R>,
    class: u8,
    count: usize,
    notes: Notes,
) -> Result<Handle, HeapError> {
    let kind = usize::from(class);
    let has_class = kind < class::CLASSES;
    let (blocks, size, reciprocal) = if has_class {
        (
            class::blocks(kind),
            class::size(kind),
            class::reciprocal(kind),
        )
    } else {
        (1, 0, class::ONE_BLOCK)
    };
    let has_asked = notes != Notes::None;
    let words = blocks.div_ceil(64);
    let layout = Layout::new::<Slab>();
    // One state more, for addresses behind the last block.
    let states = match (has_class && has_asked, size <= class::BYTE_MAX) {
        (false, _) => blocks + 1,
        (true, true) => 2 * class::slack_after(kind),
        (true, false) => 3 * class::slack_after(kind),
    };
    let states_bytes = states * size_of::<AtomicU8>();
    let before_bits = STATES + states_bytes.next_multiple_of(size_of::<AtomicU64>());
    let before_numbers = before_bits + words * size_of::<AtomicU64>();
    let numbers = match notes {
        Notes::Canaries => blocks,
        Notes::Asked if !has_class => 1,
        Notes::Asked | Notes::None => 0,
    };
    let numbers_bytes = numbers * size_of::<AtomicU64>();
    let stride = (before_numbers + numbers_bytes).next_multiple_of(layout.align());
    let whole = Layout::from_size_align(stride * count, layout.align())
        .map_err(|_| HeapError::Metadata(ErrorKind::InvalidArgument.into()))?;
    let chunk = arena.alloc(whole).map_err(HeapError::Metadata)?;
    if !map::fits(chunk.addr().get() + (whole.size() - 1)) {
        // SAFETY: allocated just now with this layout, and not used.
        unsafe { arena.free(chunk, whole) };
        return Err(HeapError::Metadata(ErrorKind::OutsideRange.into()));
    }
    let mut next = None;
    for n in (0..count).rev() {
        // SAFETY: count strides fit in the chunk.
        let place = unsafe { chunk.add(n * stride) };
        // SAFETY: the states follow the descriptor within the stride.
        let first_state = unsafe { place.add(STATES) }.cast::<AtomicU8>();
        for number in 0..states {
            // SAFETY: so many bytes fit, by the stride.
            let state = unsafe { first_state.add(number) };
            let value = if number <= blocks { FREED } else { 0 };
            // SAFETY: in the fresh chunk.
            unsafe { state.write(AtomicU8::new(value)) };
        }
        // SAFETY: the bits follow the states within the stride.
        let bits = unsafe { place.add(before_bits) }.cast::<AtomicU64>();
        for word in 0..words {
            // SAFETY: so many words fit, by the stride.
            let word = unsafe { bits.add(word) };
            // SAFETY: in the fresh chunk; aligned, as strides and what is before the bits are.
            unsafe { word.write(AtomicU64::new(0)) };
        }
        // SAFETY: the numbers follow the bits within the stride, or nothing does.
        let first_number = unsafe { place.add(before_numbers) }.cast::<AtomicU64>();
        for number in 0..numbers {
            // SAFETY: so many fit, by the stride.
            let number = unsafe { first_number.add(number) };
            // SAFETY: in the fresh chunk; aligned, as words of bits are.
            unsafe { number.write(AtomicU64::new(0)) };
        }
        let slab = Slab {
            start: AtomicPtr::new(null_mut()),
            len: AtomicUsize::new(0),
            size: AtomicUsize::new(size),
            reciprocal,
            states: NonNull::slice_from_raw_parts(first_state, blocks + 1),
            numbers: (numbers != 0).then_some(first_number),
            class,
            has_asked,
            shard: AtomicU8::new(0),
            is_abandoned: AtomicBool::new(false),
            version: AtomicU32::new(0),
            guarded: Guarded {
                bits: NonNull::slice_from_raw_parts(bits, words),
                holes: AtomicU64::new(0),
                free: AtomicU32::new(0),
                first: AtomicU16::new(0),
                looked_at: AtomicU16::new(NEVER),
                fresh_from: AtomicU32::new(0),
                taken_at: AtomicU32::new(0),
                child: Link::none(),
                next: Link::none(),
                previous: Link::none(),
            },
        };
        slab.next.set(next);
        let place = place.cast::<Slab>();
        // SAFETY: in the fresh chunk; the chunk and the stride are aligned for it.
        unsafe { place.write(slab) };
        next = Some(Handle(place));
    }
    next.ok_or(HeapError::Config)
}

impl Deref for Slab {
    type Target = Guarded;

    fn deref(&self) -> &Guarded {
        &self.guarded
    }
}

/// A block that is not in its slab, and where its state is.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) block: NonNull<u8>,
    pub(super) state: NonNull<AtomicU8>,
}

impl Entry {
    #[inline]
    pub(super) fn state(&self) -> &AtomicU8 {
        // SAFETY: entries are made of a slab's states, which stay as long as the heap, and entries live
        // in the heap.
        unsafe { self.state.as_ref() }
    }

    /// Changes the state of a live block.
    ///
    /// # Errors
    ///
    /// [`HeapError::NotLive`] where another call has freed it since it was looked at.
    #[inline]
    pub(super) fn take_live(&self, to: u8) -> Result<(), HeapError> {
        let taken = self.state().compare_exchange(LIVE, to, Acquire, Relaxed);
        taken.map(|_| ()).map_err(|_| HeapError::NotLive)
    }

    /// Notes how much of a block of a class was not asked for, beside [`CANARY_LEAST`] bytes.
    ///
    /// # Safety
    ///
    /// The slab keeps what was asked for; `after` is the class's [`class::slack_after`], and its
    /// blocks are as long as [`class::BYTE_MAX`] at most unless `is_wide`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the two bytes")]
    pub(super) unsafe fn set_slack(&self, after: usize, slack: usize, is_wide: bool) {
        // SAFETY: the caller's promise: `make` made as many bytes behind the states.
        let low = unsafe { self.state.add(after) };
        // SAFETY: as above, initialised, changed by atomics only, and there as long as the heap.
        unsafe { low.as_ref() }.store(slack as u8, Relaxed);
        if is_wide {
            // SAFETY: as above, and as many once more.
            let high = unsafe { low.add(after) };
            // SAFETY: as above.
            unsafe { high.as_ref() }.store((slack >> u8::BITS) as u8, Relaxed);
        }
    }

    /// Returns what was noted by [`Entry::set_slack`]: something else if another thread notes it at
    /// this moment.
    ///
    /// # Safety
    ///
    /// Those of [`Entry::set_slack`].
    #[inline]
    pub(super) unsafe fn slack(&self, after: usize, is_wide: bool) -> usize {
        // SAFETY: the caller's promise: `make` made as many bytes behind the states.
        let low = unsafe { self.state.add(after) };
        // SAFETY: as above, initialised, changed by atomics only, and there as long as the heap.
        let slack = usize::from(unsafe { low.as_ref() }.load(Relaxed));
        if !is_wide {
            return slack;
        }
        // SAFETY: as above, and as many once more.
        let high = unsafe { low.add(after) };
        // SAFETY: as above.
        slack | usize::from(unsafe { high.as_ref() }.load(Relaxed)) << u8::BITS
    }

    /// Returns the number of the block in the slab whose states begin at an address, without a
    /// division; more than that has if it is no block of the slab.
    #[inline]
    fn number_from(&self, first_state: usize) -> usize {
        self.state.addr().get().wrapping_sub(first_state) / size_of::<AtomicU8>()
    }
}

impl Slab {
    #[inline]
    pub(super) const fn class(&self) -> usize {
        self.class as usize
    }

    pub(super) const fn is(&self, kind: u8) -> bool {
        self.class == kind
    }

    #[inline]
    pub(super) fn shard(&self) -> usize {
        usize::from(self.shard.load(Relaxed))
    }

    /// Says whether it never hands out blocks again, nor takes any back.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Relaxed)
    }

    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Relaxed);
    }

    /// Returns where the granules begin; dangling where there are none.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        NonNull::new(self.start.load(Relaxed)).unwrap_or(NonNull::dangling())
    }

    #[inline]
    pub(super) fn addr(&self) -> usize {
        self.start.load(Relaxed).addr()
    }

    /// Returns the bytes of the granules.
    #[inline]
    pub(super) fn len_bytes(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Returns the bytes of a block.
    #[inline]
    pub(super) fn block_bytes(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// Returns how many blocks may be handed out. The bin's lock is held.
    pub(super) fn free_blocks(&self) -> usize {
        self.free.load(Relaxed) as usize
    }

    #[inline]
    pub(super) fn blocks(&self) -> usize {
        self.states.len() - 1
    }

    #[inline]
    fn states(&self) -> &[AtomicU8] {
        // SAFETY: initialised in `make`, changed by atomics only, and there as long as the descriptor.
        unsafe { self.states.as_ref() }
    }

    /// Takes granules, all of whose blocks are free, with contents that are zero or unknown.
    pub(super) fn open(&self, start: NonNull<u8>, len: usize, zero: bool, shard: u8) {
        debug_assert!(len.is_multiple_of(GRANULE), "whole granules");
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        self.start.store(start.as_ptr(), Relaxed);
        self.len.store(len, Relaxed);
        self.shard.store(shard, Relaxed);
        for state in &self.states()[..self.blocks()] {
            state.store(if zero { ZERO } else { FREED }, Relaxed);
        }
        let mut left = self.blocks();
        for word in self.bits() {
            let ones = if left >= 64 {
                u64::MAX
            } else {
                (1 << left) - 1
            };
            word.store(ones, Relaxed);
            left = left.saturating_sub(64);
        }
        let blocks = u32::try_from(self.blocks()).unwrap_or(u32::MAX);
        self.free.store(blocks, Relaxed);
        self.first.store(0, Relaxed);
        self.looked_at.store(NEVER, Relaxed);
        let used = if zero { 0 } else { len };
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        self.fresh_from.store(used, Relaxed);
        self.version.store(version.wrapping_add(2), Release);
    }

    /// Says that the one block is `size` bytes long, and its granules `len`.
    pub(super) fn resize(&self, size: usize, len: usize) {
        self.size.store(size, Relaxed);
        self.len.store(len, Relaxed);
    }

    /// Returns the number of the block around `addr`, which lies in the granules, and whether it starts
    /// there; the number of blocks for what is left over behind them.
    #[inline]
    fn index(&self, addr: usize) -> (usize, bool) {
        class::index(addr.wrapping_sub(self.addr()), self.reciprocal)
    }

    /// Returns the live block that starts at `addr`.
    #[inline]
    pub(super) fn live(&self, addr: usize) -> Option<Entry> {
        self.block(addr, LIVE)
    }

    /// Returns the block that starts at `addr` and is free.
    #[inline]
    pub(super) fn freed(&self, addr: usize) -> Option<Entry> {
        self.block(addr, FREED)
    }

    /// Says whether this is of one block, without a class, that is live and starts at `addr`.
    #[inline]
    pub(super) fn is_live_big(&self, addr: usize) -> bool {
        self.class() >= class::CLASSES
            && self.addr() == addr
            && self.states()[0].load(Relaxed) == LIVE
    }

    /// Returns the block that starts at `addr` and was put aside.
    pub(super) fn deferred(&self, addr: usize) -> Option<Entry> {
        self.block(addr, DEFERRED)
    }

    /// Returns the block in a state that starts at `addr`.
    #[inline]
    fn block(&self, addr: usize, in_state: u8) -> Option<Entry> {
        let (index, is_start) = self.index(addr);
        let state = self.states().get(index)?;
        if !is_start || state.load(Relaxed) != in_state {
            return None;
        }
        // What the granules' owner may touch, whatever the caller's pointer was narrowed to.
        let block = self.start.load(Relaxed).with_addr(addr);
        Some(Entry {
            block: NonNull::new(block)?,
            state: self.state(index),
        })
    }

    /// Returns where the state of a block is, from which those of others can be reached.
    #[inline]
    fn state(&self, index: usize) -> NonNull<AtomicU8> {
        debug_assert!(index <= self.blocks(), "a state");
        // SAFETY: there is a state for each block, and one more.
        unsafe { self.states.cast::<AtomicU8>().add(index) }
    }

    /// Returns one of the numbers, if the heap keeps them.
    #[inline]
    fn number(&self, index: usize) -> Option<&AtomicU64> {
        let first = self.numbers.filter(|_| index < self.blocks())?;
        // SAFETY: `make` made as many numbers as there are blocks.
        let number = unsafe { first.add(index) };
        // SAFETY: as above, initialised, changed by atomics only, and there as long as the
        // descriptor.
        Some(unsafe { number.as_ref() })
    }

    /// Returns the canary of a block of this slab, if those are kept.
    #[inline]
    pub(super) fn canary(&self, entry: Entry) -> Option<u64> {
        let first_state = self.states.cast::<AtomicU8>().addr().get();
        let number = self.number(entry.number_from(first_state));
        Some(
            number
                .filter(|_| self.class() < class::CLASSES)?
                .load(Relaxed),
        )
    }

    /// Returns the canary of a block.
    ///
    /// # Safety
    ///
    /// A block of this slab, which is of a class, in a heap that keeps canaries.
    #[inline]
    pub(super) unsafe fn canary_of(&self, entry: Entry) -> u64 {
        let index = entry.number_from(self.states.cast::<AtomicU8>().addr().get());
        // SAFETY: the caller's promise: there are numbers.
        let first = unsafe { self.numbers.unwrap_unchecked() };
        // SAFETY: as above: as many as there are blocks.
        let number = unsafe { first.add(index) };
        // SAFETY: as above, initialised, changed by atomics only, and there as long as the
        // descriptor.
        unsafe { number.as_ref() }.load(Relaxed)
    }

    /// Notes the canaries of all blocks, which `canary` tells by their addresses, if the heap keeps
    /// them.
    pub(super) fn set_canaries(&self, canary: impl Fn(usize) -> u64) {
        for index in 0..self.blocks() {
            let Some(number) = self.number(index) else {
                return;
            };
            number.store(canary(self.addr() + index * self.block_bytes()), Relaxed);
        }
    }

    /// Notes what was asked for a block of this slab, if the heap keeps that. Of a class, as much
    /// as [`can_note`] says.
    #[inline]
    pub(super) fn set_asked(&self, entry: Entry, bytes: usize) {
        if !self.has_asked {
            return;
        }
        if self.class() < class::CLASSES {
            debug_assert!(
                can_note(self.class(), bytes),
                "{bytes} of {}",
                self.block_bytes()
            );
            let slack = self.block_bytes().wrapping_sub(bytes + CANARY_LEAST);
            let is_wide = self.block_bytes() > class::BYTE_MAX;
            // SAFETY: a block of this slab, which is of this class and keeps what was asked for.
            unsafe { entry.set_slack(class::slack_after(self.class()), slack, is_wide) };
        } else if let Some(number) = self.number(0) {
            number.store(bytes as u64, Relaxed);
        }
    }

    /// Returns how many bytes of the block of a number may be used, or `size` if it is none's.
    #[inline]
    pub(super) fn usable_by(&self, index: usize, size: usize) -> usize {
        if index >= self.blocks() {
            return size;
        }
        self.usable_of(Entry {
            block: self.start(),
            state: self.state(index),
        })
    }

    /// Returns how many bytes of a block of this slab may be used.
    #[inline]
    pub(super) fn usable_of(&self, entry: Entry) -> usize {
        let size = self.block_bytes();
        if !self.has_asked {
            return size;
        }
        if self.class() >= class::CLASSES {
            let asked = self.number(0).map(|number| number.load(Relaxed));
            return asked.map_or(size, |asked| usize::try_from(asked).unwrap_or(size));
        }
        let is_wide = size > class::BYTE_MAX;
        // SAFETY: a block of this slab, which is of this class and keeps what was asked for.
        let slack = unsafe { entry.slack(class::slack_after(self.class()), is_wide) };
        size.saturating_sub(slack + CANARY_LEAST)
    }

    /// Returns how many bytes of the block around `addr`, of which there are `size`, may be used.
    #[inline]
    pub(super) fn usable(&self, addr: usize, size: usize) -> usize {
        if self.has_asked {
            self.usable_by(self.index(addr).0, size)
        } else {
            size
        }
    }

    /// Returns the start and the size of the live block around `addr`. `None` where granules are taken
    /// meanwhile: then the block was freed before.
    #[inline]
    pub(super) fn around(&self, addr: usize) -> Option<(usize, usize)> {
        let version = self.version.load(Acquire);
        let start = self.addr();
        let (index, _) = class::index(addr.wrapping_sub(start), self.reciprocal);
        // Who made it live has seen what it is now, so that what is loaded behind this is no older.
        let live = self.states().get(index)?.load(Acquire) == LIVE;
        let size = self.block_bytes();
        fence(Acquire);
        let same = self.version.load(Relaxed) == version && version.is_multiple_of(2);
        let block = start.wrapping_add(index.wrapping_mul(size));
        (live && same && addr.wrapping_sub(block) < size).then_some((block, size))
    }

    /// As [`Slab::around`], for who knows from the page map that the slab is of a class, where it began, and the block's
    /// number and state: nothing that is loaded here waits for another.
    #[inline]
    pub(super) fn around_spot(&self, spot: &Spot) -> Option<(usize, usize)> {
        let version = self.version.load(Acquire);
        // SAFETY: a state of this slab, initialised in `make`, changed by atomics only, and there as long as the
        // descriptor.
        let state = unsafe { spot.state.as_ref() };
        let live = state.load(Acquire) == LIVE;
        let stays = self.addr() == spot.start;
        fence(Acquire);
        let same = self.version.load(Relaxed) == version && version.is_multiple_of(2);
        let size = class::size(spot.class);
        let block = spot.start.wrapping_add(spot.index.wrapping_mul(size));
        (live && stays && same).then_some((block, size))
    }

    /// Returns the number of the first live block from number `index` on.
    pub(super) fn live_from(&self, index: usize) -> Option<usize> {
        let states = self.states().get(index..self.blocks())?;
        let ahead = states.iter().position(|s| s.load(Relaxed) == LIVE)?;
        Some(index + ahead)
    }

    /// Returns the entry of the one block of this slab.
    pub(super) fn only(&self) -> Entry {
        Entry {
            block: self.start(),
            state: self.state(0),
        }
    }

    fn bits(&self) -> &[AtomicU64] {
        // SAFETY: as in states.
        unsafe { self.guarded.bits.as_ref() }
    }

    /// Returns which parts of [`Slab::hole_bytes`] gave their memory back, a bit each. The bin's lock is held.
    pub(super) fn holes(&self) -> u64 {
        self.holes.load(Relaxed)
    }

    /// Says whether a block was taken at tick `now` or at the one before.
    pub(super) fn is_recent(&self, now: u32) -> bool {
        now.wrapping_sub(self.taken_at.load(Relaxed)) < 2
    }

    pub(super) fn set_taken_at(&self, tick: u32) {
        self.taken_at.store(tick, Relaxed);
        self.looked_at.store(NEVER, Relaxed);
    }

    /// Says whether no block was taken or brought back since [`Slab::set_looked_at`]. The bin's lock is held.
    pub(super) fn is_looked_at(&self) -> bool {
        u32::from(self.looked_at.load(Relaxed)) == self.free.load(Relaxed)
    }

    /// Notes that there is no idle page left that the host takes.
    pub(super) fn set_looked_at(&self) {
        let free = u16::try_from(self.free.load(Relaxed)).unwrap_or(NEVER);
        self.looked_at.store(free, Relaxed);
    }

    pub(super) fn set_holes(&self, holes: u64) {
        self.holes.store(holes, Relaxed);
    }

    /// Returns how many pages one bit of [`Slab::holes`] stands for: one, or as many as it takes for all of the
    /// slab to fit in 64 bits.
    pub(super) fn hole_pages(&self, page: PageSize) -> u32 {
        let mut pages = 1;
        while self.len_bytes() / page.bytes() > 64 * pages as usize {
            pages *= 2;
        }
        pages
    }

    /// Returns the bytes of those.
    pub(super) fn hole_bytes(&self, page: PageSize) -> usize {
        page.bytes() * self.hole_pages(page) as usize
    }

    /// Returns which parts of [`Slab::hole_bytes`] hold only free blocks, some of which were used, a bit each. The
    /// bin's lock is held.
    pub(super) fn idle_parts(&self, page: PageSize) -> u64 {
        let size = self.block_bytes();
        let last = self.blocks() - 1;
        let is_free = |n: usize| self.bits()[n / 64].load(Relaxed) >> (n % 64) & 1 == 1;
        let was_used = |n: usize| self.states()[n].load(Relaxed) != ZERO;
        let part = self.hole_bytes(page);
        (0..self.len_bytes() / part)
            .filter(|number| {
                let first = (number * part / size).min(last);
                let blocks = first..=((number + 1) * part - 1).div_euclid(size).min(last);
                blocks.clone().all(is_free) && blocks.clone().any(was_used)
            })
            .fold(0, |parts, number| parts | 1 << number)
    }

    /// Returns the parts of `bytes` bytes that a block lies in, a bit each.
    pub(super) fn parts_of(&self, entry: Entry, bytes: usize) -> u64 {
        let offset = entry.block.addr().get() - self.addr();
        let first = offset / bytes;
        let last = (offset + self.block_bytes() - 1) / bytes;
        debug_assert!(last < 64, "a part for each bit");
        (u64::MAX >> (63 - (last - first))) << first
    }

    /// Notes that free blocks that lie in a part of the granules as a whole read zero. The bin's lock is held.
    pub(super) fn clear_blocks(&self, part: PageRange) {
        let size = self.block_bytes();
        let first = (part.addr() - self.addr()).div_ceil(size);
        let behind = (part.end() - self.addr()) / size;
        let states = &self.states()[..self.blocks()];
        for state in states.iter().take(behind).skip(first) {
            state.store(ZERO, Relaxed);
        }
    }

    /// Returns how many pages nobody can have touched: none of their blocks was ever taken. The bin's lock
    /// is held.
    pub(super) fn fresh_pages(&self, page: PageSize) -> u32 {
        let used = page.round_up(self.fresh_from.load(Relaxed) as usize);
        let bytes = self.len_bytes().saturating_sub(used.unwrap_or(usize::MAX));
        u32::try_from(bytes / page.bytes()).unwrap_or(0)
    }

    /// Takes up to `most` free blocks, the lowest first, and hands each to `take`. The bin's lock is
    /// held.
    pub(super) fn take(&self, most: usize, mut take: impl FnMut(Entry)) -> usize {
        let (start, size) = (self.start(), self.block_bytes());
        let states = self.states.cast::<AtomicU8>();
        let first = self.first.load(Relaxed) as usize;
        debug_assert!(most != 0, "one block at least");
        let mut missing = most;
        let mut behind = 0;
        for (word, bits) in self.bits().iter().enumerate().skip(first) {
            let mut left = bits.load(Relaxed);
            if left == 0 {
                continue;
            }
            let mut index = 0;
            while left != 0 && missing != 0 {
                index = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                missing -= 1;
                // SAFETY: blocks lie within the granules: there are len / size of them, and a bit for each.
                let block = unsafe { start.add(index * size) };
                // SAFETY: there is a state for each block.
                let state = unsafe { states.add(index) };
                take(Entry { block, state });
            }
            bits.store(left, Relaxed);
            behind = (index + 1) * size;
            if missing == 0 || left != 0 {
                self.first.store(u16::try_from(word).unwrap_or(0), Relaxed);
                break;
            }
        }
        let taken = most - missing;
        let behind = u32::try_from(behind).unwrap_or(u32::MAX);
        let used = self.fresh_from.load(Relaxed).max(behind);
        self.fresh_from.store(used, Relaxed);
        let free = self.free.load(Relaxed) - u32::try_from(taken).unwrap_or(0);
        self.free.store(free, Relaxed);
        taken
    }

    /// Takes one of the free blocks. The bin's lock is held.
    pub(super) fn take_any(&self, random: u64) -> Option<Entry> {
        let free = self.free.load(Relaxed);
        let mut nth = usize::try_from(random.checked_rem(u64::from(free))?).ok()?;
        for (word, bits) in self.bits().iter().enumerate() {
            let mut left = bits.load(Relaxed);
            let count = left.count_ones() as usize;
            if nth >= count {
                nth -= count;
                continue;
            }
            for _ in 0..nth {
                left &= left - 1;
            }
            let bit = left.trailing_zeros();
            bits.store(bits.load(Relaxed) & !(1 << bit), Relaxed);
            self.free.store(free - 1, Relaxed);
            let (index, size) = (word * 64 + bit as usize, self.block_bytes());
            let behind = u32::try_from((index + 1) * size).unwrap_or(u32::MAX);
            let used = self.fresh_from.load(Relaxed).max(behind);
            self.fresh_from.store(used, Relaxed);
            // SAFETY: blocks lie within the granules: there are len / size of them.
            let block = unsafe { self.start().add(index * size) };
            return Some(Entry {
                block,
                state: self.state(index),
            });
        }
        None
    }

    /// Counts the free blocks again, for a forked child, and returns how many there are.
    pub(super) fn recount(&self) -> usize {
        if self.is_abandoned() {
            // It goes on to count what it has free for whoever it was left to.
            let states = self.states()[..self.blocks()].iter();
            let lost = states.filter(|state| state.load(Relaxed) == LOST).count();
            return (self.count_bits() + lost).min(self.blocks());
        }
        let free = self.count_bits();
        self.free
            .store(u32::try_from(free).unwrap_or(u32::MAX), Relaxed);
        self.first.store(0, Relaxed);
        let is_taken = |n: &usize| self.bits()[n / 64].load(Relaxed) >> (n % 64) & 1 == 0;
        let behind = (0..self.blocks())
            .rev()
            .find(is_taken)
            .map_or(0, |last| last + 1);
        let behind = u32::try_from(behind * self.block_bytes()).unwrap_or(u32::MAX);
        let used = self.fresh_from.load(Relaxed).max(behind);
        self.fresh_from.store(used, Relaxed);
        free
    }

    fn count_bits(&self) -> usize {
        let ones = self
            .bits()
            .iter()
            .map(|word| word.load(Relaxed).count_ones());
        ones.sum::<u32>() as usize
    }

    /// Takes blocks out of use as long as they are this slab's; returns the others.
    pub(super) fn lose<'a>(&self, entries: &'a [Entry]) -> &'a [Entry] {
        let first_state = self.states.cast::<AtomicU8>().addr().get();
        let is_other = |entry: &Entry| entry.number_from(first_state) >= self.blocks();
        let count = entries.iter().position(is_other);
        let (own, rest) = entries.split_at(count.unwrap_or(entries.len()));
        for entry in own {
            entry.state().store(LOST, Relaxed);
        }
        rest
    }

    /// Puts blocks back as long as they are this slab's, and returns the others. The bin's lock is held.
    pub(super) fn put<'a>(&self, entries: &'a [Entry]) -> &'a [Entry] {
        let first_state = self.states.cast::<AtomicU8>().addr().get();
        let (bits, blocks) = (self.bits(), self.blocks());
        let (mut least, mut free) = (self.first.load(Relaxed), self.free.load(Relaxed));
        let number = |entry: &Entry| entry.number_from(first_state);
        let mut rest = entries;
        while let Some(entry) = rest.first()
            && let at = number(entry)
            && at < blocks
        {
            // Neighbours that come one after the other often are in one word, which so is loaded and stored once.
            let word = at / 64;
            let mut ones = bits[word].load(Relaxed);
            while let Some((entry, behind)) = rest.split_first()
                && let index = number(entry)
                && index / 64 == word
                && index < blocks
            {
                rest = behind;
                // Two threads that freed it at the same moment may both bring it, the second one when it is in use
                // again. The bit is set already, or the block is live, then.
                let is_live = entry.state().load(Relaxed) == LIVE;
                let bit = u64::from(!is_live) << (index % 64) & !ones;
                ones |= bit;
                free += u32::from(bit != 0);
            }
            bits[word].store(ones, Relaxed);
            least = least.min(u16::try_from(word).unwrap_or(0));
        }
        self.first.store(least, Relaxed);
        self.free.store(free, Relaxed);
        rest
    }
}
