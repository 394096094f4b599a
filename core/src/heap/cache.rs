//! The cache of a thread: a magazine of free blocks for each class.
//!
//! ```text
//!   Cache      class 0          class 1          …           slots, in the arena
//!   ┌──────┬────────────────┬────────────────┬─────┐       ┌───────┬───────┬───────┬───┐
//!   │ page │ top bottom end │ top bottom end │     │  ───► │ block │ block │   .   │   │
//!   │ map  │ reciprocal     │ reciprocal     │     │       │ state │ state │   .   │   │
//!   └──────┴────────────────┴────────────────┴─────┘       └───────┴───────┴───────┴───┘
//!     64 bytes, 32 a class                                bottom           top         end
//! ```
//!
//! | room | what it has |
//! |---|---|
//! | `quick` | the calls that need nothing but a cache |
//! | `sealed` | those of the lower level of hardening |
//! | `magazine` | a stack of free blocks of one class |
//! | `window` | where a free finds the entry of its block |
//! | `budget` | when a thread looks at the clock |
//! | `interrupted` | what signal handlers see of the call that they interrupted |

mod budget;
mod interrupted;
mod magazine;
mod quick;
mod sealed;
mod window;

use budget::{BATCH, BUDGET};
pub(super) use magazine::{FIRST, Magazine};
pub(super) use sealed::HardenedCache;

use super::{
    class::{self, CLASSES},
    hardened::Canaries,
    map::{self, RawRoot},
};
use crate::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use core::{
    array,
    ops::Deref,
    ptr::{NonNull, null_mut},
};

/// The magazines of a thread. Caches are never freed before the heap is dropped.
#[repr(C, align(64))]
pub(super) struct Cache {
    /// Where the stack of its thread ended when that began the call of a static heap that it is in;
    /// zero if it is in none. Only that thread looks, and its signal handlers.
    pub(super) mark: AtomicUsize,
    /// A window of the page map; see [`map::RawWindow`]. Of no length before there is one, and
    /// where another thread wants this one to take a slow path.
    window: AtomicPtr<map::Entry>,
    window_start: AtomicUsize,
    window_len: AtomicUsize,
    /// Bytes that may be asked for before the thread looks at the clock, as a signed number: see
    /// [`Cache::count`].
    budget: AtomicU64,
    /// The page map of the heap, for what does not lie in the window.
    pub(super) root: RawRoot,
    /// At [`class::NO_PLACE`], always without blocks.
    none: Magazine,
    pub(super) magazines: [Magazine; CLASSES],
    /// Bytes that the thread was ever allowed to ask for.
    granted: AtomicU64,
    /// The bytes that are granted next time, and when that was last, in milliseconds.
    grant: AtomicU64,
    looked: AtomicU64,
    /// Blocks that a magazine gets at once when it is empty, by class.
    batches: [AtomicU8; CLASSES],
    /// The next of all caches there are.
    pub(super) next: AtomicPtr<Cache>,
    /// The next in one of the lists of those without a thread. Guarded by the lock of the caches.
    pub(super) next_unused: AtomicPtr<Cache>,
    /// Whether a thread has it. Changed under the lock of the caches.
    pub(super) in_use: AtomicBool,
    pub(super) shard: AtomicU32,
    /// Whether a thread has it by its slot: in a forked child no thread has it then, unless it is
    /// the slot of the thread that forked.
    pub(super) by_slot: AtomicBool,
    /// The class and one of the magazine whose slots that call is changing; zero if it is none's.
    pub(super) changing: AtomicU32,
    /// The locks of a static heap that its thread may hold or wait for, a bit each; and which
    /// bin's.
    awaited: AtomicU32,
    /// Where its stack ends at most while it holds the last of those.
    awaited_at: AtomicUsize,
    pub(super) bin: AtomicU32,
    /// Where the slot of its thread keeps its value; null if the slot does not tell. See
    /// [`ThreadSlot::place`](super::ThreadSlot::place).
    pub(super) place: AtomicPtr<*mut ()>,
    /// An address that did not lie in the window since the thread looked at the clock, and how many
    /// did not.
    missed: AtomicUsize,
    misses: AtomicU32,
    /// Random numbers that were drawn and are to be used.
    pub(super) random: AtomicU64,
    /// The magazines of a hardened heap, one a class, behind this cache; quick calls of others find
    /// those above without room.
    hardened: AtomicPtr<Magazine>,
    /// Its canaries, if it is of the lower level.
    seals: AtomicPtr<Canaries>,
    /// The last tick that the thread saw, and the last trim.
    pub(super) ticks: AtomicU32,
    pub(super) trims: AtomicU32,
}

