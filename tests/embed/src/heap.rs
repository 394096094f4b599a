//! The heaps of an emulator: one for itself, in the region above its guest, and one below 4 GiB for
//! what the guest can see, whose metadata the guest cannot.

use crate::{
    out::say,
    region::{GUEST_END, Host},
    steps::{OS, Step, check},
    thread::Thread,
};
use core::{
    alloc::Layout,
    ffi::c_void,
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicPtr, AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use hostmem::{
    OsLock,
    heap::{Heap, HeapConfig, HeapError},
    page::AddressRange,
    provider::{PageProvider, Within},
};

/// Blocks that live at a time in what one thread does.
const LIVE: usize = 200;

/// Blocks that each of two threads allocates and the other frees.
const PASSED: usize = 4000;

/// Blocks on their way from one thread to the other at most.
const ON_THE_WAY: usize = 64;

type Primary<'host> = Heap<&'host Host, &'host Host, OsLock>;

pub(crate) fn run(host: &Host) -> Result<(), Step> {
    let config = HeapConfig::new().metadata(64 << 20);
    let low = Within::new(OS, AddressRange::LOW_4G);
    let low = Heap::<_, _, OsLock>::on(low, host, config).map_err(|_| Step::LowHeap)?;
    let primary = Primary::on(host, host, config).map_err(|_| Step::PrimaryHeap)?;
    blocks(&low, &primary, |addr| addr < GUEST_END).ok_or(Step::LowHeap)?;
    blocks(&primary, &low, |addr| addr >= GUEST_END).ok_or(Step::PrimaryHeap)?;
    is_empty(&low)?;
    threads(host, &primary)?;
    is_empty(&primary)
}

/// Layouts of all kinds of blocks.
fn layout(n: usize) -> Option<Layout> {
    let size = match n % 100 {
        0 => 1_500_000,
        1 => 300_000,
        2 => 100_000,
        _ => n * 37 % 4000,
    };
    Layout::from_size_align(size, 1 << (n % 13)).ok()
}

fn byte(n: usize) -> u8 {
    n.to_le_bytes()[0] ^ 0xa5
}

/// Writes a block that was just allocated; says whether it is aligned.
fn fill(block: NonNull<u8>, layout: Layout, n: usize) -> bool {
    // SAFETY: a live block of this many bytes, which no other code uses yet.
    unsafe { block.write_bytes(byte(n), layout.size()) };
    block.addr().get().is_multiple_of(layout.align())
}

fn is_intact(block: NonNull<u8>, len: usize, n: usize) -> bool {
    // SAFETY: a live block, written by `fill`, which no other code changes.
    let bytes = unsafe { NonNull::slice_from_raw_parts(block, len).as_ref() };
    bytes.iter().all(|found| *found == byte(n))
}

/// Allocates, looks up and frees blocks, all of whose addresses are to be as `lies` says.
fn blocks<P: PageProvider + Copy, Q: PageProvider + Copy>(
    heap: &Heap<P, &Host, OsLock>,
    other: &Heap<Q, &Host, OsLock>,
    lies: impl Fn(usize) -> bool,
) -> Option<()> {
    let local = heap.local().ok()?;
    let mut blocks = [None; LIVE];
    for (n, place) in blocks.iter_mut().enumerate() {
        let layout = layout(n)?;
        let block = match n % 3 {
            0 => heap.alloc(layout),
            1 => local.alloc(layout),
            _ => local.alloc_zeroed(layout),
        };
        let block = block.ok()?;
        let zero = n % 3 < 2 || {
            // SAFETY: a live block of this many bytes, which the heap says are initialised.
            let bytes = unsafe { NonNull::slice_from_raw_parts(block, layout.size()).as_ref() };
            bytes.iter().all(|byte| *byte == 0)
        };
        if !fill(block, layout, n) || !zero {
            return None;
        }
        *place = Some((block, layout));
    }
    for (n, place) in blocks.iter_mut().enumerate() {
        let (block, layout) = (*place)?;
        let first = block.addr().get();
        let last = first + layout.size().max(1) - 1;
        let whose = |addr| {
            let found = heap.block_of(addr).map(|found| found.addr);
            heap.owns(addr) && !other.owns(addr) && found == Some(first) && lies(addr)
        };
        let known = whose(first) && whose(last) && other.block_of(first).is_none();
        // SAFETY: not a block of the other heap.
        let foreign = unsafe { other.free(block) } == Err(HeapError::NotOwned);
        let intact = is_intact(block, layout.size(), n);
        // SAFETY: live, and used no more.
        let freed = unsafe { local.free(block) }.is_ok();
        // SAFETY: not live any more.
        let again = unsafe { local.free(block) } == Err(HeapError::NotLive);
        if !(known && foreign && intact && freed && again && heap.block_of(first).is_none()) {
            return None;
        }
    }
    Some(())
}

/// Says whether a heap gave everything back that was freed.
fn is_empty<P: PageProvider + Copy>(heap: &Heap<P, &Host, OsLock>) -> Result<(), Step> {
    heap.trim();
    let held = heap.statistics();
    let left = held.used + held.cached + held.reserved + held.committed;
    check(left == 0, Step::HeapLeft)
}

/// Blocks that one thread gives the other, in order.
struct Ring {
    blocks: [(AtomicPtr<u8>, AtomicUsize); ON_THE_WAY],
    put: AtomicUsize,
    taken: AtomicUsize,
}

impl Ring {
    const fn new() -> Self {
        Self {
            blocks: [const { (AtomicPtr::new(null_mut()), AtomicUsize::new(0)) }; ON_THE_WAY],
            put: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        }
    }

    /// Adds a block, if there is room. Called by one thread.
    fn put(&self, block: NonNull<u8>, len: usize) -> bool {
        let put = self.put.load(Relaxed);
        if put - self.taken.load(Acquire) == ON_THE_WAY {
            return false;
        }
        let (start, size) = &self.blocks[put % ON_THE_WAY];
        start.store(block.as_ptr(), Relaxed);
        size.store(len, Relaxed);
        self.put.store(put + 1, Release);
        true
    }

    /// Takes the next block, if there is one. Called by one thread.
    fn take(&self) -> Option<(NonNull<u8>, usize)> {
        let taken = self.taken.load(Relaxed);
        if taken == self.put.load(Acquire) {
            return None;
        }
        let (start, size) = &self.blocks[taken % ON_THE_WAY];
        let block = NonNull::new(start.load(Relaxed));
        let size = size.load(Relaxed);
        self.taken.store(taken + 1, Release);
        block.map(|block| (block, size))
    }
}

/// What two threads share.
struct Shared<'a> {
    heap: &'a Primary<'a>,
    rings: [Ring; 2],
    /// Threads that have begun, and so which of the two each is.
    begun: AtomicUsize,
    /// Blocks that were freed by another thread than allocated them.
    freed: AtomicUsize,
    /// Not zero once something went wrong: then no thread waits any more.
    failed: AtomicU32,
}

