//! A heap in a static, for `#[global_allocator]`: it opens itself, and finds what the calling thread has at
//! hand by a slot.
//!
//! While a thread is in a call its cache says so, or its slot if it has none. A signal handler that
//! interrupts the call sees it, and goes another way.

use super::{
    Heap, HeapError, Level, LocalHeap,
    cache::CacheRef,
    error::end,
    parts::Mark,
    shared::cleared,
    slot::{BUSY, DETACHED, FRESH, NOWHERE, ThreadSlot, is_cache, is_fresh},
};
use crate::{
    arch::{stack_pointer, store_stack_pointer},
    atomic::own_usize,
    fork::ForkChild,
    provider::{Error, PageProvider},
    sync::{Lock, RawMutex},
};
use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    fmt,
    hint::cold_path,
    marker::PhantomData,
    mem::{self, ManuallyDrop, MaybeUninit},
    ptr::{NonNull, null_mut, without_provenance_mut},
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        compiler_fence,
    },
};

/// What a heap in a static is made of: `hostmem::SystemHeap`, of which `hostmem::GlobalHeap` is, is an example.
///
/// # Safety
///
/// `state` returns the same state each time, and no other `StaticHeap` returns that; nor does another one
/// have the same `Slot`. `open` does not allocate from this heap.
pub unsafe trait StaticHeap: Sized + 'static {
    /// What blocks come from.
    type Pages: PageProvider + Copy + Send + Sync;
    /// What metadata comes from.
    type Metadata: PageProvider + Copy + Send + Sync;
    /// What waiting threads do.
    type Lock: RawMutex + Send + Sync;
    /// Where a thread keeps what it has at hand.
    type Slot: ThreadSlot;

    /// Whether [`GlobalAlloc::dealloc`] checks what it is given: hardening level 1. Without, it is what
    /// [`LocalHeap::free_unchecked`] is.
    const CHECKED: bool = true;

    /// Whether [`GlobalAlloc`]'s calls expect a heap that is opened at a level above
    /// [`Hardening::Checked`](super::Hardening::Checked), whose calls are quicker then. It may be
    /// opened at any level.
    const HARDENED: bool = false;

    /// Makes the heap, at the first call. An error fails that call, and the next one tries again.
    ///
    /// # Errors
    ///
    /// The errors of [`Heap::on`].
    fn open() -> Result<HeapOf<Self>, HeapError>;

    /// Returns where the heap lies.
    fn state() -> &'static State<Self>;

    /// Is called once, before the heap is opened: the place to register
    /// [`GlobalHeap::fork_child`](ForkChild::fork_child) with what runs in forked children, as
    /// `hostmem::register_fork_child` does. It may allocate from this heap, which is then opened
    /// meanwhile.
    fn register() {}

    /// Is told of a block that [`GlobalAlloc`] was to free or to resize, and that is no live block
    /// of the heap's; and of corrupt ones above [`Hardening::Checked`](super::Hardening::Checked),
    /// those too that were to be handed out. It must not unwind.
    ///
    /// By itself, it ends the program: whoever frees what is not allocated cannot be trusted further.
    fn refused(block: *mut u8, error: HeapError) {
        end(block, &error);
    }
}

/// Bytes that the kernel puts on the stack for a signal handler at least, which so begins as much
/// deeper than the call that it interrupts: the registers alone take as many.
const SIGNAL_FRAME: usize = 1000;

/// The heap of a [`StaticHeap`].
pub type HeapOf<C> =
    Heap<<C as StaticHeap>::Pages, <C as StaticHeap>::Metadata, <C as StaticHeap>::Lock>;

pub(super) type LocalOf<C> = LocalHeap<
    'static,
    <C as StaticHeap>::Pages,
    <C as StaticHeap>::Metadata,
    <C as StaticHeap>::Lock,
>;

/// Where a heap in a static lies, once it is open.
pub struct State<C: StaticHeap> {
    heap: UnsafeCell<MaybeUninit<HeapOf<C>>>,
    is_open: AtomicBool,
    /// Whether the heap was closed, and `is_open` stays false.
    is_closed: AtomicBool,
    opening: Lock<(), C::Lock>,
    is_registered: AtomicBool,
}

