//! Handlers that allocate, free, resize and fork, whatever call of a heap in a static they
//! interrupted: those that its statistics, passes and walks make, too.

use crate::common::{
    at_length, emulated, exit,
    signals::{handle, interrupted},
    wait,
};
use core::{
    alloc::Layout,
    ffi::c_int,
    ops::ControlFlow,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use hostmem::{
    GlobalHeap,
    heap::{HeapError, Level},
    page::AddressRange,
};
use hostmem_test_support::isolate::isolated;

const HEAP: GlobalHeap = GlobalHeap::new();
const KIB: usize = 1 << 10;

static HANDLED: AtomicU64 = AtomicU64::new(0);
/// Calls in handlers that were served, and those that were refused since the thread holds a lock.
static SERVED: AtomicU64 = AtomicU64::new(0);
static BUSY: AtomicU64 = AtomicU64::new(0);

/// How many handlers there are for one that forks.
const FORKS: u64 = 200;

fn note<T>(result: Result<T, HeapError>) -> Option<T> {
    match result {
        Ok(value) => {
            SERVED.fetch_add(1, Relaxed);
            Some(value)
        }
        Err(HeapError::Busy) => {
            BUSY.fetch_add(1, Relaxed);
            None
        }
        Err(_) => std::process::abort(),
    }
}

fn free(block: NonNull<u8>) {
    // SAFETY: live, and used no more.
    if unsafe { HEAP.free(block) }.is_err() {
        std::process::abort();
    }
}

/// Allocates, resizes and frees.
fn use_heap(n: usize) {
    for size in [24, 700, 9000, 90_000, 400_000] {
        let size = size + n % 16;
        let Some(block) = note(HEAP.alloc_bytes(size)) else {
            continue;
        };
        // SAFETY: a block of this many bytes.
        unsafe { block.write_bytes(0xa5, size) };
        // SAFETY: live; the old address is used no more if this succeeds.
        let longer = note(unsafe { HEAP.realloc_bytes(block, 2 * size) });
        let block = longer.unwrap_or(block);
        // SAFETY: live, and as long.
        let last = unsafe { block.add(size - 1) };
        // SAFETY: live, and as long; its last byte was written before.
        if unsafe { last.read() } != 0xa5 {
            std::process::abort();
        }
        free(block);
    }
}

extern "C" fn handler(_signal: c_int) {
    let n = HANDLED.fetch_add(1, Relaxed) + 1;
    use_heap(usize::try_from(n).unwrap_or(0));
    // What takes a lock is refused, or does its work.
    if n.is_multiple_of(16) {
        let _ = HEAP.collect(Level::Free);
    }
    if n.is_multiple_of(FORKS) {
        // SAFETY: the child uses the heap, and ends without unwinding.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: it ends this process if it hangs.
            unsafe { libc::alarm(100) };
            let before = BUSY.load(Relaxed);
            use_heap(1);
            exit(c_int::from(BUSY.load(Relaxed) != before));
        }
        if child < 0 || wait(child) != 0 {
            std::process::abort();
        }
    }
}

/// Makes one call after the other.
fn make_calls(n: usize, own: &mut [Option<NonNull<u8>>; 64]) {
    let heap = HEAP.heap().expect("it is open");
    let place = n * 7 % own.len();
    if let Some(block) = own[place].take() {
        free(block);
    }
    let size = [30, 600, 5000, 70 * KIB, 300 * KIB, 2000 * KIB][n % 6] + n % 100;
    let block = match n % 3 {
        0 => HEAP.alloc_bytes(size),
        1 => HEAP.alloc_bytes_zeroed(size),
        _ => HEAP.alloc_aligned(size, 512),
    };
    let block = block.expect("memory");
    // SAFETY: live; the old address is used no more.
    let block = unsafe { HEAP.realloc_bytes(block, size + size / 2) }.expect("memory");
    own[place] = Some(block);
    let addr = block.addr().get();
    assert!(heap.owns(addr) && heap.block_of(addr + size).is_some());
    assert!(HEAP.usable_size(block) >= Some(size));
    match n % 24 {
        0 => assert!(heap.statistics().used > 0),
        1 => assert!(heap.class_statistics().count() > 0),
        2 => heap.collect(Level::Free),
        3 => heap.collect(Level::Deep),
        4 => HEAP.collect(Level::Free).expect("in no call"),
        5 => heap.trim(),
        6 => assert!(heap.trim_to(1 << 20) > 0),
        7 => {
            let walked = heap.walk(|block| {
                // The heap may be used on the way.
                if block.len == 48 {
                    use_heap(n);
                }
                ControlFlow::<()>::Continue(())
            });
            assert!(walked.is_continue());
        }
        8 => assert!(heap.ranges().count() > 0),
        9 => assert!(heap.metadata_ranges().count() > 0),
        10 => assert!(heap.overlaps(AddressRange::from_len(addr, 1).expect("a byte"))),
        11 => HEAP.flush(),
        12 => heap.tick(n as u64),
        13 => {
            let local = heap.local().expect("metadata");
            let layout = Layout::new::<[u64; 9]>();
            let block = local.alloc(layout).expect("memory");
            // SAFETY: live, and used no more.
            unsafe { local.free_sized(block, layout) }.expect("a live block");
        }
        14 => {
            let layout = Layout::new::<[u64; 9]>();
            let block = heap.alloc(layout).expect("memory");
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("a live block");
        }
        _ => {}
    }
}

#[test]
fn handlers_use_a_heap_whatever_call_of_it_they_interrupted() {
    isolated!(
        "handlers_use_a_heap_whatever_call_of_it_they_interrupted",
        || {
            let least = match (at_length(), emulated()) {
                (_, true) => 50,
                (true, _) => 100_000,
                _ => 3000,
            };
            handle(libc::SIGUSR1, handler);
            let mut own = [None; 64];
            let mut n = 0;
            let done = || HANDLED.load(Relaxed) >= least && SERVED.load(Relaxed) >= least;
            interrupted(libc::SIGUSR1, &HANDLED, done, || {
                make_calls(n, &mut own);
                n += 1;
            });
            println!("{HANDLED:?} handlers, {SERVED:?} calls served, {BUSY:?} refused");
        },
    );
}
