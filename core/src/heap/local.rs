//! A thread's own handle of a heap: the calls that take no lock.

use super::{
    Heap, Level, Return,
    cache::{Cache, CacheRef, FIRST, HardenedCache, Magazine},
    class::{self, CLASSES, STEP},
    config::SHARDS,
    error::HeapError,
    hardened::{self, Hardened},
    large::Big,
    map,
    shared::cleared,
    slab::{Entry, FREED, Handle, LIVE, ZERO},
    slot::NOWHERE,
};
use crate::{
    atomic::AtomicU8,
    provider::{Error, PageProvider},
    sync::{RawMutex, Spin},
};
use core::{
    alloc::Layout,
    cell::Cell,
    fmt,
    hint::cold_path,
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr::{NonNull, null_mut},
    slice,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

/// A thread's own handle of a heap, with free blocks at hand: a call takes a lock only once in many.
///
/// A handle may move to another thread, but two cannot use it at once. Any block of the heap may be
/// freed by any handle. Dropping a handle gives its blocks to the others.
pub struct LocalHeap<'heap, P: PageProvider + Copy, M: PageProvider + Copy = P, R: RawMutex = Spin>
{
    heap: &'heap Heap<P, M, R>,
    cache: CacheRef,
    _not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the handle alone changes its cache; another thread sees what this one did before it gave
// the handle away. The heap is Sync.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex + Send + Sync> Send
    for LocalHeap<'_, P, M, R>
{
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Makes a handle for the calling thread. It takes three kilobytes of metadata, and more
    /// as it is used.
    ///
    /// # Errors
    ///
    /// [`HeapError::Metadata`] where there is no memory for it.
    pub fn local(&self) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        self.make_local(false)
    }

    /// Makes a handle for a thread that keeps its cache in a slot.
    pub(super) fn local_of_slot(&self) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        self.make_local(true)
    }

    fn make_local(&self, by_slot: bool) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        let attempt = || self.again_if_replaced(|| self.try_make_local(by_slot));
        attempt().or_else(|error| {
            if self.reclaim(error) {
                attempt()
            } else {
                Err(error)
            }
        })
    }

    fn try_make_local(&self, by_slot: bool) -> Result<LocalHeap<'_, P, M, R>, HeapError> {
        let mut caches = self.lock_caches();
        let cache = match caches.take() {
            Some(cache) => cache,
            None => {
                let cache = self.make_cache().map_err(HeapError::Metadata)?;
                self.note_cache(cache);
                cache
            }
        };
        let shard = caches.least_used(cache.shard(), self.config.shard_count());
        cache
            .shard
            .store(u32::try_from(shard).unwrap_or(0), Relaxed);
        cache.ticks.store(self.ticks.load(Relaxed), Relaxed);
        cache.trims.store(self.trims.load(Relaxed), Relaxed);
        cache.by_slot.store(by_slot, Relaxed);
        // As a thread may have left it that was not copied into a forked child.
        cache.mark.store(0, Relaxed);
        cache.changing.store(0, Relaxed);
        cache.forget_locks();
        cache.place.store(null_mut(), Relaxed);
        caches.begin(cache);
        Ok(LocalHeap {
            heap: self,
            cache,
            _not_sync: PhantomData,
        })
    }

    /// Makes another cache.
    fn make_cache(&self) -> Result<CacheRef, Error> {
        let new = Cache::new(self.map.root().raw());
        let Some(hardened) = &self.hardened else {
            let made = self.arena().alloc_value(new)?;
            // SAFETY: initialised just now, and never freed before the arena, which is the heap's.
            return Ok(unsafe { CacheRef::new(made) });
        };
        let place = self.arena().alloc(Layout::new::<HardenedCache>())?;
        // SAFETY: allocated just now with this layout, and never freed before the arena, which is
        // the heap's.
        Ok(unsafe { CacheRef::new_hardened(place, new, hardened.seals) })
    }

    /// Adds a cache to all that were ever made.
    fn note_cache(&self, cache: CacheRef) {
        let mut first = self.first_cache.load(Relaxed);
        loop {
            cache.next.store(first, Relaxed);
            let new = cache.as_ptr();
            // It can fail where a handler forked, in the child.
            match self
                .first_cache
                .compare_exchange(first, new, Release, Relaxed)
            {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Yields all caches that were ever made.
    pub(super) fn all_caches(&self) -> impl Iterator<Item = CacheRef> {
        let at = |ptr| {
            // SAFETY: links hold what `local` put there: caches, which stay as long as the heap.
            NonNull::new(ptr).map(|cache| unsafe { CacheRef::new(cache) })
        };
        let first = at(self.first_cache.load(Acquire));
        core::iter::successors(first, move |cache| at(cache.next.load(Acquire)))
    }
}

impl<'heap, P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'heap, P, M, R> {
    /// Makes the handle of a thread that has a cache.
    ///
    /// # Safety
    ///
    /// The cache is of this heap and in use, and no other handle has it that is used while this one is.
    #[inline]
    pub(super) unsafe fn from_cache(heap: &'heap Heap<P, M, R>, cache: CacheRef) -> Self {
        Self {
            heap,
            cache,
            _not_sync: PhantomData,
        }
    }

    /// Returns the entry of the page map for an address, or zero.
    #[inline]
    pub(super) fn value(&self, addr: usize) -> u64 {
        self.cache.value_in_window(addr).unwrap_or_else(|| {
            self.cache.miss(addr);
            // SAFETY: the heap's own map, and the heap is borrowed for so long.
            unsafe { self.cache.root.get() }.value(addr)
        })
    }

    /// Returns the class and the state of the live block that starts at `addr`, any address at all, if
    /// it has a class. Unless `CHECKED`, one is known to start there.
    #[inline]
    fn live<const CHECKED: bool>(&self, addr: usize) -> Option<(usize, NonNull<AtomicU8>)> {
        // SAFETY: a value of the heap's map, and the heap is borrowed.
        unsafe { map::live::<CHECKED>(self.value(addr), addr) }
    }

    /// Returns the descriptor of the live block that starts at `addr`, any address at all, if it has no class and the page
    /// map tells of it.
    #[inline]
    fn live_big(&self, addr: usize) -> Option<Handle> {
        let slab = self.slab_around(addr)?;
        slab.is_live_big(addr).then_some(slab)
    }

    pub(super) const fn cache(&self) -> CacheRef {
        self.cache
    }

    /// Returns the heap.
    #[must_use]
    pub const fn heap(&self) -> &'heap Heap<P, M, R> {
        self.heap
    }

    /// Allocates a block; its contents are undefined. One of size zero is a block like any other.
    ///
    /// # Errors
    ///
    /// [`HeapError::Memory`] and [`HeapError::Metadata`] where there is none;
    /// [`HeapError::InvalidSize`] where no host has so much.
    #[inline]
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        match self.alloc_quick(layout) {
            Some(block) => Ok(block),
            None => {
                cold_path();
                self.alloc_slow(layout)
            }
        }
    }

    /// Allocates a cached block.
    #[inline]
    pub(super) fn alloc_quick(&self, layout: Layout) -> Option<NonNull<u8>> {
        let block = self.cache.alloc_quick(layout)?;
        self.count(layout.size());
        Some(block)
    }

    /// Allocates a cached block that reads zero.
    #[inline]
    fn alloc_zeroed_quick(&self, layout: Layout) -> Option<NonNull<u8>> {
        let told = self.cache.alloc_quick_told(layout)?;
        self.count(layout.size());
        Some(cleared(told, layout))
    }

    /// Counts what was asked for, and looks at the clock if it is time to.
    #[inline]
    pub(super) fn count(&self, bytes: usize) {
        if !self.cache.count(bytes) {
            self.look();
        }
    }

    /// Looks at the clock, and at what ticks and trims of others ask for.
    #[inline]
    pub(super) fn look(&self) {
        Self::look_at(self.heap, self.cache);
    }

    /// Allocates a block that reads zero, which costs nothing where its memory is fresh.
    ///
    /// # Errors
    ///
    /// As of [`LocalHeap::alloc`].
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        match self.alloc_zeroed_quick(layout) {
            Some(block) => Ok(block),
            None => {
                cold_path();
                self.alloc_zeroed_slow(layout)
            }
        }
    }

    /// Frees a block.
    ///
    /// # Errors
    ///
    /// [`HeapError::NotOwned`], [`HeapError::NotLive`] or [`HeapError::Interior`] where `block` is no live
    /// block's start. Two threads that free the same block at the same moment may not be told.
    ///
    /// # Safety
    ///
    /// If it is the start of a live block of this heap, nobody uses that any more, and `block` is the pointer
    /// that was allocated, or may be used for as much: it is handed out again.
    #[inline]
    pub unsafe fn free(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        // SAFETY: the caller's promise.
        if unsafe { self.cache.free_quick::<true>(block) } {
            return Ok(());
        }
        cold_path();
        // SAFETY: the caller's promise.
        unsafe { self.free_other::<true>(block) }
    }

    /// As [`LocalHeap::free`], but does not look whether the block is live: hardening level 0.
    ///
    /// # Errors
    ///
    /// As of [`LocalHeap::free`], for blocks without a class.
    ///
    /// # Safety
    ///
    /// `block` is the start of a live block of this heap, and nobody uses that any more.
    #[inline]
    pub unsafe fn free_unchecked(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        // SAFETY: the caller's promise.
        if unsafe { self.cache.free_quick::<false>(block) } {
            return Ok(());
        }
        cold_path();
        // SAFETY: the caller's promise.
        unsafe { self.free_other::<false>(block) }
    }

    /// Frees a block as [`CacheRef::free_quick`] does, wherever it lies.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free`], or of [`LocalHeap::free_unchecked`] unless `CHECKED`.
    #[inline]
    pub(super) unsafe fn free_cached<const CHECKED: bool>(&self, block: NonNull<u8>) -> bool {
        let Some((class, state)) = self.live::<CHECKED>(block.addr().get()) else {
            return false;
        };
        self.magazine(class).push_live(Entry { block, state })
    }

    /// Frees a block that [`CacheRef::free_quick`] does not.
    ///
    /// # Safety
    ///
    /// Those of [`LocalHeap::free_cached`].
    #[inline(never)]
    unsafe fn free_other<const CHECKED: bool>(&self, block: NonNull<u8>) -> Result<(), HeapError> {
        // SAFETY: the caller's promise, which is the same.
        if unsafe { self.free_cached::<CHECKED>(block) } {
            return Ok(());
        }
        // SAFETY: the caller's promise is no less.
        unsafe { self.free_slow(block, None) }
    }

    /// Frees a block whose layout is known, which is a little faster than [`LocalHeap::free`].
    ///
    /// # Errors
    ///
    /// As of [`LocalHeap::free`].
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`]; and the block was allocated or last resized with `layout`.
    #[inline]
    pub unsafe fn free_sized(&self, block: NonNull<u8>, layout: Layout) -> Result<(), HeapError> {
        debug_assert!(
            self.heap.is_hardened()
                || self
                    .usable_size(block)
                    .is_none_or(|size| size >= layout.size()),
            "the layout of another block"
        );
        // SAFETY: the caller's promise.
        if unsafe { self.cache.free_quick_sized::<true>(block, layout) } {
            return Ok(());
        }
        cold_path();
        if self.heap.is_hardened() {
            // SAFETY: the caller's promise.
            return unsafe { self.free_slow(block, Some(layout)) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.free_other::<true>(block) }
    }

    /// Frees a block whose layout may be known, which is looked at if the heap is hardened.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`].
    pub(super) unsafe fn free_as(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        if self.heap.is_hardened() {
            // SAFETY: the caller's promise.
            return unsafe { self.free_slow(block, layout) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.free(block) }
    }

    /// Makes a block `new_size` bytes long, where it lies or elsewhere; its contents stay, as far as
    /// they fit.
    ///
    /// # Errors
    ///
    /// As of [`LocalHeap::alloc`] and [`LocalHeap::free`]; the block stays as it is then.
    ///
    /// # Safety
    ///
    /// If `block` is the start of a live block of this heap, that was allocated or last resized with
    /// `layout`, and nobody uses it during the call, nor afterwards where another one is returned.
    pub unsafe fn realloc(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        // SAFETY: the caller's promise.
        if let Some(block) = unsafe { self.realloc_quick::<true>(block, layout, new_size) } {
            return Ok(block);
        }
        // SAFETY: the caller's promise.
        unsafe { self.realloc_slow(block, layout, new_size) }
    }

    /// Resizes a block where it lies, or by one that is at hand and small, if that is all that it takes.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::realloc`]; the block is live unless `CHECKED`.
    #[inline]
    pub(super) unsafe fn realloc_quick<const CHECKED: bool>(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        if self.heap.is_hardened() {
            return None;
        }
        let (class, state) = self.live::<CHECKED>(block.addr().get())?;
        let new = Layout::from_size_align(new_size, layout.align()).ok()?;
        let size = class::size(class);
        // A class that is a little too large is not worth a copy.
        if new_size <= size && new_size > size / 2 {
            return Some(block);
        }
        let new_class = class::quick(new)?;
        if new_class == class {
            return Some(block);
        }
        let len = layout.size().min(new_size);
        if len > COPIED {
            return None;
        }
        let target = self.magazine(new_class).pop()?;
        target.state().store(LIVE, Release);
        let (from, to) = (block.cast::<[MaybeUninit<u8>; STEP]>(), target.block.cast());
        for n in 0..len.div_ceil(STEP) {
            // SAFETY: blocks are whole steps long, and both hold len bytes.
            let from = unsafe { from.add(n) };
            // SAFETY: as above.
            let to = unsafe { to.add(n) };
            // SAFETY: as above; both blocks are live and aligned to a step, and they share no byte. Bytes behind
            // what the user has may be uninitialised, as the type says.
            unsafe { to.copy_from_nonoverlapping(from, 1) };
        }
        if !self.magazine(class).push_live(Entry { block, state }) {
            // SAFETY: the caller gives the block up, which is live.
            let freed = unsafe { self.free_slow(block, None) };
            debug_assert!(freed.is_ok(), "it was live: {freed:?}");
        }
        self.count(new_size);
        Some(target.block)
    }

    /// Does what [`LocalHeap::realloc_quick`] does not.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::realloc`].
    #[inline(never)]
    pub(super) unsafe fn realloc_slow(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        if !self.heap.is_hardened()
            && let Some(slab) = self.live_big(block.addr().get())
            && self.heap.stays_big(slab, new_size)
        {
            return Ok(block);
        }
        let alloc = |new| self.alloc(new);
        // SAFETY: the caller gives the block up.
        let free = || unsafe { self.free(block) };
        // SAFETY: the caller's promise; alloc allocates.
        unsafe { self.heap.realloc_by(block, layout, new_size, alloc, free) }
    }

    /// Returns how many bytes of the live block that starts at `block` may be used; `None` where none does.
    #[inline]
    #[must_use]
    pub fn usable_size(&self, block: NonNull<u8>) -> Option<usize> {
        self.heap.usable_size(block)
    }

    /// Gives the free blocks that are at hand back to the heap, for other threads to use or for the
    /// host.
    pub fn flush(&self) {
        for class in 0..CLASSES {
            self.flush_oldest(class, self.stack(class).len());
        }
    }

    /// As [`Heap::tick`](super::Heap::tick); first gives back what is cached, if the time has come.
    pub fn tick(&self, now_ms: u64) {
        if self.heap.is_due(now_ms) {
            self.flush();
            self.heap.tick_now();
            self.heap.sweep_all();
        }
    }

    /// As [`Heap::collect`](super::Heap::collect); first gives back what this handle has cached.
    pub fn collect(&self, level: Level) {
        self.flush();
        self.heap.collect(level);
    }

    /// What a quick call does that has used up what it may ask for before the clock is looked at. It does not unwind, so
    /// that quick calls need not provide for that.
    #[cold]
    #[inline(never)]
    extern "C" fn look_at(heap: &'heap Heap<P, M, R>, cache: CacheRef) {
        // SAFETY: those of the handle that counts, which does nothing else meanwhile.
        let local = ManuallyDrop::new(unsafe { Self::from_cache(heap, cache) });
        local.maintain();
    }

    /// What calls do beside that take a lock, or have asked for as much as [`Cache::count`] allows: see
    /// [`Heap::maintain`]; and bring back what is cached, if there was a tick or a trim since this was called last.
    pub(super) fn maintain(&self) {
        let now_ms = self.heap.maintain();
        let period_ms = self.heap.config.period_ms();
        self.cache.grant(now_ms, period_ms, self.heap.is_sweeping());
        self.follow();
    }

    /// Does what ticks and trims by others ask for.
    fn follow(&self) {
        if let Some(addr) = self.cache.place_for_window()
            && let Some(window) = self.heap.map.window_around(addr)
        {
            self.cache.set_window(window);
        }
        let (ticks, trims) = (self.heap.ticks.load(Relaxed), self.heap.trims.load(Relaxed));
        let is_trim = self.cache.trims.load(Relaxed) != trims;
        if is_trim || self.cache.ticks.load(Relaxed) != ticks {
            self.cache.ticks.store(ticks, Relaxed);
            self.cache.trims.store(trims, Relaxed);
            self.flush();
            self.cache.begin_small();
        }
        if is_trim {
            self.heap.collect_own(self.heap.trim_level());
        }
    }

    #[inline]
    fn magazine(&self, class: usize) -> &Magazine {
        &self.cache.magazines[class]
    }

    /// As [`Cache::stack`].
    #[inline]
    fn stack(&self, class: usize) -> &Magazine {
        self.cache.stack(class)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        self.alloc_told(layout).map(|(block, _)| block)
    }

    #[cold]
    #[inline(never)]
    fn alloc_zeroed_slow(&self, layout: Layout) -> Result<NonNull<u8>, HeapError> {
        let told = self.alloc_told(layout)?;
        Ok(cleared(told, layout))
    }

    /// Allocates a block, and says whether it reads zero.
    fn alloc_told(&self, layout: Layout) -> Result<Big, HeapError> {
        if let Some(hardened) = &self.heap.hardened {
            return self.alloc_hardened(hardened, layout);
        }
        let Some(class) = class::of(layout) else {
            self.count_big(layout.size());
            return self.heap.alloc_big_or_reclaim(layout);
        };
        self.cache.count(layout.size());
        let entry = match self.magazine(class).pop() {
            Some(entry) => entry,
            None => self.refill(class)?,
        };
        let zero = entry.state().load(Relaxed) == ZERO;
        entry.state().store(LIVE, Release);
        Ok((entry.block, zero))
    }

    /// Returns the slab around an address, if the page map has one.
    #[inline]
    fn slab_around(&self, addr: usize) -> Option<Handle> {
        // SAFETY: a value of the heap's map, and the heap is borrowed.
        unsafe { map::slab(self.value(addr)) }
    }

    /// Allocates a block of a hardened heap, if one is cached.
    #[inline]
    pub(super) fn alloc_sealed(&self, layout: Layout) -> Option<Result<NonNull<u8>, HeapError>> {
        let hardened = self.heap.hardened.as_ref()?;
        if hardened.is_full()
            && let Some(block) = self.alloc_full(hardened, layout)
        {
            return Some(block);
        }
        let class = hardened::class_for(layout)?;
        let entry = hardened.pop(&self.cache, class)?;
        self.count(layout.size());
        let slab = self.slab_around(entry.block.addr().get());
        let told = self.heap.hand_out(slab, entry, class, layout);
        Some(told.map(|(block, _)| block))
    }

    /// Frees a block if the heap is hardened, or says why it cannot be.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free_sized`].
    #[inline]
    pub(super) unsafe fn free_sealed(
        &self,
        block: NonNull<u8>,
        layout: Layout,
    ) -> Option<Result<(), HeapError>> {
        let hardened = self.heap.hardened.as_ref()?;
        // SAFETY: the caller's promise.
        if hardened.is_full() && !self.cache.is_due() && unsafe { self.free_full(block, layout) } {
            return Some(Ok(()));
        }
        // SAFETY: the caller's promise; it was left as it is.
        Some(unsafe { self.free_hardened(block, Some(layout)) })
    }

    /// Allocates a block of a hardened heap, and says whether it reads zero.
    fn alloc_hardened(&self, hardened: &Hardened, layout: Layout) -> Result<Big, HeapError> {
        let Some(class) = hardened::class_for(layout) else {
            self.count_big(layout.size());
            return self.heap.alloc_big_sealed(layout);
        };
        self.count(layout.size());
        let entry = match hardened.pop(&self.cache, class) {
            Some(entry) => entry,
            None => self.refill(class)?,
        };
        self.heap.hand_out(None, entry, class, layout)
    }

    /// Frees a block of a hardened heap, or says why not.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`].
    unsafe fn free_hardened(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        if self.cache.is_due() {
            self.maintain();
        }
        let find = |addr| self.slab_around(addr);
        if find(block.addr().get()).is_none_or(|slab| slab.class() >= CLASSES) {
            self.count_big(0);
        }
        let keep = |class, entry| self.keep(class, entry);
        // SAFETY: the caller's promise.
        unsafe { self.heap.free_hardened(block, find, layout, keep) }
    }

    /// Counts a call for a block without a class, and looks at the clock if it is time to.
    fn count_big(&self, bytes: usize) {
        if self.cache.count_big(bytes) {
            self.heap.take_deferred();
        } else {
            self.maintain();
        }
    }

    /// Puts a block that is free into its magazine, or half of that into their slabs.
    #[inline]
    pub(super) fn keep(&self, class: usize, entry: Entry) {
        if !self.stack(class).push(entry) {
            self.keep_slow(class, entry);
        }
    }

    #[cold]
    fn keep_slow(&self, class: usize, entry: Entry) {
        let magazine = self.stack(class);
        self.widen(class);
        if !magazine.push(entry) {
            self.flush_oldest(class, magazine.len().div_ceil(2));
            if !magazine.push(entry) {
                self.heap.flush(class, &[entry]);
            }
        }
    }

    /// Fills the empty magazine of a class by half, and returns one block more.
    #[cold]
    #[inline(never)]
    fn refill(&self, class: usize) -> Result<Entry, HeapError> {
        let magazine = self.stack(class);
        self.maintain();
        self.widen(class);
        let most = self.cache.batch(class, magazine.capacity() / 2);
        let shard = self.cache.shard();
        // From above downwards, as the lowest comes first and is to be the first that is popped.
        let (mut found, mut place) = (None, most - 1);
        let mut take = |entry| {
            if found.is_none() {
                found = Some(entry);
            } else {
                place -= 1;
                magazine.put_at(place, entry);
            }
        };
        let result = self.heap.refill(shard, class, most as usize, &mut take);
        if let Err(error) = result {
            self.flush();
            if !self.heap.reclaim(error) {
                return Err(error);
            }
            self.heap.refill(shard, class, most as usize, &mut take)?;
        }
        magazine.filled(place, most - 1);
        found.ok_or(HeapError::Config)
    }

    /// Makes the room in a magazine four times as much, up to what the configuration allows, if
    /// there is metadata.
    fn widen(&self, class: usize) {
        let magazine = self.stack(class);
        let old = magazine.capacity();
        let limit = self.heap.config.limit(class);
        if old >= limit {
            return;
        }
        let capacity = (old * WIDER).max(FIRST).min(limit);
        let layout = Magazine::layout(capacity);
        let bytes = (capacity - old) as usize * class::size(class);
        // The arena is used under one of the heap's locks, so that a fork finds it at rest.
        let mut caches = self.heap.lock_caches();
        if bytes > ROOM - caches.room.min(ROOM) {
            return;
        }
        let Some(slots) = layout.and_then(|layout| self.heap.arena().alloc(layout).ok()) else {
            return;
        };
        caches.room += bytes;
        let _changing = self.cache.changing(class);
        let old = magazine.memory();
        magazine.grow(slots.cast(), capacity);
        if let Some((slots, layout)) = old {
            // SAFETY: allocated here with this layout; the magazine has other slots now.
            unsafe { self.heap.free_metadata(slots, layout) };
        }
    }

    /// Frees a block for which there is no room at hand, or that has no class, or says why there is
    /// none. A layout is compared with what was asked for if the heap is hardened.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`].
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn free_slow(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        if self.heap.is_hardened() {
            // SAFETY: the caller's promise.
            return unsafe { self.free_hardened(block, layout) };
        }
        let addr = block.addr().get();
        let Some((class, state)) = self.live::<true>(addr) else {
            self.count_big(0);
            if let Some(slab) = self.live_big(addr) {
                return self.heap.free_big(slab, addr);
            }
            // SAFETY: the caller's promise.
            return unsafe { self.heap.free_big_or_refuse(addr) };
        };
        self.maintain();
        let entry = Entry { block, state };
        entry.take_live(FREED)?;
        self.keep(class, entry);
        Ok(())
    }

    /// Brings back the `count` blocks of a class that are at hand for longest.
    fn flush_oldest(&self, class: usize, count: u32) {
        let magazine = self.stack(class);
        let mut left = count;
        while left != 0 {
            let mut some = [const { MaybeUninit::uninit() }; FLUSHED as usize];
            let now = left.min(FLUSHED);
            for (place, entry) in some.iter_mut().zip(magazine.oldest(now)) {
                place.write(entry);
            }
            // First, so that a forked child finds no block in two places.
            let changing = self.cache.changing(class);
            magazine.forget_oldest(now);
            drop(changing);
            // SAFETY: the first `now` were written above, as many as there are and no more than there is room for.
            let some = unsafe { slice::from_raw_parts(some.as_ptr().cast(), now as usize) };
            self.heap.flush(class, some);
            left -= now;
        }
    }
}