// SAFETY: the heap is written once, under the lock, before `is_open` says so by Release; it is only read
// after that was seen, and it is Sync. Its parts are Send by the bounds of the trait. It is dropped once, by
// a call whose caller promises that no other one is under way, after `is_open` says that it is not there.
unsafe impl<C: StaticHeap> Sync for State<C> {}

impl<C: StaticHeap> State<C> {
    /// Makes a place for a heap.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            heap: UnsafeCell::new(MaybeUninit::uninit()),
            is_open: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            opening: Lock::new(()),
            is_registered: AtomicBool::new(false),
        }
    }

    /// Returns the heap.
    ///
    /// # Safety
    ///
    /// It was opened, as [`State::get`] or the cache of a thread tells, and was not closed since: then no
    /// slot has a cache.
    #[inline]
    unsafe fn get_unchecked(&'static self) -> &'static HeapOf<C> {
        // SAFETY: it is never changed after it was initialised, which is the caller's promise.
        let heap = unsafe { &*self.heap.get() };
        // SAFETY: as above.
        unsafe { heap.assume_init_ref() }
    }

    pub(super) fn get(&'static self) -> Option<&'static HeapOf<C>> {
        self.is_open.load(Acquire).then(|| {
            // SAFETY: as was seen just now.
            unsafe { self.get_unchecked() }
        })
    }

    /// Registers what is to run in forked children, before the heap's first lock is taken. The
    /// calling thread is in no call.
    fn register(&self) {
        if self.is_closed() {
            return;
        }
        if !self.is_registered.load(Relaxed) && !self.is_registered.swap(true, Relaxed) {
            C::Slot::without_signals(C::register);
        }
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    /// Opens the heap if it is not.
    fn open(&'static self) -> Result<&'static HeapOf<C>, HeapError> {
        if let Some(heap) = self.get() {
            return Ok(heap);
        }
        let _opening = self.opening.lock();
        if let Some(heap) = self.get() {
            return Ok(heap);
        }
        if self.is_closed() {
            return Err(HeapError::Closed);
        }
        let mut heap = C::open()?;
        heap.mark = Some(Mark {
            enter: enter::<C>,
            leave: leave::<C>,
        });
        // SAFETY: nobody reads before `is_open` says so, and nobody else writes: the lock is held.
        unsafe { self.heap.get().write(MaybeUninit::new(heap)) };
        self.is_open.store(true, Release);
        // SAFETY: written just now.
        Ok(unsafe { self.get_unchecked() })
    }
}

/// Returns what the slot of a thread says that has not called yet.
const fn fresh<C: StaticHeap>() -> *mut () {
    if C::Slot::IS_NEVER_NULL {
        FRESH
    } else {
        null_mut()
    }
}

/// Marks the calling thread as one that is in a call, whose stack ends at `depth` or deeper until
/// it leaves; returns its cache, and what its slot said before, or [`BUSY`] if it was marked.
fn enter<C: StaticHeap>(depth: usize) -> (Option<CacheRef>, *mut ()) {
    let slot = C::Slot::get();
    // SAFETY: slots hold what `attach` put there.
    let cache = is_cache(slot).then(|| unsafe { CacheRef::from_slot(slot) });
    // Not where the stack ends here: the call returns from here, and goes on.
    match CacheGuard::<C>::begin_by(slot, |mark| mark.store(depth, Relaxed)) {
        // `leave` takes the mark away.
        Some(guard) => mem::forget(guard),
        None if slot == BUSY || is_cache(slot) => return (cache, BUSY),
        None => mem::forget(SlotGuard::<C>::begin(slot)),
    }
    (cache, slot)
}

/// Takes away the mark that [`enter`] made, if it did.
fn leave<C: StaticHeap>(before: *mut ()) {
    if before == BUSY {
        return;
    }
    if is_cache(before) {
        // SAFETY: slots hold what `attach` put there.
        let cache = unsafe { CacheRef::from_slot(before) };
        drop(CacheGuard::<C>::of(cache));
    } else {
        drop(SlotGuard::<C>::ending(before));
    }
}

impl<C: StaticHeap> Default for State<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: StaticHeap> fmt::Debug for State<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("is_open", &self.is_open)
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

/// A heap that lies in a static and opens itself: `#[global_allocator]`. It has no size; all values of one
/// type are the same heap.
///
/// Every call may be made from a signal handler, if the [slot](StaticHeap::Slot) can: one that
/// interrupted a call of the same heap which holds a lock waits for none, and fails where only a lock would
/// help ([`Heap::try_alloc`]). Blocks that it frees then are put aside for the next call that takes a lock.
/// A handler may leave the call that it interrupted by `siglongjmp`, and it may fork.
pub struct GlobalHeap<C>(PhantomData<fn() -> C>);

/// A call of a thread that has a cache, which says so while this lives.
pub(super) struct CacheGuard<C: StaticHeap> {
    cache: CacheRef,
    _config: PhantomData<C>,
}

impl<C: StaticHeap> CacheGuard<C> {
    /// Begins a call of a thread whose slot has this value, if that is a cache that is in no call.
    #[inline]
    pub(super) fn begin(slot: *mut ()) -> Option<Self> {
        Self::begin_by(slot, store_stack_pointer)
    }

    /// As [`CacheGuard::begin`], by a function that stores where the stack ends at most in the call.
    #[inline(always)]
    fn begin_by(slot: *mut (), store: impl FnOnce(&AtomicUsize)) -> Option<Self> {
        if !C::Slot::IS_NEVER_NULL && slot.is_null() {
            return None;
        }
        // SAFETY: slots hold what `attach` put there, or where a mark lies that is no cache's.
        let mark = unsafe { CacheRef::mark(slot) };
        // SAFETY: only the thread that has the cache changes it, which this is, and nothing changes
        // those that are no cache's.
        if unsafe { own_usize(mark) } != 0 {
            return None;
        }
        store(mark);
        // SAFETY: what `attach` put there: the marks that are no cache's are not zero.
        let cache = unsafe { CacheRef::from_slot(slot) };
        // What a handler on this thread sees is in order; no other thread looks.
        compiler_fence(SeqCst);
        Some(Self::of(cache))
    }

    /// Returns the call that a thread is in which has this cache, and is marked.
    #[inline]
    const fn of(cache: CacheRef) -> Self {
        Self {
            cache,
            _config: PhantomData,
        }
    }

    /// Begins a call of the calling thread.
    #[inline]
    pub(super) fn begin_quick() -> Option<Self> {
        Self::begin(C::Slot::get())
    }

    /// Allocates a cached block.
    #[inline]
    pub(super) fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        let block = self.cache.alloc_quick(layout)?;
        self.count(layout.size());
        Some(block)
    }

    /// Allocates a cached block that reads zero.
    #[inline]
    pub(super) fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        let told = self.cache.alloc_quick_told(layout)?;
        self.count(layout.size());
        Some(cleared(told, layout))
    }

    /// Counts what was asked for, of a cache that had a block, and so is a thread's.
    #[inline]
    fn count(&self, bytes: usize) {
        if !self.cache.count(bytes) {
            self.local().look();
        }
    }

    /// Frees a block if it can be cached by a quick call; says whether it did.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalHeap::free`]. If there is a layout, it is the block's.
    #[inline]
    pub(super) unsafe fn free(&self, block: NonNull<u8>, layout: Option<Layout>) -> bool {
        // In all cases the caller gives the block up, if it is one, as it is unless frees are checked. The heap is there
        // if the cache is a thread's, and others have no window to look at.
        match layout {
            // SAFETY: as above.
            Some(layout) if C::CHECKED => unsafe {
                self.cache.free_quick_sized::<true>(block, layout)
            },
            // SAFETY: as above.
            Some(layout) => unsafe { self.cache.free_quick_sized::<false>(block, layout) },
            // SAFETY: as above.
            None if C::CHECKED => unsafe { self.cache.free_quick::<true>(block) },
            // SAFETY: as above.
            None => unsafe { self.cache.free_quick::<false>(block) },
        }
    }

    /// Returns the thread's handle.
    #[inline]
    pub(super) fn local(&self) -> ManuallyDrop<LocalOf<C>> {
        // SAFETY: a thread with a cache has opened the heap.
        let heap = unsafe { C::state().get_unchecked() };
        // SAFETY: the cache is this thread's, as nobody else's slot has it, and it says that it is busy, so that a
        // handler makes no other handle of it.
        ManuallyDrop::new(unsafe { LocalHeap::from_cache(heap, self.cache) })
    }

    /// Ends this call within one of a thread that loses its cache, and returns the handle.
    fn into_local(self, _guard: &SlotGuard<C>) -> LocalOf<C> {
        let local = self.local();
        self.cache.mark.store(0, Relaxed);
        mem::forget(self);
        ManuallyDrop::into_inner(local)
    }
}

impl<C: StaticHeap> Drop for CacheGuard<C> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.cache.mark.store(0, Relaxed);
    }
}

