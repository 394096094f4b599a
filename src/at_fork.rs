//! Hooks that the C library runs in forked children.

use crate::{
    fork::ForkChild,
    heap::{GlobalHeap, StaticHeap},
    provider::{Error, ErrorKind},
    static_region::repair_all,
};
use core::{
    ffi::c_int,
    sync::atomic::{AtomicBool, Ordering},
};

unsafe extern "C" {
    /// POSIX: calls these around every `fork`.
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
}

extern "C" fn child<C: StaticHeap>() {
    // SAFETY: the C library calls this on the only thread of a forked child, before anything else
    // that the program has there. Where there is no memory for it, calls may wait without end;
    // there is nothing to tell that to.
    let _ = unsafe { GlobalHeap::<C>::new().fork_child() };
}

extern "C" fn child_regions() {
    // SAFETY: the C library calls this on the only thread of a forked child; what regions stand on,
    // the system's provider, has nothing to repair.
    unsafe { repair_all() };
}

/// Has the C library repair all regions in statics, unless it was told so before.
///
/// It runs what it is told in the order in which it was told: this before the heaps on the regions.
pub(crate) fn register_regions() {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    if IS_REGISTERED.swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: the function stays as long as the program.
    let failed = unsafe { pthread_atfork(None, None, Some(child_regions)) } != 0;
    if failed {
        // For the next one who asks. A child must not use the regions until then.
        IS_REGISTERED.store(false, Ordering::Relaxed);
    }
}

/// Has the C library repair a heap in the children that its `fork` makes, by
/// [`GlobalHeap::fork_child`](ForkChild::fork_child), and before it all regions in statics. The
/// parent takes no lock for a fork. [`global_heap!`](crate::global_heap) does so by itself.
///
/// [`StaticHeap::register`] is the place to call it, so that it comes before the heap's first lock:
///
/// ```
/// # use hostmem::{OsLock, OsProvider};
/// # use hostmem::heap::{Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap};
/// # hostmem::std_slot! { struct Slot; }
/// struct Low;
///
/// // SAFETY: the state and the slot are this heap's alone, and no provider allocates.
/// unsafe impl StaticHeap for Low {
/// #   type Pages = OsProvider;
/// #   type Metadata = OsProvider;
/// #   type Lock = OsLock;
/// #   type Slot = Slot;
/// #   fn open() -> Result<HeapOf<Self>, HeapError> {
/// #       Heap::new(HeapConfig::new())
/// #   }
/// #   fn state() -> &'static State<Self> {
/// #       static STATE: State<Low> = State::new();
/// #       &STATE
/// #   }
///     // ...
///     fn register() {
///         // Where that fails, a child must not use the heap.
///         let _ = hostmem::register_fork_child::<Self>();
///     }
/// }
/// # let low = hostmem::heap::GlobalHeap::<Low>::new();
/// # assert!(low.heap().is_ok());
/// ```
///
/// A child of a raw `clone` calls `fork_child` itself, and calls nothing else of the heap before.
/// One of `vfork`, or with `CLONE_VM`, must not: it has its parent's memory, and may allocate as a
/// signal handler may.
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] where the C library has no memory for it.
pub fn register_fork_child<C: StaticHeap>() -> Result<(), Error> {
    register_regions();
    // SAFETY: the function stays as long as the program.
    match unsafe { pthread_atfork(None, None, Some(child::<C>)) } {
        0 => Ok(()),
        _ => Err(ErrorKind::Exhausted.into()),
    }
}