/// Bytes that are copied step by step at most; a call that knows better ways does more.
const COPIED: usize = 512;

/// Blocks that are under way from a magazine to bins at once, at most: half of a magazine.
const FLUSHED: u32 = 128;

/// Bytes of blocks that all magazines of a heap have room for at most, so that idle threads do not keep more.
const ROOM: usize = 64 << 20;

/// How many times the room of a magazine grows at once. Slots of each size that it had before stay
/// behind for other magazines, so that steps are few.
const WIDER: u32 = 4;

/// What the lock of the caches guards, beside which ones are in use.
pub(super) struct Caches {
    /// Those that no thread has, and that are empty.
    unused: Option<CacheRef>,
    /// Those that threads left behind with blocks in them.
    stocked: Option<CacheRef>,
    /// Bytes of blocks that magazines of the stocked ones have room for.
    stock: usize,
    /// Bytes of blocks that all magazines have room for.
    room: usize,
    /// How many threads there are in each shard.
    threads: [u32; SHARDS],
    /// Whether a call that never goes on may have left all this half changed.
    pub(super) is_torn: bool,
}

impl Caches {
    pub(super) const fn new() -> Self {
        Self {
            unused: None,
            stocked: None,
            stock: 0,
            room: 0,
            threads: [0; SHARDS],
            is_torn: false,
        }
    }

