//! A program whose threads are in stdio, in the heap, in the loader and in a region, and that forks
//! all the time: by the C library, by the system call alone, and in signal handlers that
//! interrupted a call of the heap. Every child allocates, asks, starts a thread and ends.

use crate::{
    common::{
        at_length, emulated, exit, raw_clone,
        signals::handle,
        threads::{Stop, await_more},
        wait,
    },
    system::OS,
};
use core::{
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use hostmem::{
    GlobalHeap, OsLock, OsProvider,
    fork::ForkChild,
    provider::{Commit, PageProvider, Request},
    region::{RegionAllocator, RegionConfig},
};
use hostmem_test_support::isolate::isolated;
use std::thread;

const HEAP: GlobalHeap = GlobalHeap::new();
const KIB: usize = 1 << 10;

type Region = RegionAllocator<OsProvider, OsProvider, OsLock>;

/// The region that threads map in, for handlers and children.
static REGION: AtomicPtr<Region> = AtomicPtr::new(null_mut());
/// What threads did.
static DONE: AtomicU64 = AtomicU64::new(0);
/// Forks in handlers, and those whose child failed.
static HANDLED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);
/// Whether an emulator stands in for the kernel, for children, which do not look at the
/// environment.
static EMULATED: AtomicBool = AtomicBool::new(false);

/// Allocates and frees blocks of many sizes; says whether all went well.
fn use_heap() -> bool {
    (0..60).all(|n| {
        let size = 1 + n * n * 37 % (300 * KIB) + (n % 20) * (90 * KIB);
        let Ok(block) = HEAP.alloc_bytes(size) else {
            return false;
        };
        let addr = block.addr().get();
        let is_known = |heap: &'static hostmem::heap::HeapOf<hostmem::SystemHeap>| {
            let found = heap.block_of(addr + size - 1);
            heap.owns(addr) && found.is_some_and(|found| found.addr == addr)
        };
        let known = HEAP.heap().is_ok_and(is_known);
        // SAFETY: live, and used no more.
        unsafe { HEAP.free(block) }.is_ok() && known
    })
}

fn use_region(region: &Region) -> bool {
    let page = OS.page_size().bytes();
    let request = Request::bytes(3 * page);
    let Ok(range) = region.map(&request, Commit::READ_WRITE, 7) else {
        return false;
    };
    // SAFETY: mapped just now, for this thread alone.
    unsafe { range.start().write(1) };
    // SAFETY: mapped just now, for this thread alone, and used no more.
    unsafe { region.unmap(range) }.is_ok()
}

extern "C" fn in_thread(_: *mut c_void) -> *mut c_void {
    let failed = usize::from(!use_heap());
    core::ptr::without_provenance_mut(failed)
}

/// Starts a thread, and waits for it; says whether all went well in it.
fn use_thread() -> bool {
    let mut thread = 0;
    let mut failed = null_mut();
    // SAFETY: there is room for a thread, and the function is one.
    let made = unsafe { libc::pthread_create(&raw mut thread, null_mut(), in_thread, null_mut()) };
    // SAFETY: made just now.
    made == 0 && unsafe { libc::pthread_join(thread, &raw mut failed) } == 0 && failed.is_null()
}

/// What a child does; zero if all went well.
fn child(kept: Option<NonNull<u8>>, raw: bool) -> c_int {
    // SAFETY: it ends this process if it hangs.
    unsafe { libc::alarm(100) };
    // SAFETY: the only thread of a child, which has called nothing of the heap yet. The C library
    // has done it where it forked.
    if raw && unsafe { HEAP.fork_child() }.is_err() {
        return 1;
    }
    // SAFETY: it stays as long as the process.
    let region = unsafe { &*REGION.load(Acquire) };
    // SAFETY: this child has one thread, which calls it once; the region outlives it.
    if unsafe { region.fork_child() }.is_err() {
        return 2;
    }
    if !use_heap() {
        return 3;
    }
    if !use_region(region) {
        return 4;
    }
    if let Some(kept) = kept {
        // SAFETY: the parent's, of which this is a copy.
        let byte = unsafe { kept.read() };
        // SAFETY: live, and used no more.
        if byte != 0x5a || unsafe { HEAP.free(kept) }.is_err() {
            return 5;
        }
    }
    // The C library must have made a process that is to make threads, and emulators hang there.
    if !raw && !EMULATED.load(Relaxed) && !use_thread() {
        return 6;
    }
    if use_heap() { 0 } else { 7 }
}