/// A call of a thread without a cache, or that gets or loses one; while this lives, its slot says so.
struct SlotGuard<C: StaticHeap> {
    /// What the slot says afterwards.
    after: *mut (),
    _config: PhantomData<C>,
}

impl<C: StaticHeap> SlotGuard<C> {
    /// Begins a call of a thread whose slot is not [`BUSY`], and is to say `after` when it has ended.
    fn begin(after: *mut ()) -> Self {
        C::Slot::set(BUSY);
        compiler_fence(SeqCst);
        Self::ending(after)
    }

    /// Returns the call that a marked thread without a cache is in.
    const fn ending(after: *mut ()) -> Self {
        Self {
            after,
            _config: PhantomData,
        }
    }
}

impl<C: StaticHeap> Drop for SlotGuard<C> {
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        C::Slot::set(self.after);
    }
}

impl<C: StaticHeap> GlobalHeap<C> {
    /// Names the heap.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Returns the heap, which is opened if it was not: for statistics, queries, ticks and trims. Those of
    /// its calls that take locks must not be made from signal handlers.
    ///
    /// # Errors
    ///
    /// Those of [`StaticHeap::open`].
    pub fn heap(&self) -> Result<&'static HeapOf<C>, HeapError> {
        match C::state().get() {
            Some(heap) => Ok(heap),
            None => Self::opened(),
        }
    }

    /// Ends the calling thread's use of what it has cached, as its end does: the next thread that
    /// begins finds it, or the next tick brings it back. Then the thread's calls take a lock each.
    /// For threads whose slot does not see their end.
    pub fn detach(&self) {
        Self::exit();
    }

    /// Closes the heap for good: all of its memory goes back, that of blocks, of metadata and of the page map. Where it
    /// was not open, it never will be.
    ///
    /// Later calls find it closed before they look for anything in it, also those of threads that had
    /// cached blocks, and their ends: an allocation fails with [`HeapError::Closed`], or returns null;
    /// [`GlobalAlloc::dealloc`] does nothing, and [`GlobalHeap::free`] returns the error. A later `close` has
    /// nothing to do. Forked children have nothing to repair.
    ///
    /// A library that is to be unloaded closes its heap at last:
    ///
    /// ```
    /// use hostmem_core::heap::{GlobalHeap, HeapError, StaticHeap};
    ///
    /// /// # Safety
    /// ///
    /// /// Those of `close`: nothing that the library allocated is used any more.
    /// unsafe fn unload<C: StaticHeap>(heap: &GlobalHeap<C>) -> Result<(), HeapError> {
    ///     // SAFETY: the caller's promise, which is the same.
    ///     unsafe { heap.close()? };
    ///     assert_eq!(heap.alloc_bytes(1), Err(HeapError::Closed));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`HeapError::Busy`], and nothing changes, where the calling thread is in a call of this heap, as a signal
    /// handler or [`StaticHeap::open`] may be; and where another thread has blocks cached, and its slot
    /// does not tell its [place](ThreadSlot::place): it must [detach](GlobalHeap::detach) before.
    ///
    /// # Safety
    ///
    /// - No other thread is in a call of this heap or at its end from the start of this call to its return; what
    ///   they did before happened before this call, and what they do later happens after it.
    /// - No block of this heap is used any more, nor is the heap that [`GlobalHeap::heap`] returned, by a thread that
    ///   returns its memory for instance.
    pub unsafe fn close(&self) -> Result<(), HeapError> {
        let state = C::state();
        if state.is_closed() {
            return Ok(());
        }
        let slot = C::Slot::get();
        if CacheGuard::<C>::begin(slot).is_none() && (slot == BUSY || is_cache(slot)) {
            return Err(HeapError::Busy);
        }
        let heap = state.get();
        if let Some(heap) = heap {
            let own = |cache: CacheRef| cache.as_slot() == slot;
            if Self::with_slot(heap).any(|c| !own(c) && c.place.load(Relaxed).is_null()) {
                return Err(HeapError::Busy);
            }
        }
        // What a signal handler on this thread sees is in order; others see it later, by the caller's promise.
        state.is_closed.store(true, Release);
        state.is_open.store(false, Release);
        C::Slot::set(DETACHED);
        let Some(heap) = heap else {
            return Ok(());
        };
        for cache in Self::with_slot(heap) {
            let place = cache.place.load(Relaxed);
            if !place.is_null() && place != NOWHERE {
                // SAFETY: the slot's of a thread that has neither ended nor detached, or it would not have the
                // cache, so that it may be written; that thread waits, by the caller's promise.
                unsafe { place.write(DETACHED) };
            }
        }
        compiler_fence(SeqCst);
        // SAFETY: no one has a reference into it: calls begin by the state or by a slot, which both say that it is
        // not there, none is under way, and those that `heap` returned are used no more.
        let heap = unsafe { &mut *state.heap.get() };
        // SAFETY: initialised, as it was open, and dropped once, as it never is again.
        unsafe { heap.assume_init_drop() };
        Ok(())
    }

    /// Yields the caches that threads have by their slots.
    fn with_slot(heap: &HeapOf<C>) -> impl Iterator<Item = CacheRef> {
        let has_slot = |c: &CacheRef| c.in_use.load(Relaxed) && c.by_slot.load(Relaxed);
        heap.all_caches().filter(has_slot)
    }

    #[cold]
    fn opened() -> Result<&'static HeapOf<C>, HeapError> {
        let slot = C::Slot::get();
        if slot == BUSY {
            return Err(HeapError::Busy);
        }
        C::state().register();
        C::Slot::without_signals(|| {
            let _guard = SlotGuard::<C>::begin(C::Slot::get());
            C::state().open()
        })
    }

    /// What a thread does when it ends.
    fn exit() {
        if C::state().is_closed() {
            return;
        }
        let slot = C::Slot::get();
        if is_cache(slot) {
            Self::forget_left(slot);
        }
        let Some(guard) = CacheGuard::<C>::begin(slot) else {
            return;
        };
        C::Slot::without_signals(|| {
            let detaching = SlotGuard::<C>::begin(DETACHED);
            // Another thread may have the cache from then on.
            guard.into_local(&detaching).leave_to_next();
        });
    }

    /// Gives the calling thread, which has not called before, a cache if that is possible.
    fn attach() -> Option<()> {
        C::state().register();
        C::Slot::without_signals(|| {
            let mut guard = SlotGuard::<C>::begin(fresh::<C>());
            // A slot without room for this thread.
            if C::Slot::get() != BUSY {
                return None;
            }
            let heap = C::state().open().ok()?;
            let local = ManuallyDrop::new(heap.local_of_slot().ok()?);
            local.cache().place.store(C::Slot::place(), Relaxed);
            guard.after = local.cache().as_slot();
            Some(())
        })?;
        // From here on the thread may allocate, also in the call below.
        if !C::Slot::without_signals(|| C::Slot::on_exit(Self::exit)) {
            Self::exit();
        }
        Some(())
    }

    /// Forgets a call of this thread that a signal handler interrupted and left for good, by
    /// `siglongjmp`: the stack ended where frames of a handler that returns cannot be.
    fn forget_left(slot: *mut ()) {
        // SAFETY: slots hold what `attach` put there.
        let cache = unsafe { CacheRef::from_slot(slot) };
        let depth = cache.depth();
        let is_left = depth != 0
            && stack_pointer().saturating_add(SIGNAL_FRAME) > depth
            && !C::Slot::is_on_signal_stack();
        if !is_left {
            return;
        }
        // SAFETY: a thread with a cache has opened the heap.
        let heap = unsafe { C::state().get_unchecked() };
        // SAFETY: the calling thread's cache, as its slot says, and the call never goes on.
        unsafe { heap.leave_locks(cache) };
        cache.forget_call();
    }

    /// Does `with_handle` or `without` in a call, or in a handler that interrupted one which holds no
    /// lock; else `interrupted`.
    // Where its caller's stack ends is looked at, too.
    #[inline(always)]
    pub(super) fn call<T>(
        with_handle: impl FnOnce(&LocalOf<C>) -> Result<T, HeapError>,
        without: impl FnOnce(&'static HeapOf<C>) -> Result<T, HeapError>,
        interrupted: impl FnOnce(&'static HeapOf<C>) -> Result<T, HeapError>,
    ) -> Result<T, HeapError> {
        if C::state().is_closed() {
            return Err(HeapError::Closed);
        }
        let mut slot = C::Slot::get();
        if is_fresh(slot) {
            // Without, the shared calls serve.
            let _ = Self::attach();
            slot = C::Slot::get();
        } else if slot == DETACHED {
            C::state().register();
        }
        if is_cache(slot) {
            Self::forget_left(slot);
        }
        if let Some(guard) = CacheGuard::<C>::begin(slot) {
            return with_handle(&guard.local());
        }
        if slot == BUSY || is_cache(slot) {
            let heap = C::state().get().ok_or(HeapError::Busy)?;
            // SAFETY: slots hold what `attach` put there.
            if slot != BUSY && unsafe { CacheRef::from_slot(slot) }.takes_locks() {
                return without(heap);
            }
            return interrupted(heap);
        }
        C::Slot::without_signals(|| {
            let _guard = SlotGuard::<C>::begin(slot);
            without(C::state().open()?)
        })
    }

    /// Allocates a block of a heap that is thought to be hardened, if a quick call does not.
    #[inline(never)]
    fn alloc_hardened(layout: Layout) -> *mut u8 {
        if let Some(guard) = CacheGuard::<C>::begin_quick() {
            if let Some(block) = guard.local().alloc_sealed(layout) {
                drop(guard);
                return Self::or_null(block);
            }
            if let Some(block) = guard.alloc(layout) {
                return block.as_ptr();
            }
        }
        Self::alloc_slow(layout)
    }

    /// Frees a block of a heap that is thought to be hardened, if a quick call does not.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn dealloc_hardened(&self, block: NonNull<u8>, layout: Layout) {
        let freed = CacheGuard::<C>::begin_quick().and_then(|guard| {
            // SAFETY: the caller's promise: a block of this layout, whose user gives it up.
            unsafe { guard.local().free_sealed(block, layout) }
        });
        match freed {
            Some(Ok(())) => {}
            Some(Err(error)) => C::refused(block.as_ptr(), error),
            // SAFETY: as above; it was left as it is.
            None => unsafe { self.dealloc_other(block, layout) },
        }
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(layout: Layout) -> *mut u8 {
        Self::or_null(Self::alloc_by(layout))
    }

    #[cold]
    #[inline(never)]
    fn alloc_zeroed_slow(layout: Layout) -> *mut u8 {
        Self::or_null(Self::alloc_zeroed_by(layout))
    }

    /// Frees a block that a quick call does not.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn dealloc_other(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the contract a live block of this heap, whose user gives it up, and its
        // layout.
        match unsafe { Self::free_other(block, Some(layout)) } {
            // It went with the heap.
            Ok(()) | Err(HeapError::Closed) => {}
            Err(error) => C::refused(block.as_ptr(), error),
        }
    }

    /// Gives back all memory that is free now, what the calling thread has cached included; see [`Heap::collect`].
    ///
    /// # Errors
    ///
    /// Those of [`StaticHeap::open`]; [`HeapError::Busy`] in a signal handler that interrupted a call of the heap.
    pub fn collect(&self, level: Level) -> Result<(), HeapError> {
        Self::call(
            |local| {
                local.collect(level);
                Ok(())
            },
            |heap| {
                heap.collect(level);
                Ok(())
            },
            |_| Err(HeapError::Busy),
        )
    }

    fn or_null(result: Result<NonNull<u8>, HeapError>) -> *mut u8 {
        if let Err(error @ (HeapError::WriteAfterFree(at) | HeapError::Overflow(at))) = result {
            C::refused(without_provenance_mut(at.addr()), error);
        }
        result.map_or(null_mut(), NonNull::as_ptr)
    }
}