    /// Counts caches that there are; those that no thread has serve again if they are to.
    pub(super) fn of(all: impl Iterator<Item = CacheRef>, serve: bool) -> Self {
        let mut caches = Self::new();
        for cache in all {
            caches.room += cache.room();
            if cache.in_use.load(Relaxed) {
                caches.threads[cache.shard()] += 1;
            } else if serve {
                caches.put(cache);
            }
        }
        caches
    }

    /// Takes a cache that no thread has, the last that was put there, before those that are empty.
    fn take(&mut self) -> Option<CacheRef> {
        self.take_stocked().or_else(|| pop(&mut self.unused))
    }

    fn take_stocked(&mut self) -> Option<CacheRef> {
        let cache = pop(&mut self.stocked)?;
        self.stock = self.stock.saturating_sub(cache.room());
        Some(cache)
    }

    /// Puts a cache that no thread has where the next one finds it.
    fn put(&mut self, cache: CacheRef) {
        let list = if cache.is_empty() {
            &mut self.unused
        } else {
            self.stock += cache.room();
            &mut self.stocked
        };
        let next = list.map_or(null_mut(), CacheRef::as_ptr);
        cache.next_unused.store(next, Relaxed);
        *list = Some(cache);
    }

    /// Notes that a thread uses a cache.
    fn begin(&mut self, cache: CacheRef) {
        self.threads[cache.shard()] += 1;
        cache.in_use.store(true, Relaxed);
    }

