//! What a thread keeps: a magazine of free blocks for each class.
//!
//! ```text
//!   Cache      class 0          class 1          …           slots, in the arena
//!   ┌──────┬────────────────┬────────────────┬─────┐       ┌───────┬───────┬───────┬───┐
//!   │ next │ top bottom end │ top bottom end │     │  ───► │ block │ block │   .   │   │
//!   └──────┴────────────────┴────────────────┴─────┘       │ state │ state │   .   │   │
//!     64 bytes, 32 a class                                 └───────┴───────┴───────┴───┘
//!                                                         bottom           top         end
//! ```

use super::{
    class::CLASSES,
    config::MAGAZINE_MOST,
    map::RawRoot,
    slab::{Entry, FREED},
};
use crate::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use core::{
    alloc::Layout,
    array,
    ops::Deref,
    ptr::{NonNull, null_mut},
};

/// Blocks that a magazine has room for at first.
pub(super) const FIRST: u32 = 8;

/// A small stack of free blocks, from `bottom` to `top`, with room up to `end`. Only the thread that has the
/// cache changes it; others may look at the length.
#[repr(align(32))]
pub(super) struct Magazine {
    top: AtomicPtr<Entry>,
    bottom: AtomicPtr<Entry>,
    end: AtomicPtr<Entry>,
}

impl Magazine {
    fn new() -> Self {
        Self {
            top: AtomicPtr::new(null_mut()),
            bottom: AtomicPtr::new(null_mut()),
            end: AtomicPtr::new(null_mut()),
        }
    }

    /// Returns how many blocks there are. Another thread than the one that has the cache may be told of
    /// none while room is made for more, or of so many as a magazine can have at most.
    pub(super) fn len(&self) -> u32 {
        let bottom = self.bottom.load(Acquire);
        let len = entries(bottom, self.top.load(Acquire));
        let same = bottom == self.bottom.load(Relaxed) && len <= self.capacity();
        // Another thread may see the bottom of one time and the other two of another.
        if same && len <= MAGAZINE_MOST { len } else { 0 }
    }

    pub(super) fn capacity(&self) -> u32 {
        entries(self.bottom.load(Relaxed), self.end.load(Relaxed))
    }

    /// Returns the last block that was pushed.
    #[inline]
    pub(super) fn pop(&self) -> Option<Entry> {
        let top = self.top.load(Relaxed);
        if top == self.bottom.load(Relaxed) {
            return None;
        }
        // SAFETY: above the bottom, so that an entry of the same slots lies below.
        let top = unsafe { top.sub(1) };
        self.top.store(top, Relaxed);
        // SAFETY: entries below the top are initialised, and only this thread changes them.
        Some(unsafe { top.read() })
    }

    /// Adds a block; says whether there was room.
    #[inline]
    pub(super) fn push(&self, entry: Entry) -> bool {
        self.push_after(entry, || ())
    }

    /// Adds a block that is live until then; says whether there was room.
    #[inline]
    pub(super) fn push_live(&self, entry: Entry) -> bool {
        self.push_after(entry, || entry.state().store(FREED, Relaxed))
    }

    /// Adds a block, if there is room, after something else was done with it.
    #[inline]
    fn push_after(&self, entry: Entry, before: impl FnOnce()) -> bool {
        let top = self.top.load(Relaxed);
        if top == self.end.load(Relaxed) {
            return false;
        }
        before();
        // SAFETY: below the end, there is room for an entry; nobody else uses it.
        unsafe { top.write(entry) };
        // Release, since a forked child looks at the entries below the top.
        // SAFETY: as above.
        self.top.store(unsafe { top.add(1) }, Release);
        true
    }

