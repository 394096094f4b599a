//! The heap of a whole program, for `#[global_allocator]`.

extern crate std;

use crate::{
    OsLock, OsProvider,
    heap::{self, Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap},
    provider::{Clock, PageProvider},
    sync::RawMutex,
};

/// Makes a [`ThreadSlot`](crate::heap::ThreadSlot) of a `thread_local!`: a type by the given name.
/// Every [`StaticHeap`] needs one of its own.
///
/// ```
/// hostmem::std_slot! {
///     /// Where threads keep what they have of the low heap.
///     pub struct LowSlot;
/// }
/// # use hostmem::heap::{FRESH, ThreadSlot};
/// # assert_eq!(LowSlot::get(), FRESH);
/// ```
#[macro_export]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
macro_rules! std_slot {
    ($(#[$attribute:meta])* $visible:vis struct $Name:ident;) => {
        $(#[$attribute])*
        #[derive(Debug)]
        $visible struct $Name;

        const _: () = {
            extern crate std;
            use std::{cell::Cell, thread_local};

            /// Calls what it is told to when the thread ends.
            struct Exit(Cell<Option<fn()>>);

            impl Drop for Exit {
                fn drop(&mut self) {
                    if let Some(exit) = self.0.get() {
                        exit();
                    }
                }
            }

            thread_local! {
                // Without a destructor, so that it is there as long as the thread, and costs a move
                // to read.
                static VALUE: Cell<*mut ()> = const { Cell::new($crate::heap::FRESH) };
                static EXIT: Exit = const { Exit(Cell::new(None)) };
            }

            // SAFETY: each thread has a value of its own, which is there before the thread runs and
            // needs nothing to be read or written.
            unsafe impl $crate::heap::ThreadSlot for $Name {
                const IS_NEVER_NULL: bool = true;

                #[inline]
                fn get() -> *mut () {
                    VALUE.with(Cell::get)
                }

                #[inline]
                fn set(value: *mut ()) {
                    VALUE.with(|slot| slot.set(value));
                }

                fn is_on_signal_stack() -> bool {
                    $crate::is_on_signal_stack()
                }

                fn without_signals<T>(f: impl FnOnce() -> T) -> T {
                    $crate::without_signals(f)
                }

                fn place() -> *mut *mut () {
                    VALUE.with(Cell::as_ptr)
                }

                fn on_exit(exit: fn()) -> bool {
                    EXIT.try_with(|end| end.0.set(Some(exit))).is_ok()
                }
            }
        };
    };
}

/// Puts a heap into a static, for `#[global_allocator]` or beside it: a
/// [`heap::GlobalHeap`], with a slot for threads, and repaired in the
/// children of the C library's `fork`.
///
/// The expression behind the `=` makes the heap at the first call, and again where that failed. It
/// is of type `Result<_, HeapError>`, and does not allocate from this heap: such an allocation
/// would fail.
///
/// ```
/// use hostmem::{HeapConfig, LowHeap};
///
/// hostmem::global_heap! {
///     /// What the guest can see.
///     static GUEST: LowHeap = hostmem::low_heap(HeapConfig::new());
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let block = GUEST.alloc_bytes(100)?;
/// assert!(block.addr().get() < 4 << 30);
/// assert_eq!(GUEST.heap()?.statistics().used, 112);
/// # Ok(())
/// # }
/// ```
///
/// In a region it is the heap of a program that claims its addresses, see
/// [`StaticRegion`](crate::StaticRegion). Where the heap is to be told of blocks that cannot be
/// freed, implement [`StaticHeap`].
#[macro_export]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
macro_rules! global_heap {
    ($(#[$attribute:meta])* $visible:vis static $NAME:ident: $Heap:ty = $open:expr;) => {
        $(#[$attribute])*
        $visible static $NAME: $crate::heap::GlobalHeap<$NAME> = $crate::heap::GlobalHeap::new();

        /// Describes the heap in the static of the same name.
        #[doc(hidden)]
        #[derive(Debug)]
        #[allow(non_camel_case_types, reason = "the name is the static's")]
        $visible struct $NAME {}

        const _: () = {
            $crate::std_slot! {
                /// Where a thread keeps what it has cached.
                pub struct Slot;
            }

            // SAFETY: the state and the slot are this heap's alone. What opens it and allocates
            // from it gets nothing.
            unsafe impl $crate::heap::StaticHeap for $NAME {
                type Pages = <$Heap as $crate::HeapTypes>::Pages;
                type Metadata = <$Heap as $crate::HeapTypes>::Metadata;
                type Lock = <$Heap as $crate::HeapTypes>::Lock;
                type Slot = Slot;

                fn open() -> Result<$crate::heap::HeapOf<Self>, $crate::heap::HeapError> {
                    $open
                }

                #[inline]
                fn state() -> &'static $crate::heap::State<Self> {
                    static STATE: $crate::heap::State<$NAME> = $crate::heap::State::new();
                    &STATE
                }

                fn register() {
                    // Where that fails for want of memory, a child must not use the heap.
                    let _ = $crate::register_fork_child::<Self>();
                }
            }
        };
    };
}

/// The type of a heap, for [`global_heap!`](crate::global_heap).
#[doc(hidden)]
pub trait HeapTypes {
    type Pages;
    type Metadata;
    type Lock;
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> HeapTypes for Heap<P, M, R> {
    type Pages = P;
    type Metadata = M;
    type Lock = R;
}

std_slot! {
    /// Where a thread keeps what it has cached of [`GlobalHeap`].
    pub struct SystemSlot;
}

/// The heap of the process: on the operating system's memory, wherever it likes, with default
/// settings and the system's clock.
#[derive(Debug)]
pub struct SystemHeap;

// SAFETY: the state and the slot are this heap's alone, and no provider allocates.
unsafe impl StaticHeap for SystemHeap {
    type Pages = OsProvider;
    type Metadata = OsProvider;
    type Lock = OsLock;
    type Slot = SystemSlot;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        Heap::new(HeapConfig::new().clock(|| OsProvider::new().now_ms()))
    }

    #[inline]
    fn state() -> &'static State<Self> {
        static STATE: State<SystemHeap> = State::new();
        &STATE
    }

    fn register() {
        // Where that fails for want of memory, a child must not use the heap: programs that fork
        // are warned of that already.
        let _ = crate::register_fork_child::<Self>();
    }
}

/// The heap of the process. Forks by the C library's `fork` leave it usable in parent and child.
///
/// ```
/// #[global_allocator]
/// static HEAP: hostmem::GlobalHeap = hostmem::GlobalHeap::new();
///
/// fn main() {
///     let numbers: Vec<u64> = (0..1000).collect();
///     let heap = HEAP.heap().expect("it is open");
///     assert!(heap.owns(numbers.as_ptr().addr()));
///     assert!(heap.statistics().used >= 8000);
/// }
/// ```
pub type GlobalHeap = heap::GlobalHeap<SystemHeap>;
