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
    class::{self, CLASSES, STEP},
    config::MAGAZINE_MOST,
    hardened::{self, CANARY_LEAST, Canaries, Seals},
    large::Big,
    map::{self, RawRoot, RawWindow},
    slab::{Entry, FREED, LIVE, ZERO},
};
use crate::atomic::{
    self, AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use core::{
    alloc::Layout,
    array, mem,
    ops::Deref,
    ptr::{NonNull, null_mut},
    sync::atomic::{Ordering::SeqCst, compiler_fence},
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
    fn new(class: usize) -> Self {
        Self {
            reciprocal: class::reciprocal(class),
            ..Self::none()
        }
    }

    /// Makes one of no class.
    fn none() -> Self {
        Self {
            top: AtomicPtr::new(null_mut()),
            bottom: AtomicPtr::new(null_mut()),
            end: AtomicPtr::new(null_mut()),
            reciprocal: 0,
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
        self.pop_if(|_| true)
    }

    /// Returns the last block that was pushed, if it is as wanted.
    #[inline]
    fn pop_if(&self, is_wanted: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let (top, bottom) = (Self::own(&self.top), Self::own(&self.bottom));
        if top == bottom {
            return None;
        }
        // SAFETY: above the bottom, so that an entry of the same slots lies below.
        let last = unsafe { top.sub(1) };
        // SAFETY: entries below the top are initialised, and only this thread changes them.
        let entry = unsafe { last.read() };
        if !is_wanted(&entry) {
            return None;
        }
        // Loaded once more, so that a processor does it by one instruction.
        let top = self.top.load(Relaxed);
        self.top.store(top.wrapping_sub(1), Relaxed);
        Some(entry)
    }

    /// Returns one of the blocks, by a random number.
    #[inline]
    pub(super) fn pop_any(&self, random: u16) -> Option<Entry> {
        let (top, bottom) = (Self::own(&self.top), Self::own(&self.bottom));
        if top == bottom {
            return None;
        }
        let count = (top.addr() - bottom.addr()) / size_of::<Entry>();
        let nth = (count * usize::from(random)) >> u16::BITS;
        // SAFETY: below the number of entries.
        let slot = unsafe { bottom.add(nth) };
        // SAFETY: as above, initialised; only this thread changes entries.
        let any = unsafe { slot.read() };
        // SAFETY: above the bottom, so that an entry of the same slots lies below.
        let last = unsafe { top.sub(1) };
        // SAFETY: as above, initialised.
        let last = unsafe { last.read() };
        // SAFETY: as `slot` is; it may be the last one's own.
        unsafe { slot.write(last) };
        self.top.store(top.wrapping_sub(1), Relaxed);
        Some(any)
    }

    /// Adds a block; says whether there was room.
    #[inline]
    pub(super) fn push(&self, entry: Entry) -> bool {
        self.push_after(entry, |_| ())
    }

    /// Adds a block that is live until then; says whether there was room.
    #[inline]
    pub(super) fn push_live(&self, entry: Entry) -> bool {
        self.push_after(entry, |entry| entry.state().store(FREED, Relaxed))
    }

    /// Adds a block, if there is room, after something else was done with it.
    #[inline]
    fn push_after(&self, entry: Entry, before: impl FnOnce(&Entry)) -> bool {
        let (top, end) = (Self::own(&self.top), Self::own(&self.end));
        if top == end {
            return false;
        }
        before(&entry);
        // SAFETY: below the end, there is room for an entry; nobody else uses it.
        unsafe { top.write(entry) };
        // Release, since a forked child looks at the entries below the top. Loaded once more, as in `pop`.
        let top = self.top.load(Relaxed);
        self.top.store(top.wrapping_add(1), Release);
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

    /// Forgets the `count` blocks that were pushed first. A forked child may find the magazine
    /// without the others, but never with one of these, or with half of one.
    pub(super) fn forget_oldest(&self, count: u32) {
        let left = (self.len() - count) as usize;
        let bottom = self.bottom.load(Relaxed);
        // SAFETY: count is not above the length.
        let from = unsafe { bottom.add(count as usize) };
        if left != 0 {
            // Nothing lies below the bottom, for all others than this thread.
            self.bottom.store(from, Relaxed);
            fence(Release);
            // SAFETY: so many initialised entries follow, and there is room for all of them; only this
            // thread uses them.
            unsafe { bottom.copy_from(from, left) };
        }
        // Before the bottom: a top below that is taken for one of no blocks.
        // SAFETY: not above the top.
        self.top.store(unsafe { bottom.add(left) }, Release);
        self.bottom.store(bottom, Release);
    }

    /// Writes a block into an empty magazine, at a place from the bottom. The magazine has it after
    /// [`Magazine::filled`] only.
    #[inline]
    pub(super) fn put_at(&self, place: u32, entry: Entry) {
        debug_assert!(place < self.capacity(), "there is room");
        // SAFETY: below the end, there is room for an entry.
        let slot = unsafe { Self::own(&self.bottom).add(place as usize) };
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
        self.forget();
        memory
    }

    /// Forgets the slots, and what is in them.
    fn forget(&self) {
        for pointer in [&self.bottom, &self.top, &self.end] {
            pointer.store(null_mut(), Relaxed);
        }
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
        // Whoever looks meanwhile finds no room, and so no blocks.
        self.end.store(null_mut(), Release);
        self.bottom.store(bottom, Release);
        // SAFETY: len is not above the capacity, for which there is room.
        self.top.store(unsafe { bottom.add(len) }, Release);
        // SAFETY: as above.
        self.end
            .store(unsafe { bottom.add(capacity as usize) }, Release);
    }
}

/// Returns how many entries fit between two addresses; none if they are not in order.
#[inline]
fn entries(from: *const Entry, to: *const Entry) -> u32 {
    let bytes = to.addr().saturating_sub(from.addr());
    u32::try_from(bytes / size_of::<Entry>()).unwrap_or(u32::MAX)
}

/// Blocks that a magazine gets at once at first. Twice as many each time, until a tick finds them unused.
const BATCH: u8 = 4;

/// Bytes that a thread may ask for before it looks at the clock for the first time.
const BUDGET: u64 = 16 << 10;

/// The least and the most that it may ask for between two looks, later.
const BUDGET_LEAST: u64 = 1 << 10;
const BUDGET_MOST: u64 = 256 << 10;

/// What a call for a block without a class takes of it: of the greatest, a sixteenth.
const BIG: usize = 16 << 10;

/// How many times a thread looks at the clock, about, in the time after which free memory goes back.
const LOOKS: u64 = 16;

/// How many times as often it looks while pages of slabs are being given back.
const SOON: u64 = 4;

/// How many addresses outside of its window a thread may meet between two looks at the clock until
/// it takes another.
const MISSES: u32 = 32;

/// What [`Cache::hurry`] takes from a budget, so that it is used up: more than a thread ever asks for.
const HURRY: u64 = 1 << 62;

/// The magazines of a thread. Caches are never freed before the heap is dropped.
#[repr(C, align(64))]
pub(super) struct Cache {
    /// Where the stack of its thread ended when that began the call of a static heap that it is in; zero if it is in none.
    /// Only that thread looks, and its signal handlers.
    pub(super) mark: AtomicUsize,
    /// A window of the page map; see [`map::RawWindow`]. Of no length before there is one, and
    /// where another thread wants this one to take a slow path.
    window: AtomicPtr<map::Entry>,
    window_start: AtomicUsize,
    window_len: AtomicUsize,
    /// Bytes that may be asked for before the thread looks at the clock, as a signed number: see [`Cache::count`].
    budget: AtomicU64,
    /// The page map of the heap, for what does not lie in the window.
    pub(super) root: RawRoot,
    /// At [`class::NO_PLACE`], for ever without blocks.
    none: Magazine,
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
    /// The next in one of the lists of those without a thread. Guarded by the lock of the caches.
    pub(super) next_unused: AtomicPtr<Cache>,
    /// Whether a thread has it. Changed under the lock of the caches.
    pub(super) in_use: AtomicBool,
    pub(super) shard: AtomicU32,
    /// Whether a thread has it by its slot: in a forked child it is nobody's then, unless it is the slot of the
    /// thread that forked.
    pub(super) by_slot: AtomicBool,
    /// The class and one of the magazine whose slots that call is changing; zero if it is none's.
    pub(super) changing: AtomicU32,
    /// The locks of a static heap that its thread may hold or wait for, a bit each; and which bin's.
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

    /// Counts what is asked for; says whether the thread need not look at the clock yet. Only the thread that
    /// has the cache does.
    #[inline]
    pub(super) fn count(&self, bytes: usize) -> bool {
        let left = self.budget.load(Relaxed).wrapping_sub(bytes as u64);
        self.budget.store(left, Relaxed);
        left.cast_signed() >= 0
    }

    /// Counts a call for a block without a class, which asks for `bytes`, or frees one and asks for none; says whether the
    /// thread need not look at the clock yet. Only the thread that has the cache does.
    pub(super) fn count_big(&self, bytes: usize) -> bool {
        // Such calls are few and long: by their bytes each would use a budget up.
        let granted = self.granted.load(Relaxed).wrapping_add(bytes as u64);
        self.granted
            .store(granted.wrapping_sub(BIG as u64), Relaxed);
        self.count(BIG)
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
            } else if since < period_ms / LOOKS / 2 && !soon {
                grant = (grant * 2).min(BUDGET_MOST);
            }
            self.grant.store(grant, Relaxed);
        }
        if soon {
            grant = (grant / SOON).max(BUDGET_LEAST);
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
                // SAFETY: as above, initialised, changed by atomics only, and there as long as the
                // cache.
                unsafe { magazine.as_ref() }
            }
            None => &self.magazines[class],
        }
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

    /// Says whether a handler on its thread may wait for locks: the thread holds none.
    pub(super) fn takes_locks(&self) -> bool {
        self.awaited.load(Relaxed) == 0
    }

    /// Notes that its thread goes for a lock, for which a bit stands, and that the stack ends at
    /// `depth` or deeper until it has given it back. Returns what [`Cache::forget_lock`] is to
    /// restore.
    pub(super) fn await_lock(&self, lock: u32, depth: usize) -> usize {
        let before = self.awaited_at.load(Relaxed);
        self.awaited_at.store(depth, Relaxed);
        // What a handler on this thread sees is in order, here and below.
        compiler_fence(SeqCst);
        self.awaited
            .store(self.awaited.load(Relaxed) | lock, Relaxed);
        compiler_fence(SeqCst);
        before
    }

    /// Notes that its thread has given a lock back.
    pub(super) fn forget_lock(&self, lock: u32, before: usize) {
        compiler_fence(SeqCst);
        self.awaited_at.store(before, Relaxed);
        compiler_fence(SeqCst);
        self.awaited
            .store(self.awaited.load(Relaxed) & !lock, Relaxed);
    }

    /// Says whether its thread may hold a lock, or wait for it.
    pub(super) fn awaits(&self, lock: u32) -> bool {
        self.awaited.load(Relaxed) & lock != 0
    }

    /// Returns how deep the stack was at least, as its address, in the call of a static heap that its thread is in; zero if
    /// it is in none.
    pub(super) fn depth(&self) -> usize {
        let mark = self.mark.load(Relaxed);
        if self.takes_locks() {
            mark
        } else {
            mark.min(self.awaited_at.load(Relaxed))
        }
    }

    /// Forgets all locks.
    pub(super) fn forget_locks(&self) {
        self.awaited.store(0, Relaxed);
    }

    /// Notes that its thread changes the slots of a magazine; returns what notes that it does not any more.
    pub(super) fn changing(&self, class: usize) -> Changing<'_> {
        let number = u32::try_from(class + 1).unwrap_or(u32::MAX);
        self.changing.store(number, Relaxed);
        compiler_fence(SeqCst);
        Changing(self)
    }

    /// Gives up the magazine whose slots a call was changing that never goes on, with all that is in it, and says that the
    /// thread is in no call.
    pub(super) fn forget_call(&self) {
        let number = self.changing.swap(0, Relaxed) as usize;
        if let Some(class) = number.checked_sub(1).filter(|class| *class < CLASSES) {
            self.stack(class).forget();
        }
        compiler_fence(SeqCst);
        self.mark.store(0, Relaxed);
    }

    /// Notes that an address did not lie in the window.
    pub(super) fn miss(&self, addr: usize) {
        self.missed.store(addr, Relaxed);
        self.misses
            .store(self.misses.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Returns an address around which there should be a window, if there is none, or if many
    /// addresses did not lie in it since this was called last.
    pub(super) fn place_for_window(&self) -> Option<usize> {
        let misses = self.misses.load(Relaxed);
        self.misses.store(0, Relaxed);
        if misses > MISSES {
            Some(self.missed.load(Relaxed))
        } else if self.window_len.load(Relaxed) == 0 {
            Some(self.window_start.load(Relaxed))
        } else {
            None
        }
    }

    /// Notes where a window of the page map is. Only the thread that has the cache does.
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

/// Its thread changes the slots of a magazine while this lives.
pub(super) struct Changing<'a>(&'a Cache);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.0.changing.store(0, Relaxed);
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
    assert!(
        mem::offset_of!(Cache, mark) == 0,
        "what a slot points to begins with a mark"
    );
    assert!(
        mem::offset_of!(Cache, none) == class::NO_PLACE,
        "no class's"
    );
    assert!(
        mem::offset_of!(HardenedCache, magazines) == size_of::<Cache>(),
        "right behind"
    );
};

/// A cache of a hardened heap, and its magazines.
#[repr(C)]
pub(super) struct HardenedCache {
    cache: Cache,
    magazines: [Magazine; CLASSES],
}

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

    /// Makes one of a hardened heap, which is of the lower level if there are seals.
    ///
    /// # Safety
    ///
    /// Fresh memory for a [`HardenedCache`] lies there, which stays as long as every copy of this.
    pub(super) unsafe fn new_hardened(
        place: NonNull<u8>,
        cache: Cache,
        seals: Option<Seals>,
    ) -> Self {
        // SAFETY: the caller's promise: there is room for all of them.
        let first =
            unsafe { place.add(mem::offset_of!(HardenedCache, magazines)) }.cast::<Magazine>();
        for class in 0..CLASSES {
            // SAFETY: as above.
            let magazine = unsafe { first.add(class) };
            // SAFETY: as above, aligned as the whole is.
            unsafe { magazine.write(Magazine::new(class)) };
        }
        cache.hardened.store(first.as_ptr(), Relaxed);
        let seals = seals.map_or(null_mut(), Seals::as_ptr);
        cache.seals.store(seals, Relaxed);
        let place = place.cast::<Cache>();
        // SAFETY: as above.
        unsafe { place.write(cache) };
        Self(place)
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
        // SAFETY: the caller's promise: a cache begins with its mark, as is asserted above.
        unsafe { &*value.cast() }
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
    #[inline]
    pub(super) const fn as_slot(self) -> *mut () {
        self.0.as_ptr().cast()
    }

    pub(super) const fn as_ptr(self) -> *mut Cache {
        self.0.as_ptr()
    }
}

impl CacheRef {
    /// Takes a cached block of the class of a small layout.
    #[inline]
    pub(super) fn pop_quick(self, layout: Layout) -> Option<Entry> {
        let place = class::quick_place(layout)?;
        // SAFETY: `quick_place` returns what `class::place` does, or `NO_PLACE`.
        unsafe { self.magazine_at(place) }.pop()
    }

    /// Takes a cached block of the class of a small layout for its user.
    #[inline]
    pub(super) fn alloc_quick(self, layout: Layout) -> Option<NonNull<u8>> {
        let entry = self.pop_quick(layout)?;
        entry.state().store(LIVE, Release);
        Some(entry.block)
    }

    /// As [`CacheRef::alloc_quick`], and says whether the block reads zero.
    #[inline]
    pub(super) fn alloc_quick_told(self, layout: Layout) -> Option<Big> {
        let entry = self.pop_quick(layout)?;
        let zero = entry.state().load(Relaxed) == ZERO;
        entry.state().store(LIVE, Release);
        Some((entry.block, zero))
    }

    /// Frees a block if there is room for it in a magazine, and it lies in the first granule of a slab of a
    /// [quick class](class::is_quick), in the window of the page map, as it nearly always does; says whether it did.
    ///
    /// # Safety
    ///
    /// The heap is there. If `block` is the start of a live block of the heap, as it is unless `CHECKED`, its user gives
    /// that up.
    #[inline]
    pub(super) unsafe fn free_quick<const CHECKED: bool>(self, block: NonNull<u8>) -> bool {
        let Some(value) = self.value_in_window(block.addr().get()) else {
            return false;
        };
        let Some(place) = map::quick_place(value) else {
            return false;
        };
        // SAFETY: the caller's promises, and a place of the value.
        unsafe { self.free_at::<CHECKED>(block, value, place) }
    }

    /// As [`CacheRef::free_quick`], of a block that was allocated with this layout: a processor need not wait for the page
    /// map to know where the magazine is.
    ///
    /// # Safety
    ///
    /// Those of [`CacheRef::free_quick`]. A wrong layout is noticed.
    #[inline]
    pub(super) unsafe fn free_quick_sized<const CHECKED: bool>(
        self,
        block: NonNull<u8>,
        layout: Layout,
    ) -> bool {
        let Some(place) = class::quick_place(layout) else {
            return false;
        };
        let Some(value) = self.value_in_window(block.addr().get()) else {
            return false;
        };
        if !map::has_place(value, place) {
            return false;
        }
        // SAFETY: the caller's promises, and a place of the value.
        unsafe { self.free_at::<CHECKED>(block, value, place) }
    }

    /// # Safety
    ///
    /// Those of [`CacheRef::free_quick`]; the page map has the value for the block, of which [`map::quick_place`] returns
    /// the place.
    #[inline]
    unsafe fn free_at<const CHECKED: bool>(
        self,
        block: NonNull<u8>,
        value: u64,
        place: usize,
    ) -> bool {
        // SAFETY: the value is of the heap's map, so that `quick_place` returned what `class::place` did.
        let magazine = unsafe { self.magazine_at(place) };
        let (addr, reciprocal) = (block.addr().get(), magazine.reciprocal);
        // SAFETY: a value of the heap's map, which is there, with a place, and the class's own reciprocal.
        let state = unsafe { map::live_quick::<CHECKED>(value, addr, reciprocal) };
        match state {
            Some(state) => magazine.push_live(Entry { block, state }),
            None => false,
        }
    }

    /// Returns the canaries of the heap, if it is hardened, and of the lower level.
    #[inline]
    fn seals(self) -> Option<Seals> {
        // SAFETY: nothing changes it.
        let canaries = NonNull::new(unsafe { atomic::own_ptr(&self.seals) })?;
        // SAFETY: `new_hardened` stored what `Seals` gave; the heap is there as long as this cache.
        Some(unsafe { Seals::new(canaries) })
    }

    /// As [`CacheRef::alloc_quick`], at the lower level of hardening: a block that nothing was
    /// written into since it was freed, with a canary behind what is asked for.
    #[inline]
    pub(super) fn alloc_sealed(self, layout: Layout) -> Option<NonNull<u8>> {
        let seals = self.seals()?;
        if layout.align() > STEP {
            return None;
        }
        let len = layout.size() + CANARY_LEAST;
        let place = class::quick_place_of(len)?;
        // SAFETY: `quick_place_of` returns what `class::place` does for sizes that are not zero;
        // the cache is of a hardened heap.
        let magazine = unsafe { self.stack_at(place) };
        // SAFETY: blocks in magazines are free, and this thread's.
        let entry = magazine.pop_if(|entry| unsafe { hardened::is_clean(entry.block) })?;
        let slack = class::quick_size_of(len) - len;
        if len <= class::BYTE_MAX {
            let after = class::slack_after_quick(magazine.reciprocal);
            // SAFETY: slabs of hardened heaps keep what was asked for; the class is as long at
            // most.
            unsafe { entry.set_slack(after, slack, false) };
        } else {
            // SAFETY: as above; the class is longer.
            unsafe { entry.set_slack(class::FEW_BLOCKS, slack, true) };
        }
        // SAFETY: the class is as long as `len`; the block is this thread's.
        unsafe { seals.write(entry.block, layout.size()) };
        entry.state().store(LIVE, Release);
        Some(entry.block)
    }

    /// As [`CacheRef::free_quick_sized`], at the lower level of hardening; the canary is where the
    /// layout says, or the block stays as it is.
    ///
    /// # Safety
    ///
    /// Those of [`CacheRef::free_quick`]. A wrong layout is noticed.
    #[inline]
    pub(super) unsafe fn free_sealed(self, block: NonNull<u8>, layout: Layout) -> bool {
        let Some(seals) = self.seals() else {
            return false;
        };
        if layout.align() > STEP {
            return false;
        }
        let Some(place) = class::quick_place_of(layout.size() + CANARY_LEAST) else {
            return false;
        };
        let Some(value) = self.value_in_window(block.addr().get()) else {
            return false;
        };
        if !map::has_place(value, place) {
            return false;
        }
        // SAFETY: as in `alloc_sealed`.
        let magazine = unsafe { self.stack_at(place) };
        let (addr, reciprocal) = (block.addr().get(), magazine.reciprocal);
        // SAFETY: a value of the heap's map, which is there, with this place, and the class's own
        // reciprocal.
        let Some(state) = (unsafe { map::live_quick::<true>(value, addr, reciprocal) }) else {
            return false;
        };
        // SAFETY: live, and of a class that has room for a canary; the caller gives it up.
        if !unsafe { seals.is_intact(block, layout.size()) } {
            return false;
        }
        magazine.push_after(Entry { block, state }, |entry| {
            entry.state().store(FREED, Relaxed);
            // SAFETY: as above.
            unsafe { hardened::mark_free(block, layout.size()) };
        })
    }

    /// Returns the magazine of a hardened heap at a [place](class::place).
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned, and [`CacheRef::new_hardened`] made this.
    #[cfg(not(loom))]
    #[inline]
    pub(super) unsafe fn stack_at(&self, place: usize) -> &Magazine {
        const BEHIND: usize = size_of::<Cache>() - class::place(0) as usize;
        let offset = BEHIND + place;
        // SAFETY: the caller's promise: magazines lie behind the cache, as was asserted above.
        let magazine = unsafe { self.0.byte_add(offset) }.cast();
        // SAFETY: as above, initialised and there, as whoever made this promised.
        unsafe { magazine.as_ref() }
    }

    /// Returns the magazine of a hardened heap at a [place](class::place), which is not where it
    /// lies in models.
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned, and [`CacheRef::new_hardened`] made this.
    #[cfg(loom)]
    pub(super) unsafe fn stack_at(&self, place: usize) -> &Magazine {
        self.stack(place / class::MAGAZINE - class::FIRST_KIND)
    }

    /// Returns the magazine at a [place](class::place).
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned, or [`class::NO_PLACE`].
    #[cfg(not(loom))]
    #[inline]
    pub(super) unsafe fn magazine_at(&self, place: usize) -> &Magazine {
        // SAFETY: the caller's promise: magazines lie there, as was asserted above.
        let magazine = unsafe { self.0.byte_add(place) }.cast();
        // SAFETY: as above, initialised and there, as whoever made this promised.
        unsafe { magazine.as_ref() }
    }

    /// Returns the magazine at a [place](class::place), which is not where it lies in models.
    ///
    /// # Safety
    ///
    /// It is one that [`class::place`] returned, or [`class::NO_PLACE`].
    #[cfg(loom)]
    pub(super) unsafe fn magazine_at(&self, place: usize) -> &Magazine {
        match (place / class::MAGAZINE).checked_sub(class::FIRST_KIND) {
            Some(class) => &self.magazines[class],
            None => &self.none,
        }
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
