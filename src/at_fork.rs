//! What the C library runs in forked children.

use crate::{
    fork::ForkChild,
    heap::{GlobalHeap, StaticHeap},
    provider::{Error, ErrorKind},
};
use core::ffi::c_int;

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

/// Has the C library repair a heap in the children that its `fork` makes, by
/// [`GlobalHeap::fork_child`](ForkChild::fork_child). The parent takes no lock for a fork.
///
/// [`StaticHeap::register`] is the place to call it, so that it comes before the heap's first lock:
///
/// ```
/// # use hostmem::{OsLock, OsProvider, heap::{Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap}};
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
/// #       Heap::new(OsProvider::new(), OsProvider::new(), HeapConfig::new())
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
/// A child of a raw `clone` calls `fork_child` itself, and calls nothing else of the heap before. One
/// of `vfork`, or with `CLONE_VM`, must not: it has its parent's memory, and may allocate as a signal
/// handler may.
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] where the C library has no memory for it.
pub fn register_fork_child<C: StaticHeap>() -> Result<(), Error> {
    // SAFETY: the function stays as long as the program.
    match unsafe { pthread_atfork(None, None, Some(child::<C>)) } {
        0 => Ok(()),
        _ => Err(ErrorKind::Exhausted.into()),
    }
}