// SAFETY: blocks are of the asked for size and alignment, nobody else's until they are freed, and stay where
// they are; what is refused leaves all as it was. Nothing unwinds: `refused` must not, and nothing else
// panics. Nothing here allocates from a global allocator.
unsafe impl<C: StaticHeap> GlobalAlloc for GlobalHeap<C> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if C::HARDENED {
            if let Some(guard) = CacheGuard::<C>::begin_quick()
                && let Some(block) = guard.cache.alloc_sealed(layout)
            {
                guard.count(layout.size());
                return block.as_ptr();
            }
            cold_path();
            return Self::alloc_hardened(layout);
        }
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            && let Some(block) = guard.alloc(layout)
        {
            return block.as_ptr();
        }
        cold_path();
        Self::alloc_slow(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by the contract a block of this heap's, so not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        if C::HARDENED {
            if let Some(guard) = CacheGuard::<C>::begin_quick()
                // SAFETY: by the contract the block is live, and its user gives it up.
                && unsafe { guard.cache.free_sealed(block, layout) }
            {
                return;
            }
            cold_path();
            // SAFETY: by the contract; the block was left as it is.
            unsafe { self.dealloc_hardened(block, layout) };
            return;
        }
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            // SAFETY: by the contract the block is live, and its user gives it up.
            && unsafe { guard.free(block, Some(layout)) }
        {
            return;
        }
        cold_path();
        // SAFETY: by the contract the block's user gives it up.
        unsafe { self.dealloc_other(block, layout) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(guard) = CacheGuard::<C>::begin_quick()
            && let Some(block) = guard.alloc_zeroed(layout)
        {
            return block.as_ptr();
        }
        cold_path();
        Self::alloc_zeroed_slow(layout)
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by the contract a block of this heap's, so not null.
        let at = unsafe { NonNull::new_unchecked(block) };
        let moved = if let Some(guard) = CacheGuard::<C>::begin_quick() {
            let local = guard.local();
            let moved = if C::CHECKED {
                // SAFETY: by the contract the block has this layout, and its user gives it up.
                unsafe { local.realloc_quick::<true>(at, layout, new_size) }
            } else {
                // SAFETY: as above, and it is live.
                unsafe { local.realloc_quick::<false>(at, layout, new_size) }
            };
            if let Some(block) = moved {
                return block.as_ptr();
            }
            // SAFETY: as above.
            unsafe { local.realloc_slow(at, layout, new_size) }
        } else {
            Self::call(
                // SAFETY: as above.
                |local| unsafe { local.realloc(at, layout, new_size) },
                // SAFETY: as above.
                |heap| unsafe { heap.realloc(at, layout, new_size) },
                // SAFETY: as above.
                |heap| unsafe { heap.try_realloc(at, layout, new_size) },
            )
        };
        if let Err(error) = moved
            && error.is_invalid_free()
        {
            C::refused(block, error);
        }
        Self::or_null(moved)
    }
}

