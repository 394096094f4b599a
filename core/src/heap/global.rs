//! A heap in a static, for `#[global_allocator]`: it opens itself, and finds what the calling thread has at
//! hand by a slot.
//!
//! While a thread is in a call its slot says so. A signal handler that interrupts the call sees it, and
//! goes another way: one that never waits for a lock.

use super::{
    Heap, HeapError, Level, LocalHeap,
    cache::CacheRef,
    error::end,
    slot::{BUSY, DETACHED, ThreadSlot, is_cache},
};
use crate::{
    fork::ForkHooks,
    provider::{Error, ErrorKind, PageProvider},
    sync::{Lock, RawMutex},
};
use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    fmt,
    marker::PhantomData,
    mem::{self, ManuallyDrop, MaybeUninit},
    ptr::{NonNull, null_mut, without_provenance_mut},
    sync::atomic::{
        AtomicBool, AtomicPtr,
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
    /// [`Hardening::Checked`](super::Hardening::Checked), whose calls are quicker then. It may be opened at any level.
    const HARDENED: bool = false;

    /// Makes the heap, at the first call. An error fails that call, and the next one tries again.
    ///
    /// # Errors
    ///
    /// Those of [`Heap::new`].
    fn open() -> Result<HeapOf<Self>, HeapError>;

    /// Returns where the heap lies.
    fn state() -> &'static State<Self>;

    /// Is called once, when the heap serves: the place to register what needs memory to be registered.
    fn opened() {}

    /// Is told of a block that [`GlobalAlloc`] was to free or to resize, and that is no live block of
    /// the heap's; and of corrupt ones at [`Hardening::Full`](super::Hardening::Full), those too that were to be
    /// handed out. It must not unwind.
    ///
    /// By itself, it ends the program: whoever frees what is not allocated cannot be trusted further.
    fn refused(block: *mut u8, error: HeapError) {
        end(block, &error);
    }
}

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
    opening: Lock<(), C::Lock>,
    /// The slot of the thread that forks, guarded by `opening`.
    forking: AtomicPtr<()>,
}

// SAFETY: the heap is written once, under the lock, before `is_open` says so by Release; it is only read
// after that was seen, and it is Sync. Its parts are Send by the bounds of the trait.
unsafe impl<C: StaticHeap> Sync for State<C> {}

impl<C: StaticHeap> State<C> {
    /// Makes a place for a heap.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            heap: UnsafeCell::new(MaybeUninit::uninit()),
            is_open: AtomicBool::new(false),
            opening: Lock::new(()),
            forking: AtomicPtr::new(null_mut()),
        }
    }

    /// Returns the heap.
    ///
    /// # Safety
    ///
    /// It was opened, as [`State::get`] or the cache of a thread tells.
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

    /// Opens the heap if it is not; says whether this call did.
    fn open(&'static self) -> Result<(&'static HeapOf<C>, bool), HeapError> {
        if let Some(heap) = self.get() {
            return Ok((heap, false));
        }
        let _opening = self.opening.lock();
        if let Some(heap) = self.get() {
            return Ok((heap, false));
        }
        let heap = C::open()?;
        // SAFETY: nobody reads before `is_open` says so, and nobody else writes: the lock is held.
        unsafe { self.heap.get().write(MaybeUninit::new(heap)) };
        self.is_open.store(true, Release);
        // SAFETY: written just now.
        Ok((unsafe { self.get_unchecked() }, true))
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
            .finish_non_exhaustive()
    }
}

/// A heap that lies in a static and opens itself: `#[global_allocator]`. It has no size; all values of one
/// type are the same heap.
///
/// Every call may be made from a signal handler, if the [slot](StaticHeap::Slot) can: one that
/// interrupted a call of the same heap never waits for a lock, and fails where only a lock would
/// help ([`Heap::try_alloc`]). Blocks that it frees then are put aside for the next call that takes a lock.
pub struct GlobalHeap<C>(PhantomData<fn() -> C>);

/// A call of a thread that has a cache. While this lives, the thread's slot says so, or its cache where slots are not
/// quick.
pub(super) struct Turn<C: StaticHeap> {
    cache: CacheRef,
    _config: PhantomData<C>,
}

impl<C: StaticHeap> Turn<C> {
    /// Begins a call of a thread whose slot has this value, if that is a cache that is in no call.
    #[inline]
    pub(super) fn begin(slot: *mut ()) -> Option<Self> {
        if !is_cache(slot) {
            return None;
        }
        // SAFETY: slots hold what `attach` put there.
        let cache = unsafe { CacheRef::from_slot(slot) };
        if C::Slot::IS_QUICK {
            C::Slot::set(BUSY);
        } else if cache.is_busy.load(Relaxed) {
            return None;
        } else {
            cache.is_busy.store(true, Relaxed);
        }
        // What a handler on this thread sees is in order; no other thread looks.
        compiler_fence(SeqCst);
        Some(Self {
            cache,
            _config: PhantomData,
        })
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
    fn into_local(self, _call: &Call<C>) -> LocalOf<C> {
        let local = self.local();
        self.cache.is_busy.store(false, Relaxed);
        mem::forget(self);
        ManuallyDrop::into_inner(local)
    }
}

impl<C: StaticHeap> Drop for Turn<C> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        if C::Slot::IS_QUICK {
            C::Slot::set(self.cache.as_slot());
        } else {
            self.cache.is_busy.store(false, Relaxed);
        }
    }
}