    /// Notes that the thread of a cache does not use it any more.
    fn end(&mut self, cache: CacheRef) {
        let threads = &mut self.threads[cache.shard()];
        *threads = threads.saturating_sub(1);
        cache.in_use.store(false, Relaxed);
        self.put(cache);
    }

    /// Returns a shard that no other one has fewer threads than: this one if possible, so that
    /// threads that go on with what others did, one after the other, share slabs, and the lines of
    /// their states, with few.
    fn least_used(&self, own: usize, shards: usize) -> usize {
        let threads = |shard: &usize| self.threads[*shard];
        let least = (0..shards).min_by_key(threads).unwrap_or(0);
        if threads(&own) == threads(&least) {
            own
        } else {
            least
        }
    }
}

/// Takes the first of a list of caches.
fn pop(list: &mut Option<CacheRef>) -> Option<CacheRef> {
    let cache = (*list)?;
    let next = NonNull::new(cache.next_unused.load(Relaxed));
    // SAFETY: links hold what `put` stored there: caches, which stay as long as the heap.
    *list = next.map(|next| unsafe { CacheRef::new(next) });
    Some(cache)
}

// SAFETY: caches are made of atomics, and stay as long as the heap.
unsafe impl Send for Caches {}

/// Blocks that a magazine has room for in an empty cache that no thread has, at most.
const KEPT: u32 = 32;

