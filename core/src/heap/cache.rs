//! What a thread keeps: a magazine of free blocks for each class.
//!
//! ```text
//!   Cache      class 0        class 1        …            slots, in the arena
//!   ┌──────┬──────────────┬──────────────┬─────┐       ┌───────┬───────┬───────┬───
//!   │ next │ slots len cap│ slots len cap│     │  ───► │ block │ block │   .   │
//!   └──────┴──────────────┴──────────────┴─────┘       │ state │ state │   .   │
//!     64 bytes, 16 a class                             └───────┴───────┴───────┴───
//! ```

use super::{class::CLASSES, slab::Entry};
use core::{
    alloc::Layout,
    ops::Deref,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering::Relaxed},
};

/// Blocks that a magazine has room for at first.
pub(super) const FIRST: u32 = 8;

/// A small stack of free blocks. Only the thread that has the cache changes it; others may look at the
/// length.
pub(super) struct Magazine {
    slots: AtomicPtr<Entry>,
    len: AtomicU32,
    capacity: AtomicU32,
}

impl Magazine {
    const fn new() -> Self {
        Self {
            slots: AtomicPtr::new(null_mut()),
            len: AtomicU32::new(0),
            capacity: AtomicU32::new(0),
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.len.load(Relaxed)
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity.load(Relaxed)
    }

    /// Returns the last block that was pushed.
    #[inline]
    pub(super) fn pop(&self) -> Option<Entry> {
        let len = self.len.load(Relaxed).checked_sub(1)?;
        self.len.store(len, Relaxed);
        // SAFETY: len is below the capacity, for which there is room behind slots.
        let slot = unsafe { self.slots.load(Relaxed).add(len as usize) };
        // SAFETY: slots below the length are initialised, and only this thread changes them.
        Some(unsafe { slot.read() })
    }

    /// Adds a block; says whether there was room.
    #[inline]
    pub(super) fn push(&self, entry: Entry) -> bool {
        let len = self.len.load(Relaxed);
        if len >= self.capacity.load(Relaxed) {
            return false;
        }
        // SAFETY: len is below the capacity, for which there is room behind slots.
        let slot = unsafe { self.slots.load(Relaxed).add(len as usize) };
        // SAFETY: as above; nobody else uses the slots.
        unsafe { slot.write(entry) };
        self.len.store(len + 1, Relaxed);
        true
    }

    /// Takes the `count` blocks that were pushed first.
    pub(super) fn oldest(&self, count: u32) -> impl Iterator<Item = Entry> + '_ {
        debug_assert!(count <= self.len(), "so many are there");
        let slots = self.slots.load(Relaxed);
        (0..count as usize).map(move |n| {
            // SAFETY: n is below the length.
            let slot = unsafe { slots.add(n) };
            // SAFETY: as above, initialised.
            unsafe { slot.read() }
        })
    }

    /// Forgets the `count` blocks that were pushed first.
    pub(super) fn forget_oldest(&self, count: u32) {
        let left = self.len() - count;
        let slots = self.slots.load(Relaxed);
        if left != 0 {
            // SAFETY: count is below the length.
            let from = unsafe { slots.add(count as usize) };
            // SAFETY: so many initialised slots follow, and slots has room for all of them; only this
            // thread uses them.
            unsafe { slots.copy_from(from, left as usize) };
        }
        self.len.store(left, Relaxed);
    }

    /// Turns the last `count` blocks around.
    pub(super) fn reverse_last(&self, count: u32) {
        let slots = self.slots.load(Relaxed);
        let len = self.len() as usize;
        for n in 0..count as usize / 2 {
            // SAFETY: below the length, as count is not above it.
            let a = unsafe { slots.add(len - count as usize + n) };
            // SAFETY: as above.
            let b = unsafe { slots.add(len - 1 - n) };
            // SAFETY: both are initialised and only this thread's.
            unsafe { a.swap(b) };
        }
    }

    /// Returns the slots, and their layout, if there are any.
    pub(super) fn memory(&self) -> Option<(NonNull<u8>, Layout)> {
        let slots = NonNull::new(self.slots.load(Relaxed))?;
        Some((slots.cast(), Self::layout(self.capacity())?))
    }

    /// Forgets the slots of an empty magazine; they can be freed then.
    pub(super) fn shut(&self) -> Option<(NonNull<u8>, Layout)> {
        debug_assert!(self.len() == 0, "no block is lost");
        let memory = self.memory();
        self.slots.store(null_mut(), Relaxed);
        self.capacity.store(0, Relaxed);
        memory
    }

    /// Returns the layout of so many slots.
    pub(super) fn layout(capacity: u32) -> Option<Layout> {
        Layout::array::<Entry>(capacity as usize).ok()
    }

    /// Moves to larger slots; the old ones can be freed then.
    pub(super) fn grow(&self, slots: NonNull<Entry>, capacity: u32) {
        let old = self.slots.load(Relaxed);
        for n in 0..self.len() as usize {
            // SAFETY: below the length.
            let from = unsafe { old.add(n) };
            // SAFETY: below the capacity, which is not less than before.
            let to = unsafe { slots.add(n) };
            // SAFETY: initialised, as below the length.
            let entry = unsafe { from.read() };
            // SAFETY: fresh memory.
            unsafe { to.write(entry) };
        }
        self.slots.store(slots.as_ptr(), Relaxed);
        self.capacity.store(capacity, Relaxed);
    }
}

/// The magazines of a thread. Caches are never freed before the heap is dropped.
#[repr(C, align(64))]
pub(super) struct Cache {
    /// The next of all caches there are.
    pub(super) next: AtomicPtr<Cache>,
    /// Whether a thread has it. Changed under the lock of the caches.
    pub(super) in_use: AtomicBool,
    pub(super) shard: AtomicU32,
    pub(super) magazines: [Magazine; CLASSES],
}

impl Cache {
    pub(super) const fn new() -> Self {
        Self {
            next: AtomicPtr::new(null_mut()),
            in_use: AtomicBool::new(true),
            shard: AtomicU32::new(0),
            magazines: [const { Magazine::new() }; CLASSES],
        }
    }
}

/// A cache's place in the arena, where it stays as long as the heap.
#[derive(Clone, Copy)]
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