extern "C" fn fork_in_handler(_signal: c_int) {
    // SAFETY: the child uses what is repaired there, and ends without unwinding.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        exit(child(None, false));
    }
    let mut status = 0;
    // SAFETY: the child is this handler's alone.
    while pid > 0 && unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {}
    FAILED.fetch_add(usize::from(pid < 0 || status != 0), Relaxed);
    HANDLED.fetch_add(1, Relaxed);
}

/// Writes and reads by streams of the C library's, which allocates for them.
fn in_stdio(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        // SAFETY: names and modes are strings.
        let stream = unsafe { libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr()) };
        if stream.is_null() {
            continue;
        }
        for _ in 0..20 {
            // SAFETY: an open stream, and a string.
            unsafe { libc::fputs(c"a line\n".as_ptr(), stream) };
            // SAFETY: an open stream.
            unsafe { libc::fflush(stream) };
        }
        // SAFETY: open, and used no more.
        unsafe { libc::fclose(stream) };
        DONE.fetch_add(1, Relaxed);
    }
}

fn in_loader(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        // SAFETY: a library without constructors of its own.
        let library = unsafe { libc::dlopen(c"libm.so.6".as_ptr(), libc::RTLD_NOW) };
        if !library.is_null() {
            // SAFETY: opened just now.
            unsafe { libc::dlclose(library) };
        }
        DONE.fetch_add(1, Relaxed);
        thread::yield_now();
    }
}

fn repeat(stop: &AtomicBool, mut f: impl FnMut() -> bool) {
    while !stop.load(Relaxed) {
        assert!(f());
        DONE.fetch_add(1, Relaxed);
        thread::yield_now();
    }
}

#[test]
fn every_child_of_a_busy_program_works() {
    isolated!("every_child_of_a_busy_program_works", || {
        let forks = match (at_length(), emulated()) {
            (_, true) => 10,
            (true, _) => 10_000,
            _ => 150,
        };
        EMULATED.store(emulated(), Relaxed);
        let region = Region::on(OS, OS, RegionConfig::new()).expect("metadata");
        let space = OS.reserve(&Request::bytes(16 << 20)).expect("addresses");
        // SAFETY: reserved just now, and the region's until the end.
        unsafe { region.adopt(space) }.expect("fresh addresses");
        REGION.store(Box::into_raw(Box::new(region)), Release);
        // SAFETY: stored just now, and never freed.
        let region: &'static Region = unsafe { &*REGION.load(Acquire) };
        handle(libc::SIGUSR1, fork_in_handler);
        let kept = HEAP.alloc_bytes(5000).expect("memory");
        // SAFETY: live, and this thread's.
        unsafe { kept.write(0x5a) };
        let stop = &AtomicBool::new(false);
        // SAFETY: it only tells.
        let me = unsafe { libc::pthread_self() };
        thread::scope(|scope| {
            let _stop = Stop(stop);
            for _ in 0..2 {
                scope.spawn(move || in_stdio(stop));
                scope.spawn(move || repeat(stop, use_heap));
                scope.spawn(move || in_loader(stop));
                scope.spawn(move || repeat(stop, || use_region(region)));
            }
            let mut seen = 0;
            for n in 0..forks {
                seen = await_more(&DONE, seen);
                match n % 3 {
                    0 => {
                        // SAFETY: the child uses what is repaired there, and ends.
                        let pid = unsafe { libc::fork() };
                        if pid == 0 {
                            exit(child(Some(kept), false));
                        }
                        assert_eq!(wait(pid), 0, "fork {n}");
                    }
                    1 => {
                        let pid = raw_clone();
                        if pid == 0 {
                            exit(child(Some(kept), true));
                        }
                        assert_eq!(wait(pid), 0, "clone {n}");
                    }
                    _ => {
                        let before = HANDLED.load(Relaxed);
                        scope.spawn(move || {
                            // SAFETY: that thread waits for this one.
                            unsafe { libc::pthread_kill(me, libc::SIGUSR1) }
                        });
                        while HANDLED.load(Relaxed) == before {
                            assert!(use_heap());
                        }
                        assert_eq!(FAILED.load(Relaxed), 0, "in the handler of {n}");
                    }
                }
            }
        });
    });
}
