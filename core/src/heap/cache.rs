//! What a thread keeps: a magazine of free blocks for each class.
//!
//! ```text
//!   Cache      class 0          class 1          …           slots, in the arena
//!   ┌──────┬────────────────┬────────────────┬─────┐       ┌───────┬───────┬───────┬───┐
//!   │ page │ top bottom end │ top bottom end │     │  ───► │ block │ block │   .   │   │
//!   │ map  │ reciprocal     │ reciprocal     │     │       │ state │ state │   .   │   │
//!   └──────┴────────────────┴────────────────┴─────┘       └───────┴───────┴───────┴───┘
//!     64 bytes, 32 a class                                bottom           top         end
//! ```

use super::{
    class::{self, CLASSES},
    config::MAGAZINE_MOST,
    map::{self, RawRoot, RawWindow},
    slab::{Entry, FREED},
};
use crate::atomic::{
    self, AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::{
    alloc::Layout,
    array, mem,
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
    /// What offsets into slabs of the class are [divided](class::index) by, here since a free looks here anyway.
    pub(super) reciprocal: u64,
}

impl Magazine {
    pub(super) fn new(class: usize) -> Self {
        Self {
            top: AtomicPtr::new(null_mut()),
            bottom: AtomicPtr::new(null_mut()),
            end: AtomicPtr::new(null_mut()),
            reciprocal: class::reciprocal(class),
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

    /// Reads one of the pointers, for the thread that has the cache.
    #[inline]
    fn own(pointer: &AtomicPtr<Entry>) -> *mut Entry {
        // SAFETY: only that thread changes them, which is the one that allocates and frees by this magazine.
        unsafe { atomic::own_ptr(pointer) }
    }

    /// Returns the last block that was pushed.
    #[inline]
    pub(super) fn pop(&self) -> Option<Entry> {
        let (top, bottom) = (Self::own(&self.top), Self::own(&self.bottom));
        if top == bottom {
            return None;
        }
        // SAFETY: above the bottom, so that an entry of the same slots lies below.
        let top = unsafe { top.sub(1) };
        self.top.store(top, Relaxed);
        // SAFETY: entries below the top are initialised, and only this thread changes them.
        Some(unsafe { top.read() })
    }

    /// Returns one of the blocks, by a random number.
    #[inline]
    pub(super) fn pop_any(&self, random: u16) -> Option<Entry> {
        let last = self.pop()?;
        let (top, bottom) = (Self::own(&self.top), Self::own(&self.bottom));
        let count = entries(bottom, top) + 1;
        let nth = (count as usize * usize::from(random)) >> u16::BITS;
        if nth == count as usize - 1 {
            return Some(last);
        }
        // SAFETY: below the number of those that are left.
        let slot = unsafe { bottom.add(nth) };
        // SAFETY: as above, initialised; only this thread changes entries.
        let any = unsafe { slot.read() };
        // SAFETY: as above.
        unsafe { slot.write(last) };
        Some(any)
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
        let (top, end) = (Self::own(&self.top), Self::own(&self.end));
        if top == end {
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

    /// Writes a block into an empty magazine, at a place from the bottom. The magazine has it after
    /// [`Magazine::filled`] only.
    pub(super) fn put_at(&self, place: u32, entry: Entry) {
        debug_assert!(place < self.capacity(), "there is room");
        // SAFETY: below the end, there is room for an entry.
        let slot = unsafe { self.bottom.load(Relaxed).add(place as usize) };
        // SAFETY: as above; nothing else uses it.
        unsafe { slot.write(entry) };
    }

    /// Says that an empty magazine has the blocks that were put at places from `from` up to `to`.
    pub(super) fn filled(&self, from: u32, to: u32) {
        let bottom = self.bottom.load(Relaxed);
        let count = (to - from) as usize;
        if count == 0 {
            return;
        }
        if from != 0 {
            // SAFETY: `to` is not above the capacity.
            let first = unsafe { bottom.add(from as usize) };
            // SAFETY: as many entries were written there, and there is room at the bottom.
            unsafe { bottom.copy_from(first, count) };
        }
        // SAFETY: not above the capacity.
        self.top.store(unsafe { bottom.add(count) }, Release);
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
#[inline]
fn entries(from: *const Entry, to: *const Entry) -> u32 {
    let bytes = to.addr().wrapping_sub(from.addr());
    u32::try_from(bytes / size_of::<Entry>()).unwrap_or(u32::MAX)
}

/// Blocks that a magazine gets at once at first. Twice as many each time, until a tick finds them unused.
const BATCH: u8 = 4;

/// Bytes that a thread may ask for before it looks at the clock for the first time.
const BUDGET: u64 = 16 << 10;

/// The least and the most that it may ask for between two looks, later.
const BUDGET_LEAST: u64 = 1 << 10;
const BUDGET_MOST: u64 = 256 << 10;

/// How many times a thread looks at the clock, about, in the time after which free memory goes back.
const LOOKS: u64 = 16;

/// What [`Cache::hurry`] takes from a budget, so that it is used up: more than a thread ever asks for.
const HURRY: u64 = 1 << 62;

/// The magazines of a thread. Caches are never freed before the heap is dropped.
#[repr(C, align(64))]
pub(super) struct Cache {
    /// The window of the page map; see [`map::RawWindow`]. Of no length before there is one, and where another thread
    /// wants this one to take a slow path.
    window: AtomicPtr<map::Entry>,
    window_start: AtomicUsize,
    window_len: AtomicUsize,
    /// Bytes that may be asked for before the thread looks at the clock, as a signed number: see [`Cache::count`].
    budget: AtomicU64,
    /// The page map of the heap, for what does not lie in the window.
    pub(super) root: RawRoot,
    pub(super) magazines: [Magazine; CLASSES],
    /// Bytes that the thread was ever allowed to ask for.
    granted: AtomicU64,
    /// What is granted next time, and when that was last, in milliseconds.
    grant: AtomicU64,
    looked: AtomicU64,
    /// Blocks that a magazine gets at once when it is empty, by class.
    batches: [AtomicU8; CLASSES],
    /// The next of all caches there are.
    pub(super) next: AtomicPtr<Cache>,
    /// The next of those without a thread. Guarded by the lock of the caches.
    pub(super) next_unused: AtomicPtr<Cache>,
    /// Whether a thread has it. Changed under the lock of the caches.
    pub(super) in_use: AtomicBool,
    pub(super) shard: AtomicU32,
    /// Whether a thread has it by its slot: in a forked child it is nobody's then, unless it is the slot of the
    /// thread that forked.
    pub(super) by_slot: AtomicBool,
    /// Whether its thread is in a call of a static heap whose slot does not say so. Only that thread looks, and its
    /// signal handlers.
    pub(super) is_busy: AtomicBool,
    /// Random numbers that were drawn and are to be used.
    pub(super) random: AtomicU64,
    /// The magazines of a hardened heap, one a class, whose quick calls find those above without room.
    pub(super) hardened: AtomicPtr<Magazine>,
    /// The last tick that the thread saw, and the last trim.
    pub(super) ticks: AtomicU32,
    pub(super) trims: AtomicU32,
}

impl Cache {
    pub(super) fn new(root: RawRoot) -> Self {
        Self {
            window: AtomicPtr::new(null_mut()),
            window_start: AtomicUsize::new(0),
            window_len: AtomicUsize::new(0),
            budget: AtomicU64::new(BUDGET),
            root,
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
            is_busy: AtomicBool::new(false),
            random: AtomicU64::new(0),
            hardened: AtomicPtr::new(null_mut()),
            ticks: AtomicU32::new(0),
            trims: AtomicU32::new(0),
        }
    }

    /// Counts what is asked for; says whether the thread need not look at the clock yet. Only the thread that
    /// has the cache does.
    #[inline]
    pub(super) fn count(&self, bytes: usize) -> bool {
        let left = self.budget.load(Relaxed).wrapping_sub(bytes as u64);
        self.budget.store(left, Relaxed);
        left.cast_signed() >= 0
    }

    /// Says whether the thread has used up what it may ask for before it looks at the clock.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.budget.load(Relaxed).cast_signed() < 0
    }

    /// Begins to count for a thread that looks at the clock now, if there is one; `period_ms` is how long memory stays
    /// free before it goes back. A thread that is to look `soon` may ask for little.
    pub(super) fn grant(&self, now_ms: Option<u64>, period_ms: u64, soon: bool) {
        let requested = self.requested();
        let mut grant = self.grant.load(Relaxed);
        if let Some(now_ms) = now_ms {
            let since = now_ms.saturating_sub(self.looked.swap(now_ms, Relaxed));
            if since > period_ms / LOOKS {
                grant = (grant / 2).max(BUDGET_LEAST);
            } else if since < period_ms / LOOKS / 2 {
                grant = (grant * 2).min(BUDGET_MOST);
            }
            self.grant.store(grant, Relaxed);
        }
        if soon {
            grant = BUDGET_LEAST;
        }
        // So that the next look comes after as much, whatever this thread asked for at once.
        self.granted.store(requested.wrapping_add(grant), Relaxed);
        self.budget.store(grant, Relaxed);
    }

    /// Returns the bytes that were ever asked for by it.
    pub(super) fn requested(&self) -> u64 {
        let mut left = self.budget.load(Relaxed);
        if left.cast_signed() < -(HURRY / 2).cast_signed() {
            left = left.wrapping_add(HURRY);
        }
        self.granted.load(Relaxed).wrapping_sub(left)
    }

    /// Has the thread that has the cache take a slow path at its next call. One that is in a call at this moment may
    /// not see it, and takes one soon by itself.
    pub(super) fn hurry(&self) {
        let left = self.budget.load(Relaxed);
        if left.cast_signed() >= 0 {
            let _ = self
                .budget
                .compare_exchange(left, left.wrapping_sub(HURRY), Relaxed, Relaxed);
        }
        self.window_len.store(0, Relaxed);
    }

    /// Returns the magazine of a class that calls use which are not quick.
    #[inline]
    pub(super) fn stack(&self, class: usize) -> &Magazine {
        debug_assert!(class < CLASSES, "a class");
        match NonNull::new(self.hardened.load(Relaxed)) {
            Some(first) => {
                // SAFETY: `set_hardened` stored as many magazines as there are classes.
                let magazine = unsafe { first.add(class) };
                // SAFETY: as above, initialised, changed by atomics only, and there as long as the cache.
                unsafe { magazine.as_ref() }
            }
            None => &self.magazines[class],
        }
    }

    /// Gives a new cache the magazines of a hardened heap.
    ///
    /// # Safety
    ///
    /// One a class, which stay as long as the cache.
    pub(super) unsafe fn set_hardened(&self, magazines: NonNull<[Magazine]>) {
        debug_assert!(magazines.len() == CLASSES, "one a class");
        self.hardened.store(magazines.as_ptr().cast(), Relaxed);
    }

    /// Returns how many blocks a magazine gets that is empty, `most` at most and at least one.
    pub(super) fn batch(&self, class: usize, most: u32) -> u32 {
        let batch = self.batches[class].load(Relaxed);
        self.batches[class].store(batch.saturating_mul(2), Relaxed);
        u32::from(batch).min(most).max(1)
    }

    /// Has magazines begin with few blocks again.
    pub(super) fn begin_small(&self) {
        for batch in &self.batches {
            batch.store(BATCH, Relaxed);
        }
    }

    /// Says whether the thread finds entries of the page map without its root.
    pub(super) fn has_window(&self) -> bool {
        self.window_len.load(Relaxed) != 0
    }

    /// Notes where the window of the page map is. Only the thread that has the cache does.
    pub(super) fn set_window(&self, window: RawWindow) {
        self.window.store(window.entries.as_ptr(), Relaxed);
        self.window_start.store(window.start, Relaxed);
        self.window_len.store(window.len, Relaxed);
    }

    /// Returns the entry of the page map for an address in the window.
    #[inline]
    pub(super) fn value_in_window(&self, addr: usize) -> Option<u64> {
        // SAFETY: only the thread that has the cache, which this is, changes it.
        let start = unsafe { atomic::own_usize(&self.window_start) };
        let place = addr.wrapping_sub(start) >> class::GRANULE.ilog2();
        if place >= self.window_len.load(Relaxed) {
            return None;
        }
        // SAFETY: `set_window` stored a window of more entries, and only this thread stores others.
        let entry = unsafe { self.window.load(Relaxed).add(place) };
        // SAFETY: as above: entries are atomics, and there as long as the heap, which has this cache.
        Some(unsafe { &*entry }.load(Acquire))
    }
}

#[cfg(not(loom))]
const _: () = {
    assert!(
        size_of::<Magazine>() == class::MAGAZINE,
        "places are counted in magazines"
    );
    assert!(
        mem::offset_of!(Cache, magazines) == class::place(0) as usize,
        "the first one's"
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

impl CacheRef {
    /// Returns the magazine at a [place](class::place).
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned.
    #[cfg(not(loom))]
    #[inline]
    pub(super) unsafe fn magazine_at(&self, place: u16) -> &Magazine {
        // SAFETY: the caller's promise: magazines lie there, as was asserted above.
        let magazine = unsafe { self.0.byte_add(place as usize) }.cast();
        // SAFETY: as above, initialised and there, as whoever made this promised.
        unsafe { magazine.as_ref() }
    }

    /// Returns the magazine at a [place](class::place), which is not where it lies in models.
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned.
    #[cfg(loom)]
    pub(super) unsafe fn magazine_at(&self, place: u16) -> &Magazine {
        &self.magazines[place as usize / class::MAGAZINE - class::FIRST_KIND]
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