/// A call of a thread without a cache, or that gets or loses one; while this lives, its slot says so.
struct Call<C: StaticHeap> {
    /// What the slot says afterwards.
    after: *mut (),
    _config: PhantomData<C>,
}

impl<C: StaticHeap> Call<C> {
    /// Begins a call of a thread whose slot is not [`BUSY`], and is to say `after` when it has ended.
    fn begin(after: *mut ()) -> Self {
        C::Slot::set(BUSY);
        compiler_fence(SeqCst);
        Self {
            after,
            _config: PhantomData,
        }
    }
}

impl<C: StaticHeap> Drop for Call<C> {
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

    /// Gives back what the calling thread has at hand, as its end does; then its calls take a lock each.
    /// For threads whose slot does not see their end.
    pub fn detach(&self) {
        Self::exit();
    }

    #[cold]
    fn opened() -> Result<&'static HeapOf<C>, HeapError> {
        let slot = C::Slot::get();
        if slot == BUSY {
            return Err(HeapError::Busy);
        }
        let (heap, new) = {
            let _call = Call::<C>::begin(slot);
            C::state().open()?
        };
        if new {
            C::opened();
        }
        Ok(heap)
    }

    /// What a thread does when it ends.
    fn exit() {
        let slot = C::Slot::get();
        let Some(turn) = Turn::<C>::begin(slot) else {
            return;
        };
        let call = Call::<C>::begin(DETACHED);
        // Somebody else has the cache as soon as the handle is gone.
        drop(turn.into_local(&call));
    }

    /// Gives the calling thread, which has not called before, a cache if that is possible.
    fn attach() -> Option<()> {
        let new = {
            let mut call = Call::<C>::begin(null_mut());
            // A slot without room for this thread.
            if C::Slot::get() != BUSY {
                return None;
            }
            let (heap, new) = C::state().open().ok()?;
            let local = ManuallyDrop::new(heap.local_of_slot().ok()?);
            call.after = local.cache().as_slot();
            new
        };
        // From here on the thread may allocate, also in the calls below.
        if !C::Slot::on_exit(Self::exit) {
            Self::exit();
        }
        if new {
            C::opened();
        }
        Some(())
    }

    /// Does `with_handle` or `without` in a call, or `interrupted` in a handler that interrupted one.
    pub(super) fn call<T>(
        with_handle: impl FnOnce(&LocalOf<C>) -> Result<T, HeapError>,
        without: impl FnOnce(&'static HeapOf<C>) -> Result<T, HeapError>,
        interrupted: impl FnOnce(&'static HeapOf<C>) -> Result<T, HeapError>,
    ) -> Result<T, HeapError> {
        let mut slot = C::Slot::get();
        if slot.is_null() {
            // Without, the shared calls serve.
            let _ = Self::attach();
            slot = C::Slot::get();
        }
        if let Some(turn) = Turn::<C>::begin(slot) {
            return with_handle(&turn.local());
        }
        if slot == BUSY || is_cache(slot) {
            let heap = C::state().get();
            return interrupted(heap.ok_or(HeapError::Busy)?);
        }
        let _call = Call::<C>::begin(slot);
        without(C::state().open()?.0)
    }

    /// Allocates a block of a hardened heap, if one is cached.
    #[inline]
    fn alloc_sealed(layout: Layout) -> Option<Result<NonNull<u8>, HeapError>> {
        Turn::<C>::begin(C::Slot::get())?
            .local()
            .alloc_sealed(layout)
    }

    /// Frees a block if the heap is hardened, or tells why it cannot be; says whether it did either.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalAlloc::dealloc`].
    #[inline]
    unsafe fn free_sealed(block: NonNull<u8>, layout: Layout) -> bool {
        let freed = Turn::<C>::begin(C::Slot::get()).and_then(|turn| {
            // SAFETY: the caller's promise: a block of this layout, whose user gives it up.
            unsafe { turn.local().free_sealed(block, layout) }
        });
        if let Some(Err(error)) = freed {
            C::refused(block.as_ptr(), error);
        }
        freed.is_some()
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

    /// Frees a block whose layout does not help, unless it is hardened.
    ///
    /// # Safety
    ///
    /// Those of [`GlobalAlloc::dealloc`].
    #[inline(never)]
    unsafe fn dealloc_slow(&self, block: NonNull<u8>, layout: Layout) {
        let freed = if C::state().get().is_some_and(Heap::is_hard) {
            Self::call(
                // SAFETY: the caller's promise: a live block of this layout, whose user gives it up.
                |local| unsafe { local.free_sized(block, layout) },
                // SAFETY: as above.
                |heap| unsafe { heap.free_sized(block, layout) },
                // SAFETY: as above.
                |heap| unsafe { heap.try_free_as(block, Some(layout)) },
            )
        } else {
            // SAFETY: as above.
            unsafe { self.free(block) }
        };
        if let Err(error) = freed {
            C::refused(block.as_ptr(), error);
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
        if C::HARDENED
            && let Some(block) = Self::alloc_sealed(layout)
        {
            return Self::or_null(block);
        }
        if let Some(turn) = Turn::<C>::begin(C::Slot::get())
            && let Some(block) = turn.local().alloc_quick(layout)
        {
            return block.as_ptr();
        }
        Self::alloc_slow(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by the contract a block of this heap's, so not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        // SAFETY: by the contract the block's user gives it up.
        if C::HARDENED && unsafe { Self::free_sealed(block, layout) } {
            return;
        }
        if let Some(turn) = Turn::<C>::begin(C::Slot::get()) {
            let local = turn.local();
            let freed = if C::CHECKED {
                // SAFETY: by the contract the block's user gives it up.
                unsafe { local.free_quick_sized::<true>(block, layout) }
            } else {
                // SAFETY: by the contract the block is live, and its user gives it up.
                unsafe { local.free_quick_sized::<false>(block, layout) }
            };
            if freed {
                return;
            }
        }
        // SAFETY: by the contract the block's user gives it up.
        unsafe { self.dealloc_slow(block, layout) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(turn) = Turn::<C>::begin(C::Slot::get())
            && let Some(block) = turn.local().alloc_zeroed_quick(layout)
        {
            return block.as_ptr();
        }
        Self::alloc_zeroed_slow(layout)
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by the contract a block of this heap's, so not null.
        let at = unsafe { NonNull::new_unchecked(block) };
        if let Some(turn) = Turn::<C>::begin(C::Slot::get()) {
            let local = turn.local();
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
        }
        let moved = Self::call(
            // SAFETY: by the contract the block has this layout, and its user gives it up.
            |local| unsafe { local.realloc(at, layout, new_size) },
            // SAFETY: as above.
            |heap| unsafe { heap.realloc(at, layout, new_size) },
            // SAFETY: as above.
            |heap| unsafe { heap.try_realloc(at, layout, new_size) },
        );
        if let Err(error) = moved
            && error.is_invalid_free()
        {
            C::refused(block, error);
        }
        Self::or_null(moved)
    }
}

// SAFETY: while forking nobody opens the heap, whose own hooks see to the rest.
unsafe impl<C: StaticHeap> ForkHooks for GlobalHeap<C> {
    /// Also makes the calling thread's slot say that it is in a call, so that nobody on this thread waits
    /// for what it holds.
    fn fork_prepare(&self) -> Result<(), Error> {
        let state = C::state();
        let slot = C::Slot::get();
        let in_call = is_cache(slot) && Turn::<C>::begin(slot).is_none();
        if slot == BUSY || in_call {
            return Err(ErrorKind::Unsupported.into());
        }
        C::Slot::set(BUSY);
        mem::forget(state.opening.lock());
        if let Some(heap) = state.get()
            && let Err(error) = heap.fork_prepare()
        {
            // SAFETY: locked above.
            unsafe { state.opening.unlock_forgotten() };
            C::Slot::set(slot);
            return Err(error);
        }
        state.forking.store(slot, Relaxed);
        Ok(())
    }

    unsafe fn fork_parent(&self) {
        let state = C::state();
        let slot = state.forking.load(Relaxed);
        if let Some(heap) = state.get() {
            // SAFETY: the caller's promise.
            unsafe { heap.fork_parent() };
        }
        // SAFETY: `fork_prepare` on this thread locked it.
        unsafe { state.opening.unlock_forgotten() };
        C::Slot::set(slot);
    }

    /// Also takes what other threads, which the child has not, had at hand by their slots.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let state = C::state();
        let slot = state.forking.load(Relaxed);
        // SAFETY: the caller's promise; the child has a copy of the locks and of the slot.
        unsafe { self.fork_parent() };
        if let Some(heap) = state.get() {
            let turn = Turn::<C>::begin(slot);
            let own = turn.as_ref().map(|turn| turn.cache);
            // SAFETY: the child has but this thread, and slots' caches are used by nobody else.
            unsafe { heap.adopt_orphans(own) };
        }
        Ok(())
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