// SAFETY: the heap repairs itself, and the slot says whether a call of the forking thread goes on.
unsafe impl<C: StaticHeap> ForkChild for GlobalHeap<C> {
    /// Also takes what other threads, which the child has not, had cached by their slots. Where a
    /// signal handler forked that had interrupted a call of this heap, the thread gets another
    /// cache, and the call ends in the one that it has.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let state = C::state();
        if state.is_closed() {
            return Ok(());
        }
        let slot = C::Slot::get();
        // SAFETY: the caller's promise. If a call of this thread holds it, it goes on, and nothing
        // else opens the heap before it has: the slot stays as it is.
        unsafe { state.opening.abandon() };
        let Some(heap) = state.get() else {
            return Ok(());
        };
        let repair = |cache| {
            // SAFETY: the caller's promise; the slot says that this thread is in no call.
            unsafe { heap.repair(false)? };
            // SAFETY: the child has but this thread, and slots' caches are used by no other.
            unsafe { heap.adopt_orphans(cache) };
            Ok(())
        };
        match CacheGuard::<C>::begin(slot) {
            Some(guard) => repair(Some(guard.cache)),
            None if slot == BUSY || is_cache(slot) => {
                // SAFETY: the caller's promise.
                unsafe { heap.repair(true)? };
                let own = C::Slot::place();
                for cache in Self::with_slot(heap).filter(|c| c.place.load(Relaxed) != own) {
                    // Its thread is not in this process, and neither is the slot.
                    cache.place.store(NOWHERE, Relaxed);
                }
                C::Slot::set(fresh::<C>());
                Ok(())
            }
            None => {
                let _guard = SlotGuard::<C>::begin(slot);
                repair(None)
            }
        }
    }
}

