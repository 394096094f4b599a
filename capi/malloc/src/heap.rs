//! The heap behind the calls: on the operating system's memory, with its clock.

use crate::{fatal, slot::Slot};
use core::{mem::MaybeUninit, ptr::null_mut};
use hostmem::{
    OsLock, OsProvider,
    heap::{GlobalHeap, Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap},
    provider::Clock,
};

/// Describes the heap of the override.
#[derive(Debug)]
pub(crate) struct Override;

/// All calls are of this heap.
pub(crate) const HEAP: GlobalHeap<Override> = GlobalHeap::new();

// SAFETY: the state and the slot are this heap's alone, and no provider allocates.
unsafe impl StaticHeap for Override {
    type Pages = OsProvider;
    type Metadata = OsProvider;
    type Lock = OsLock;
    type Slot = Slot;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        let os = OsProvider::new();
        let config = HeapConfig::new().clock(|| OsProvider::new().now_ms());
        Heap::on(os, os, config)
    }

    fn state() -> &'static State<Self> {
        static STATE: State<Override> = State::new();
        &STATE
    }

    fn register() {
        // Where that fails for want of memory, a child must not use the heap.
        let _ = hostmem::register_fork_child::<Self>();
    }

    fn refused(block: *mut u8, error: HeapError) {
        fatal::end("heap", block, &error);
    }
}

/// Calls `f` with the heap, and without signals: `f` takes locks for which a handler on this thread
/// would wait without end. Returns `None` where the heap cannot be opened.
pub(crate) fn quietly<T>(f: impl FnOnce(&'static HeapOf<Override>) -> T) -> Option<T> {
    let heap = HEAP.heap().ok()?;
    let mut all = MaybeUninit::uninit();
    // SAFETY: there is room for a set, which the call initialises.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    let mut before = MaybeUninit::uninit();
    // SAFETY: a set that was initialised above, and room for another one.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let result = f(heap);
    if blocked == 0 {
        // SAFETY: the call above succeeded, so it initialised the set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
    }
    Some(result)
}
