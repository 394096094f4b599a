//! Who is asked for memory: ours, and the C library's heap.

use hostmem::{
    GlobalHeap, OsLock, OsProvider,
    heap::{
        self, Hardening, Heap, HeapConfig, HeapError, HeapOf, Level, LocalHeap, State, StaticHeap,
    },
    provider::Clock,
};
use std::{
    alloc::{GlobalAlloc, Layout},
    ffi::c_void,
    hint::black_box,
    ptr::{NonNull, null_mut},
};

pub type OurHeap = Heap<OsProvider, OsProvider, OsLock>;

/// A heap as one thread sees it.
pub trait Subject {
    /// Allocates.
    ///
    /// # Panics
    ///
    /// Without memory: nothing can be measured then.
    fn alloc(&self, layout: Layout) -> NonNull<u8>;

    /// Frees, sized where the heap has such a call.
    ///
    /// # Safety
    ///
    /// The block came from this heap's `alloc` or `realloc` with this layout, and nobody uses it.
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout);

    /// Makes a block as long as `size` says, be it elsewhere.
    ///
    /// # Panics
    ///
    /// Without memory.
    ///
    /// # Safety
    ///
    /// As of [`Subject::free`]; the size is not zero.
    unsafe fn realloc(&self, block: NonNull<u8>, layout: Layout, size: usize) -> NonNull<u8>;
}

/// A heap as all threads see it.
pub trait Source: Sync {
    /// What rows and notes call it.
    const NAME: &'static str;

    /// What one thread uses.
    type Subject<'a>: Subject
    where
        Self: 'a;

    /// Returns what the calling thread is to use.
    fn subject(&self) -> Self::Subject<'_>;

    /// Gives back all memory that can be given back, if the heap has a call for that. The calling thread
    /// allocates no more.
    fn collect(&self) {}

    /// Returns how many bytes it keeps of itself, if it tells.
    fn metadata(&self) -> Option<usize> {
        None
    }
}

/// A heap with the interface of a global allocator: the same for all threads.
pub trait Global: GlobalAlloc + Sync {
    /// What rows and notes call it.
    const NAME: &'static str;

    /// As of [`Source::collect`].
    fn collect(&self) {}

    /// As of [`Source::metadata`].
    fn metadata(&self) -> Option<usize> {
        None
    }
}

impl<A: Global> Source for A {
    const NAME: &'static str = <A as Global>::NAME;
    type Subject<'a>
        = &'a A
    where
        A: 'a;

    fn subject(&self) -> &A {
        self
    }

    fn collect(&self) {
        Global::collect(self);
    }

    fn metadata(&self) -> Option<usize> {
        Global::metadata(self)
    }
}

impl<A: Global> Subject for &A {
    #[inline]
    fn alloc(&self, layout: Layout) -> NonNull<u8> {
        // SAFETY: no size of a workload is zero.
        NonNull::new(unsafe { GlobalAlloc::alloc(*self, layout) }).expect("memory")
    }

    #[inline]
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { GlobalAlloc::dealloc(*self, block.as_ptr(), layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: NonNull<u8>, layout: Layout, size: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise; no size of a workload comes near the largest one.
        let block = unsafe { GlobalAlloc::realloc(*self, block.as_ptr(), layout, size) };
        NonNull::new(block).expect("memory")
    }
}

/// Ours, as programs have it: default settings, threads found by a slot, frees checked.
pub static OURS: GlobalHeap = GlobalHeap::new();

/// The same without checks of what is freed, hardening level 0: extra rows.
pub static UNCHECKED: heap::GlobalHeap<Unchecked> = heap::GlobalHeap::new();

impl Global for GlobalHeap {
    const NAME: &'static str = "ours";

    fn collect(&self) {
        self.detach();
        if let Ok(heap) = self.heap() {
            heap.collect(Level::Deep);
        }
    }

