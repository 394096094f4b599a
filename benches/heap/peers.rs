//! The peers that are crates, by the interface of a global allocator, whose frees are sized.
//!
//! | peer | is |
//! |---|---|
//! | `jemalloc`, `mimalloc`, `snmalloc` | heaps for any number of threads; mimalloc is version 3 |
//! | `rpmalloc` | another one, by its own calls: version 1.4.3, which is what its crate holds |
//! | `talc`, `linked-list` | one heap behind a spin lock, in memory that it is given |
//! | `rlsf`, `dlmalloc` | one heap behind a lock, in memory of the host |
//!
//! `ferroc`, of which the newest version (1.0.0-pre.3) needs unstable features as they once were,
//! is absent.

use crate::subject::{Global, Source, Subject};
use dlmalloc::GlobalDlmalloc;
use linked_list_allocator::LockedHeap;
use mimalloc::MiMalloc;
use rlsf::GlobalTlsf;
use snmalloc_rs::SnMalloc;
use std::{
    alloc::{GlobalAlloc, Layout},
    ffi::{c_int, c_void},
    marker::PhantomData,
    ptr::NonNull,
    sync::LazyLock,
};
use talc::{TalcLock, source::Manual};
use tikv_jemallocator::Jemalloc;

/// What is shown one peer after the other.
pub trait Visitor {
    /// Looks at a peer.
    fn visit<S: Source>(&mut self, peer: &'static S);
}

/// Shows all peers that are there.
pub fn visit_all(visitor: &mut impl Visitor) {
    visitor.visit(&crate::subject::Malloc);
    visitor.visit(&Jemalloc);
    visitor.visit(&MiMalloc);
    visitor.visit(&SnMalloc);
    visitor.visit(&RpMalloc);
    visitor.visit(&TALC);
    visitor.visit(&RLSF);
    visitor.visit(&GlobalDlmalloc);
    visitor.visit(&LINKED_LIST);
}

/// Says what a reader has to know of the peers.
pub fn describe() {
    println!("note: rpmalloc is version 1.4.3: no crate holds version 2, the newest");
}

impl Global for Jemalloc {
    const NAME: &'static str = "jemalloc";
}

impl Global for MiMalloc {
    const NAME: &'static str = "mimalloc";
}

impl Global for SnMalloc {
    const NAME: &'static str = "snmalloc";
}

impl Global for GlobalTlsf {
    const NAME: &'static str = "rlsf";
}

impl Global for GlobalDlmalloc {
    const NAME: &'static str = "dlmalloc";
}

static RLSF: GlobalTlsf = GlobalTlsf::new();

/// A heap in memory that it is given once, when it is first used.
struct Given<A>(LazyLock<A>);

/// Bytes that such a heap is given: ten times what the largest workload that asks it has live, 20
/// MB.
const GIVEN: usize = 256 << 20;

/// Takes memory from the C library, for good. Nobody touches it but who uses it.
fn given() -> *mut u8 {
    // SAFETY: malloc may be called with any size.
    let memory = unsafe { libc::malloc(GIVEN) };
    assert!(!memory.is_null(), "no memory for a peer");
    memory.cast()
}

type Talc = TalcLock<spinning_top::RawSpinlock, Manual>;

static TALC: Given<Talc> = Given(LazyLock::new(|| {
    let talc = Talc::new(Manual);
    // SAFETY: the memory is nobody else's, for good.
    let claimed = unsafe { talc.lock().claim(given(), GIVEN) };
    claimed.expect("there is room for what talc keeps of itself");
    talc
}));

static LINKED_LIST: Given<LockedHeap> = Given(LazyLock::new(|| {
    // SAFETY: the memory is nobody else's, for good.
    unsafe { LockedHeap::new(given(), GIVEN) }
}));

// SAFETY: the allocator within is asked, always the same one.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Given<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.realloc(block, layout, size) }
    }
}

impl Global for Given<Talc> {
    const NAME: &'static str = "talc";
}

impl Global for Given<LockedHeap> {
    const NAME: &'static str = "linked-list";
}

/// The heap of rpmalloc, of which each thread says when it begins and ends.
struct RpMalloc;

/// A thread's share of it. Stays in its thread.
struct RpThread(PhantomData<*const ()>);

/// What rpmalloc aligns to by itself.
const RP_ALIGN: usize = 16;

/// Whether it was made ready, once for the process.
static RP_READY: LazyLock<()> = LazyLock::new(|| {
    // SAFETY: may be called at any time; here before any other of its calls, once.
    let error = unsafe { rpmalloc_sys::rpmalloc_initialize() };
    assert_eq!(error, 0, "rpmalloc does not begin");
});

unsafe extern "C" {
    /// As rpmalloc 1.4.3 defines it; the crate declares it without the parameter.
    fn rpmalloc_thread_finalize(release_caches: c_int);
}

impl Source for RpMalloc {
    const NAME: &'static str = "rpmalloc";
    type Subject<'a> = RpThread;

    fn subject(&self) -> RpThread {
        LazyLock::force(&RP_READY);
        // SAFETY: rpmalloc is ready.
        unsafe { rpmalloc_sys::rpmalloc_thread_initialize() };
        RpThread(PhantomData)
    }
}

impl Drop for RpThread {
    fn drop(&mut self) {
        // SAFETY: the thread, which this never leaves, was announced. It allocates no more before
        // it is announced again; what is left is freed by others, or after that.
        unsafe { rpmalloc_thread_finalize(1) };
    }
}

impl Subject for RpThread {
    #[inline]
    fn alloc(&self, layout: Layout) -> NonNull<u8> {
        assert!(layout.align() <= RP_ALIGN, "no workload aligns to more");
        // SAFETY: the thread was announced.
        let block = unsafe { rpmalloc_sys::rpmalloc(layout.size()) };
        NonNull::new(block.cast()).expect("memory")
    }

    #[inline]
    unsafe fn free(&self, block: NonNull<u8>, _: Layout) {
        // SAFETY: by the caller's promise this came from rpmalloc, and is not used any more.
        unsafe { rpmalloc_sys::rpfree(block.as_ptr().cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: NonNull<u8>, _: Layout, size: usize) -> NonNull<u8> {
        // SAFETY: by the caller's promise this came from rpmalloc, and the size is not zero.
        let block = unsafe { rpmalloc_sys::rprealloc(block.as_ptr().cast::<c_void>(), size) };
        NonNull::new(block.cast()).expect("memory")
    }
}