    /// Takes the `count` blocks that were pushed first.
    pub(super) fn oldest(&self, count: u32) -> impl Iterator<Item = Entry> + '_ {
        debug_assert!(count <= self.len(), "so many are there");
        let bottom = self.bottom.load(Relaxed);
        (0..count as usize).map(move |n| {
            // SAFETY: n is below the length.
            let slot = unsafe { bottom.add(n) };
            // SAFETY: as above, initialised.
            unsafe { slot.read() }
        })
    }

    /// Forgets the `count` blocks that were pushed first.
    pub(super) fn forget_oldest(&self, count: u32) {
        let left = (self.len() - count) as usize;
        let bottom = self.bottom.load(Relaxed);
        if left != 0 {
            // SAFETY: count is below the length.
            let from = unsafe { bottom.add(count as usize) };
            // SAFETY: so many initialised entries follow, and there is room for all of them; only this
            // thread uses them.
            unsafe { bottom.copy_from(from, left) };
        }
        // SAFETY: not above the top.
        self.top.store(unsafe { bottom.add(left) }, Relaxed);
    }

    /// Turns all blocks around.
    pub(super) fn reverse(&self) {
        let bottom = self.bottom.load(Relaxed);
        let len = self.len() as usize;
        for n in 0..len / 2 {
            // SAFETY: below the length.
            let a = unsafe { bottom.add(n) };
            // SAFETY: as above.
            let b = unsafe { bottom.add(len - 1 - n) };
            // SAFETY: both are initialised and only this thread's.
            unsafe { a.swap(b) };
        }
    }

    /// Returns the slots, and their layout, if there are any.
    pub(super) fn memory(&self) -> Option<(NonNull<u8>, Layout)> {
        let slots = NonNull::new(self.bottom.load(Relaxed))?;
        Some((slots.cast(), Self::layout(self.capacity())?))
    }

    /// Forgets the slots of an empty magazine; they can be freed then.
    pub(super) fn shut(&self) -> Option<(NonNull<u8>, Layout)> {
        debug_assert!(self.len() == 0, "no block is lost");
        let memory = self.memory();
        for pointer in [&self.bottom, &self.top, &self.end] {
            pointer.store(null_mut(), Relaxed);
        }
        memory
    }

    /// Returns the layout of so many slots.
    pub(super) fn layout(capacity: u32) -> Option<Layout> {
        Layout::array::<Entry>(capacity as usize).ok()
    }

    /// Moves to larger slots, room for `capacity` blocks; the old ones can be freed then.
    pub(super) fn grow(&self, slots: NonNull<Entry>, capacity: u32) {
        let (old, len) = (self.bottom.load(Relaxed), self.len() as usize);
        debug_assert!(len <= capacity as usize, "nothing is lost");
        for n in 0..len {
            // SAFETY: below the length.
            let from = unsafe { old.add(n) };
            // SAFETY: below the capacity, which is not less than before.
            let to = unsafe { slots.add(n) };
            // SAFETY: initialised, as below the length.
            let entry = unsafe { from.read() };
            // SAFETY: fresh memory.
            unsafe { to.write(entry) };
        }
        let bottom = slots.as_ptr();
        self.bottom.store(bottom, Release);
        // SAFETY: len is not above the capacity, for which there is room.
        self.top.store(unsafe { bottom.add(len) }, Release);
        // SAFETY: as above.
        self.end
            .store(unsafe { bottom.add(capacity as usize) }, Relaxed);
    }
}

/// Returns how many entries fit between two addresses.
fn entries(from: *const Entry, to: *const Entry) -> u32 {
    let bytes = to.addr().wrapping_sub(from.addr());
    u32::try_from(bytes / size_of::<Entry>()).unwrap_or(u32::MAX)
}

/// The magazines of a thread. Caches are never freed before the heap is dropped.
#[repr(C, align(64))]
pub(super) struct Cache {
    /// The next of all caches there are.
    pub(super) next: AtomicPtr<Cache>,
    /// Whether a thread has it. Changed under the lock of the caches.
    pub(super) in_use: AtomicBool,
    pub(super) shard: AtomicU32,
    /// Whether a thread has it by its slot: in a forked child it is nobody's then, unless it is the slot of the
    /// thread that forked.
    pub(super) by_slot: AtomicBool,
    /// Whether its thread is in a call of a static heap. Only that thread looks, and its signal handlers.
    pub(super) is_busy: AtomicBool,
    /// The last tick that the thread saw.
    pub(super) ticks: AtomicU32,
    /// Bytes that were ever asked for by it.
    pub(super) requested: AtomicU64,
    /// The page map of the heap, here since a free looks here anyway.
    pub(super) root: RawRoot,
    pub(super) magazines: [Magazine; CLASSES],
}

impl Cache {
    /// Counts what is asked for. Only the thread that has the cache does.
    #[inline]
    pub(super) fn count(&self, bytes: usize) {
        let sum = self.requested.load(Relaxed).wrapping_add(bytes as u64);
        self.requested.store(sum, Relaxed);
    }

    pub(super) fn new(root: RawRoot) -> Self {
        Self {
            root,
            next: AtomicPtr::new(null_mut()),
            in_use: AtomicBool::new(true),
            shard: AtomicU32::new(0),
            by_slot: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            ticks: AtomicU32::new(0),
            requested: AtomicU64::new(0),
            magazines: array::from_fn(|_| Magazine::new()),
        }
    }
}

/// A cache's place in the arena, where it stays as long as the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
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

    /// Takes back what [`CacheRef::as_slot`] gave.
    ///
    /// # Safety
    ///
    /// The cache stays as long as every copy of this.
    #[inline]
    pub(super) const unsafe fn from_slot(value: *mut ()) -> Self {
        // SAFETY: the caller's promise: the pointer of a cache, which is not null.
        Self(unsafe { NonNull::new_unchecked(value.cast()) })
    }

    /// Returns the value of a thread's slot.
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
        // SAFETY: initialised and there, as whoever made this promised; it is made of atomics.
        unsafe { self.0.as_ref() }
    }
}