impl<C> Clone for GlobalHeap<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for GlobalHeap<C> {}

impl<C: StaticHeap> Default for GlobalHeap<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for GlobalHeap<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GlobalHeap")
    }
}

#[cfg(all(test, not(loom), target_pointer_width = "64"))]
mod tests {
    extern crate std;

    use super::{super::fork::tests::Memory, *};
    use crate::{heap::HeapConfig, sync::Spin};
    use core::cell::Cell;
    use std::thread_local;

    #[derive(Debug)]
    struct Slot;

    thread_local! {
        static VALUE: Cell<*mut ()> = const { Cell::new(null_mut()) };
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }

    // SAFETY: each thread has a value of its own.
    unsafe impl ThreadSlot for Slot {
        fn get() -> *mut () {
            VALUE.get()
        }

        fn set(value: *mut ()) {
            assert!(value != BUSY || QUIET.get(), "no handler may leave this");
            VALUE.set(value);
        }

        fn without_signals<T>(f: impl FnOnce() -> T) -> T {
            let before = QUIET.replace(true);
            let result = f();
            QUIET.set(before);
            result
        }

        fn on_exit(_: fn()) -> bool {
            QUIET.get()
        }
    }

    #[derive(Debug)]
    struct Program;

    // SAFETY: the state and the slot are this heap's alone.
    unsafe impl StaticHeap for Program {
        type Pages = Memory;
        type Metadata = Memory;
        type Lock = Spin;
        type Slot = Slot;