    fn metadata(&self) -> Option<usize> {
        Some(self.heap().ok()?.statistics().metadata)
    }
}

/// The same with canaries, hardening level 2: extra rows.
pub static CANARIES: heap::GlobalHeap<Canaries> = heap::GlobalHeap::new();

/// The same with all of hardening, level 3: extra rows.
pub static FULL: heap::GlobalHeap<Hardened> = heap::GlobalHeap::new();

/// Makes another heap of the process, with a slot of its own.
macro_rules! variant {
    ($Variant:ident, $Slot:ident, $name:literal, checked: $checked:literal, $hardening:expr) => {
        hostmem::std_slot! {
            /// Where threads keep what they have of the heap.
            pub struct $Slot;
        }

        /// As [`SystemHeap`](hostmem::SystemHeap), but for hardening.
        pub struct $Variant;

        // SAFETY: the state and the slot are this heap's alone, and no provider allocates.
        unsafe impl StaticHeap for $Variant {
            type Pages = OsProvider;
            type Metadata = OsProvider;
            type Lock = OsLock;
            type Slot = $Slot;

            const CHECKED: bool = $checked;
            const HARDENED: bool = !matches!($hardening, Hardening::Checked);

            fn open() -> Result<HeapOf<Self>, HeapError> {
                let os = OsProvider::new();
                let config = HeapConfig::new().clock(|| OsProvider::new().now_ms());
                Heap::on(os, os, config.hardening($hardening))
            }

            fn state() -> &'static State<Self> {
                static STATE: State<$Variant> = State::new();
                &STATE
            }
        }

        impl Global for heap::GlobalHeap<$Variant> {
            const NAME: &'static str = $name;
        }
    };
}

variant!(Unchecked, UncheckedSlot, "unchecked", checked: false, Hardening::Checked);
variant!(Canaries, CanariesSlot, "canaries", checked: true, Hardening::Canaries);
variant!(Hardened, HardenedSlot, "full", checked: true, Hardening::Full);

/// Ours by the handles of threads, frees checked: extra rows.
pub struct Local(pub OurHeap);

impl Local {
    /// Makes a heap.
    pub fn new() -> Result<Self, HeapError> {
        let os = OsProvider::new();
        OurHeap::on(os, os, HeapConfig::new()).map(Self)
    }
}

impl Source for Local {
    const NAME: &'static str = "local";
    type Subject<'a> = LocalHeap<'a, OsProvider, OsProvider, OsLock>;

    fn subject(&self) -> Self::Subject<'_> {
        self.0.local().expect("memory")
    }
}

impl Subject for LocalHeap<'_, OsProvider, OsProvider, OsLock> {
    #[inline]
    fn alloc(&self, layout: Layout) -> NonNull<u8> {
        self.alloc(layout).expect("memory")
    }

    #[inline]
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.free_sized(block, layout) }.expect("a live block");
    }

    #[inline]
    unsafe fn realloc(&self, block: NonNull<u8>, layout: Layout, size: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        unsafe { self.realloc(block, layout, size) }.expect("a live block, and memory")
    }
}

/// No heap: what the harness costs by itself. All blocks of a thread are one.
pub struct Nothing;

/// Bytes of that block, of which most never have memory: more than the largest block of a workload.
const NOWHERE: usize = 65 << 20;

/// Where a thread's blocks are, all of them.
pub struct Nowhere(Box<[u8]>);

impl Source for Nothing {
    const NAME: &'static str = "nothing";
    type Subject<'a> = Nowhere;

    fn subject(&self) -> Nowhere {
        Nowhere(vec![0; NOWHERE].into())
    }
}

impl Subject for Nowhere {
    #[inline]
    fn alloc(&self, _: Layout) -> NonNull<u8> {
        NonNull::from(&*self.0).cast()
    }

    #[inline]
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        // A heap would need both.
        black_box(block);
        black_box(layout.size());
    }

    #[inline]
    unsafe fn realloc(&self, block: NonNull<u8>, layout: Layout, size: usize) -> NonNull<u8> {
        black_box(layout.size());
        black_box(size);
        black_box(block)
    }
}

/// The C library's.
pub struct Malloc;

/// What it aligns to by itself.
const MALLOC_ALIGN: usize = 16;

// SAFETY: malloc and its kin are an allocator that may be used by all threads; what they would not
// align is refused.
unsafe impl GlobalAlloc for Malloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > MALLOC_ALIGN {
            return null_mut();
        }
        // SAFETY: malloc may be called with any size.
        unsafe { libc::malloc(layout.size()) }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: by the caller's promise this came from malloc, and is not used any more.
        unsafe { libc::free(block.cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the size is not zero, by the caller's promise.
        unsafe { libc::realloc(block.cast::<c_void>(), size) }.cast()
    }
}

impl Global for Malloc {
    const NAME: &'static str = "malloc";
}