/// Bytes of blocks that magazines of stocked caches have room for at most.
const STOCK: usize = 8 << 20;

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> LocalHeap<'_, P, M, R> {
    /// Ends a thread's use of the cache, and leaves it with what is in it to the next thread, which
    /// does much the same; but only until the next tick, and only some megabytes in all.
    pub(super) fn leave_to_next(self) {
        let local = ManuallyDrop::new(self);
        let mut caches = local.heap.lock_caches();
        let is_kept = local.heap.config.returns() != Return::Eager
            && local.cache.room() <= STOCK - caches.stock.min(STOCK);
        if is_kept {
            caches.end(local.cache);
        } else {
            drop(caches);
            drop(ManuallyDrop::into_inner(local));
        }
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Brings back the blocks that ended threads left in their caches.
    pub(super) fn flush_stocked(&self) {
        loop {
            let mut caches = self.lock_caches();
            let Some(cache) = caches.take_stocked() else {
                return;
            };
            // A forked child finds it as it finds those of threads that it has not.
            cache.by_slot.store(true, Relaxed);
            cache.place.store(NOWHERE, Relaxed);
            caches.begin(cache);
            drop(caches);
            // SAFETY: in use by this call alone since it is in no list any more.
            drop(unsafe { LocalHeap::from_cache(self, cache) });
        }
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Drop for LocalHeap<'_, P, M, R> {
    fn drop(&mut self) {
        self.flush();
        self.cache.begin_small();
        let mut caches = self.heap.lock_caches();
        // The next thread, which does much the same, finds room for some blocks of each class that this one used.
        for class in 0..CLASSES {
            let _changing = self.cache.changing(class);
            let magazine = self.stack(class);
            let capacity = magazine.capacity();
            if capacity > KEPT
                && let Some((slots, layout)) = magazine.shut()
            {
                let room = capacity as usize * class::size(class);
                caches.room = caches.room.saturating_sub(room);
                // SAFETY: allocated by `widen` with this layout; the magazine has forgotten them.
                unsafe { self.heap.free_metadata(slots, layout) };
            }
        }
        caches.end(self.cache);
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> fmt::Debug
    for LocalHeap<'_, P, M, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalHeap").finish_non_exhaustive()
    }
}