        fn open() -> Result<HeapOf<Self>, HeapError> {
            Heap::on(Memory, Memory, HeapConfig::new())
        }

        fn state() -> &'static State<Self> {
            static STATE: State<Program> = State::new();
            &STATE
        }

        fn register() {
            assert!(QUIET.get(), "it may take locks of others");
        }
    }

    /// What takes a lock marks its thread with where its own frame ends, not that of a function
    /// that has returned by then: a handler that interrupts it may begin in between.
    #[test]
    fn a_thread_with_a_lock_is_marked_by_the_frame_that_holds_it() {
        let block = GlobalHeap::<Program>::new().alloc_bytes(100);
        block.expect("memory");
        // SAFETY: slots hold what `attach` put there.
        let cache = unsafe { CacheRef::from_slot(Slot::get()) };
        assert_eq!(cache.depth(), 0);
        let heap = Program::state().get().expect("it is open");
        let space = heap.lock_space();
        assert_eq!(cache.depth(), stack_pointer());
        drop(space);
        let bin = heap.lock_bin(0, 0);
        assert_eq!(cache.depth(), stack_pointer());
        let space = heap.lock_space();
        assert_eq!(cache.depth(), stack_pointer());
        drop((space, bin));
        assert_eq!(cache.depth(), 0);
    }
}