impl Cache {
    pub(super) fn new(root: RawRoot) -> Self {
        Self {
            mark: AtomicUsize::new(0),
            window: AtomicPtr::new(null_mut()),
            window_start: AtomicUsize::new(0),
            window_len: AtomicUsize::new(0),
            budget: AtomicU64::new(BUDGET),
            root,
            none: Magazine::none(),
            magazines: array::from_fn(Magazine::new),
            granted: AtomicU64::new(BUDGET),
            grant: AtomicU64::new(BUDGET),
            looked: AtomicU64::new(0),
            batches: array::from_fn(|_| AtomicU8::new(BATCH)),
            next: AtomicPtr::new(null_mut()),
            next_unused: AtomicPtr::new(null_mut()),
            in_use: AtomicBool::new(true),
            shard: AtomicU32::new(0),
            by_slot: AtomicBool::new(false),
            changing: AtomicU32::new(0),
            awaited: AtomicU32::new(0),
            awaited_at: AtomicUsize::new(0),
            bin: AtomicU32::new(0),
            place: AtomicPtr::new(null_mut()),
            missed: AtomicUsize::new(0),
            misses: AtomicU32::new(0),
            random: AtomicU64::new(0),
            hardened: AtomicPtr::new(null_mut()),
            seals: AtomicPtr::new(null_mut()),
            ticks: AtomicU32::new(0),
            trims: AtomicU32::new(0),
        }
    }

    /// Says whether there is no block in it.
    pub(super) fn is_empty(&self) -> bool {
        (0..CLASSES).all(|class| self.stack(class).len() == 0)
    }

    /// Returns how many bytes of blocks its magazines have room for.
    pub(super) fn room(&self) -> usize {
        let room = |class| self.stack(class).capacity() as usize * class::size(class);
        (0..CLASSES).map(room).sum()
    }

    /// Returns the shard that its thread takes blocks from.
    pub(super) fn shard(&self) -> usize {
        self.shard.load(Relaxed) as usize
    }

    /// Returns the magazine of a class that calls use which are not quick.
    #[inline]
    pub(super) fn stack(&self, class: usize) -> &Magazine {
        debug_assert!(class < CLASSES, "a class");
        match NonNull::new(self.hardened.load(Relaxed)) {
            Some(first) => {
                // SAFETY: `new_hardened` stored where as many magazines are as there are classes.
                let magazine = unsafe { first.add(class) };
                // SAFETY: initialised by `new_hardened`, changed by atomics only, and there as long
                // as the cache.
                unsafe { magazine.as_ref() }
            }
            None => &self.magazines[class],
        }
    }
}

#[cfg(not(loom))]
const _: () = {
    assert!(
        size_of::<Magazine>() == class::MAGAZINE,
        "places are counted in magazines"
    );
    assert!(
        core::mem::offset_of!(Cache, magazines) == class::place(0) as usize,
        "the first one's"
    );
    assert!(
        core::mem::offset_of!(Cache, mark) == 0,
        "what a slot points to begins with a mark"
    );
    assert!(
        core::mem::offset_of!(Cache, none) == class::NO_PLACE,
        "no class's"
    );
    assert!(
        core::mem::offset_of!(HardenedCache, magazines) == size_of::<Cache>(),
        "right behind"
    );
};

/// A cache's place in the arena, where it stays as long as the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct CacheRef(NonNull<Cache>);

impl CacheRef {
    /// Takes an initialised cache.
    ///
    /// # Safety
    ///
    /// It stays as long as every copy of this.
    pub(super) const unsafe fn new(cache: NonNull<Cache>) -> Self {
        Self(cache)
    }

    /// Returns the mark of what a slot points to: a cache's, or one of no thread's.
    ///
    /// # Safety
    ///
    /// [`CacheRef::as_slot`] gave the value, and the cache stays as long as the result; or a mark
    /// lies there for good.
    #[cfg(not(all(test, loom)))]
    #[inline]
    pub(super) const unsafe fn mark<'a>(value: *mut ()) -> &'a AtomicUsize {
        // SAFETY: `as_slot` gave a cache, which begins with its mark, or a mark lies there for
        // good; both are initialised, and changed by atomics only.
        unsafe { &*value.cast() }
    }

    /// Takes back what [`CacheRef::as_slot`] gave.
    ///
    /// # Safety
    ///
    /// The cache stays as long as every copy of this.
    #[inline]
    pub(super) const unsafe fn from_slot(value: *mut ()) -> Self {
        // SAFETY: `as_slot` gave the value, of a cache's pointer, which is not null.
        Self(unsafe { NonNull::new_unchecked(value.cast()) })
    }

    /// Returns the value of a thread's slot.
    #[inline]
    pub(super) const fn as_slot(self) -> *mut () {
        self.0.as_ptr().cast()
    }

    pub(super) const fn as_ptr(self) -> *mut Cache {
        self.0.as_ptr()
    }
}

impl Deref for CacheRef {
    type Target = Cache;

    #[inline]
    fn deref(&self) -> &Cache {
        // SAFETY: initialised and there, as the caller of `new` promised; it is made of atomics.
        unsafe { self.0.as_ref() }
    }
}
