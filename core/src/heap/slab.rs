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
//!   free deferred     0      DEFERRED        its slab
//!   given up          0      CORRUPT         nowhere
//!   being freed       0      CLAIMED         its slab, or nowhere
//!   left behind       0      LOST            nowhere
//! ```
//!
//! Nothing is written into free blocks: no stray write reaches a link, a block is known to be live
//! by its state, and what was never used is known to be zero. A large or huge block is a slab of
//! one block without a class.
//!
//! Descriptors keep their class and are never freed, so that a reader without a lock reads
//! a descriptor: an old one at worst, if the block that was asked about is being freed at that
//! moment.
//!
//! | room | what it has |
//! |---|---|
//! | `make` | how descriptors are made |
//! | `blocks` | free blocks: taken, and put back |
//! | `entry` | a block outside of its slab |
//! | `find` | which block is at an address, and is it live |
//! | `notes` | what was asked for, and canaries |
//! | `pages` | pages of free blocks only |

mod blocks;
mod entry;
mod find;
mod make;
mod notes;
mod pages;

pub(super) use entry::Entry;
pub(super) use make::{Notes, make};

use crate::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::Relaxed,
};
use core::{
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

/// The descriptor of some granules, with a cache line each for calls that free and for holders of
/// the lock.
#[repr(C, align(64))]
pub(super) struct Slab {
    start: AtomicPtr<u8>,
    len: AtomicUsize,
    size: AtomicUsize,
    /// The reciprocal that offsets are [divided](super::class::index) by.
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

/// The part that only the holder of a lock looks at: the slab's bin's, or that of the granules.
#[repr(C, align(64))]
pub(super) struct Guarded {
    bits: NonNull<[AtomicU64]>,
    /// Parts that gave their memory back, a bit each.
    holes: AtomicU64,
    free: AtomicU32,
    /// No free block lies in words of bits before this one.
    first: AtomicU16,
    /// How many blocks were free when idle pages were last given back; [`NEVER`] if a block was
    /// taken since.
    looked_at: AtomicU16,
    /// No block that begins as many bytes from the start, or more, was ever taken, and it reads
    /// zero.
    fresh_from: AtomicU32,
    /// The tick at which a block was taken last.
    taken_at: AtomicU32,
    pub(super) child: Link,
    pub(super) next: Link,
    pub(super) previous: Link,
}

// SAFETY: fields that change are atomics, and the two pointers are to atomics in memory that is
// never freed before the descriptor.
unsafe impl Send for Slab {}

// SAFETY: fields that change are atomics, and the pointers are to atomics in memory that is never
// freed before the descriptor.
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

/// A descriptor's place in the arena. It is only made here, of memory that stays as long as the
/// heap, and never leaves the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(NonNull<Slab>);

// SAFETY: a shared reference to a Slab, which is Sync.
unsafe impl Send for Handle {}

// SAFETY: a shared reference to a Slab, which is Sync.
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
        // SAFETY: `exposed` returned the address, of a descriptor, which is not null.
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
        // SAFETY: every handle was made by `make` of an initialised descriptor, which changes by
        // atomics only and stays as long as the arena; handles live in the heap, which owns the
        // arena.
        unsafe { self.0.as_ref() }
    }
}

impl Deref for Slab {
    type Target = Guarded;

    fn deref(&self) -> &Guarded {
        &self.guarded
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
        // SAFETY: initialised in `make`, changed by atomics only, and there as long as the
        // descriptor.
        unsafe { self.states.as_ref() }
    }

    /// Says that the one block is `size` bytes long, and its granules `len`.
    pub(super) fn resize(&self, size: usize, len: usize) {
        self.size.store(size, Relaxed);
        self.len.store(len, Relaxed);
    }

    /// Returns where the state of a block is, from which those of others can be reached.
    #[inline]
    fn state(&self, index: usize) -> NonNull<AtomicU8> {
        debug_assert!(index <= self.blocks(), "a state");
        // SAFETY: there is a state for each block, and one more.
        unsafe { self.states.cast::<AtomicU8>().add(index) }
    }
}