extern "C" fn exchange(shared: *mut c_void) {
    // SAFETY: `threads` passes a Shared, and joins both threads before it ends.
    let shared = unsafe { &*shared.cast::<Shared<'_>>() };
    let me = shared.begun.fetch_add(1, Relaxed);
    if pass(shared, &shared.rings[me % 2], &shared.rings[1 - me % 2]).is_none() {
        shared.failed.store(1, Relaxed);
    }
}

/// Allocates blocks for the other thread, and frees those from it.
fn pass(shared: &Shared<'_>, out: &Ring, back: &Ring) -> Option<()> {
    let local = shared.heap.local().ok()?;
    let mut freed = 0;
    // Frees the next block, if there is one; None if it is not as it was written.
    let free_next = |freed: &mut usize| {
        let Some((block, len)) = back.take() else {
            core::hint::spin_loop();
            return (shared.failed.load(Relaxed) == 0).then_some(());
        };
        let found = shared.heap.block_of(block.addr().get())?;
        let known = found.addr == block.addr().get() && found.len >= len;
        if !known || !is_intact(block, len, *freed) {
            return None;
        }
        *freed += 1;
        // SAFETY: live, and used no more: the other thread gave it away.
        unsafe { local.free(block) }.ok()
    };
    for n in 0..PASSED {
        let layout = layout(n)?;
        let block = local.alloc(layout).ok()?;
        if !fill(block, layout, n) {
            return None;
        }
        while !out.put(block, layout.size()) {
            free_next(&mut freed)?;
        }
    }
    while freed < PASSED {
        free_next(&mut freed)?;
    }
    shared.freed.fetch_add(freed, Relaxed);
    Some(())
}

/// Lets two threads free each other's blocks.
fn threads(host: &Host, heap: &Primary<'_>) -> Result<(), Step> {
    let shared = Shared {
        heap,
        rings: [const { Ring::new() }; 2],
        begun: AtomicUsize::new(0),
        freed: AtomicUsize::new(0),
        failed: AtomicU32::new(0),
    };
    let argument = NonNull::from(&shared).as_ptr().cast();
    // SAFETY: shared lives until both are joined, and may be used by any.
    let threads = [(); 2].map(|()| unsafe { Thread::start(host, exchange, argument) });
    if threads.iter().any(Option::is_none) {
        shared.failed.store(1, Relaxed);
    }
    for thread in threads {
        let joined = thread.and_then(Thread::join);
        joined.ok_or(Step::HeapThread)?;
    }
    let freed = shared.freed.load(Relaxed);
    say!("two threads freed {freed} blocks of each other");
    check(
        freed == 2 * PASSED && shared.failed.load(Relaxed) == 0,
        Step::HeapBlock,
    )
}
