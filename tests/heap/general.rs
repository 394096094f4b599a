//! H1, H3, H4 and H6 on real Linux: the general heap with many threads, and below 4 GiB.

use crate::common::{at_length, emulated, signals::handle, skip_emulated, threads::Patience};
use core::{
    alloc::Layout,
    ops::ControlFlow,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use hostmem::{
    OsLock, OsProvider,
    counted::{Counted, Limits},
    heap::{Hardening, Heap, HeapConfig, HeapError, Level},
    page::AddressRange,
    provider::{PageProvider, Within},
};
use hostmem_test_support::{fault::faults, isolate::isolated};
use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock},
    thread,
};

const OS: OsProvider = OsProvider::new();

/// Numbers that a seed repeats (Marsaglia's xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).expect("32 bits") % bound
    }
}

/// A block on its way from one thread to another: where it is, what it is, and what is in it.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    pattern: u8,
}

// SAFETY: the block is whoever's has this.
unsafe impl Send for Block {}

impl Block {
    fn fill(start: NonNull<u8>, layout: Layout, pattern: u8) -> Self {
        assert!(
            start.addr().get().is_multiple_of(layout.align()),
            "{layout:?}"
        );
        // SAFETY: a live block of this layout, which nobody else has.
        unsafe { start.write_bytes(pattern, layout.size()) };
        Self {
            start,
            layout,
            pattern,
        }
    }

    /// Asserts that the first `len` bytes are what was written.
    fn check(&self, len: usize) {
        // SAFETY: live, all written, and this thread's.
        let bytes = unsafe { NonNull::slice_from_raw_parts(self.start, len).as_ref() };
        let intact = bytes.iter().all(|byte| *byte == self.pattern);
        assert!(intact, "{:?} {:?}: {bytes:x?}", self.start, self.layout);
    }
}

fn layout(random: &mut Random) -> Layout {
    let size = match random.below(1000) {
        0..700 => random.below(300),
        700..950 => random.below(5000),
        950..997 => random.below(70_000),
        _ => random.below(1 << 21),
    };
    let align = if random.below(10) == 0 {
        1 << random.below(13)
    } else {
        8
    };
    Layout::from_size_align(size, align).expect("a layout")
}

#[test]
fn threads_free_each_others_blocks_and_every_block_stays_intact() {
    let steps = match (at_length(), emulated()) {
        (true, _) => 1_250_000,
        (false, false) => 60_000,
        (false, true) => 2_000,
    };
    many_threads(HeapConfig::new().shards(2), steps);
}

#[test]
fn hardened_blocks_of_threads_stay_intact_and_are_not_found_corrupt() {
    let steps = match (at_length(), emulated()) {
        (true, _) => 200_000,
        (false, false) => 6_000,
        (false, true) => 500,
    };
    let config = HeapConfig::new().shards(2).hardening(Hardening::Full);
    many_threads(config, steps);
}

fn many_threads(config: HeapConfig, steps: usize) {
    let counted: Counted<OsProvider, OsLock> =
        Counted::new(OS, "heap", Limits::NONE).expect("a small arena");
    {
        let heap = Heap::<_, _, OsLock>::on(&counted, &counted, config).expect("metadata");
        let shared: Mutex<Vec<Block>> = Mutex::default();
        thread::scope(|scope| {
            for seed in 1..=8 {
                let (heap, shared) = (&heap, &shared);
                scope.spawn(move || run(heap, shared, seed, steps));
            }
        });
        for block in shared.into_inner().expect("nobody panicked") {
            block.check(block.layout.size());
            // SAFETY: live, and used no more.
            unsafe { heap.free(block.start) }.expect("a live block");
        }
        let held = heap.statistics();
        assert_eq!((held.used, held.cached), (0, 0), "{held:?}");
        assert_eq!(held.corrupt_blocks, 0, "{held:?}");
        heap.trim();
        let held = heap.statistics();
        assert_eq!((held.reserved, held.committed), (0, 0), "{held:?}");
    }
    assert_eq!(counted.counters().reserved.now, 0, "all goes back");
}

/// What a thread does: half of what it frees, another one has allocated.
fn run(
    heap: &Heap<&Counted<OsProvider, OsLock>, &Counted<OsProvider, OsLock>, OsLock>,
    shared: &Mutex<Vec<Block>>,
    seed: u64,
    steps: usize,
) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut local = heap.local().expect("metadata");
    let mut own: Vec<Block> = Vec::new();
    for step in 0..steps {
        let pattern = random.below(256).to_le_bytes()[0];
        let layout = layout(&mut random);
        match random.below(100) {
            0..46 if own.len() < 2000 => {
                let block = match random.below(8) {
                    0 => heap.alloc(layout),
                    _ => local.alloc(layout),
                };
                own.push(Block::fill(block.expect("memory"), layout, pattern));
            }
            46..56 if !own.is_empty() => {
                let n = random.below(own.len());
                let block = &mut own[n];
                let size = random.below(6000);
                block.check(block.layout.size());
                // SAFETY: a live block of this layout, which is this thread's.
                let moved = unsafe { local.realloc(block.start, block.layout, size) };
                block.start = moved.expect("memory");
                block.check(size.min(block.layout.size()));
                let layout = Layout::from_size_align(size, block.layout.align());
                *block = Block::fill(block.start, layout.expect("a layout"), pattern);
            }
            56..58 => {
                // Many at once, so that the lock of this test is not what is tested.
                let mut shared = shared.lock().expect("nobody panicked");
                let half = own.len() / 2;
                let theirs = shared.len().min(half);
                let taken: Vec<_> = shared.drain(..theirs).collect();
                shared.extend(own.drain(..half));
                own.extend(taken);
            }
            58 if step % 50 == 0 => {
                drop(local);
                local = heap.local().expect("metadata");
            }
            59 if step % 100 == 0 => local.tick(step as u64),
            60 if step % 500 == 0 => heap.collect(Level::Deep),
            61 if step % 500 == 0 => {
                heap.trim_to(random.below(64 << 20));
            }
            62 if step % 200 == 0 => see_all(heap, &own),
            _ if !own.is_empty() => {
                let n = random.below(own.len());
                let block = own.swap_remove(n);
                block.check(block.layout.size());
                let found = heap.block_of(block.start.addr().get());
                assert!(found.is_some_and(|found| found.len >= block.layout.size()));
                // SAFETY: live, and used no more.
                unsafe { local.free(block.start) }.expect("a live block");
            }
            _ => {}
        }
    }
    shared.lock().expect("nobody panicked").extend(own);
}

/// Asserts that a walk visits each of these blocks once, while others allocate and free, and that
/// they lie in what the heap holds.
fn see_all<P: PageProvider + Copy>(heap: &Heap<P, P, OsLock>, own: &[Block]) {
    let mut seen: HashMap<usize, usize> = HashMap::new();
    let _ = heap.walk(|block| {
        *seen.entry(block.addr).or_default() += 1;
        ControlFlow::<()>::Continue(())
    });
    for block in own {
        let addr = block.start.addr().get();
        assert_eq!(seen.get(&addr), Some(&1), "{addr:#x}");
    }
    let ranges: Vec<_> = heap.ranges().map(|range| range.addresses).collect();
    assert!(
        ranges.is_sorted_by(|a, b| a.last() < b.start()),
        "{ranges:x?}"
    );
    for block in own {
        let addr = block.start.addr().get();
        let place = ranges.partition_point(|range| range.last() < addr);
        assert!(ranges[place].contains(addr), "{addr:#x} in {ranges:x?}");
        let block = AddressRange::new(addr, addr).expect("an address");
        assert!(heap.overlaps(block), "{addr:#x}");
    }
}

#[test]
fn a_low_heap_serves_nearly_4_gib_of_3_mib_blocks() {
    isolated!("a_low_heap_serves_nearly_4_gib_of_3_mib_blocks", || {
        if skip_emulated("keeps low addresses for itself") {
            return;
        }
        let low = Within::new(OS, AddressRange::LOW_4G);
        let heap = Heap::<_, _, OsLock>::on(low, OS, HeapConfig::new()).expect("metadata");
        let layout = Layout::from_size_align(3 << 20, 16).expect("a layout");
        for _ in 0..2 {
            let blocks: Mutex<Vec<usize>> = Mutex::default();
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let local = heap.local().expect("metadata");
                        loop {
                            match local.alloc(layout) {
                                Ok(block) => blocks
                                    .lock()
                                    .expect("nobody panicked")
                                    .push(block.addr().get()),
                                Err(HeapError::Memory(_)) => break,
                                Err(error) => panic!("{error}"),
                            }
                        }
                    });
                }
            });
            let blocks = blocks.into_inner().expect("nobody panicked");
            let last = blocks.iter().max().expect("some");
            assert!(last + layout.size() <= 1 << 32, "a high pointer");
            let bytes = blocks.len() * layout.size();
            assert!(bytes * 10 >= 39 << 30, "{} MiB", bytes >> 20);
            for block in blocks {
                let block = heap.block_of(block).expect("live");
                let start = NonNull::new(core::ptr::with_exposed_provenance_mut(block.addr));
                // SAFETY: live, and used no more.
                unsafe { heap.free(start.expect("not null")) }.expect("a live block");
            }
        }
    });
}

#[test]
fn a_low_heap_of_small_blocks_fills_up_and_serves_again() {
    isolated!(
        "a_low_heap_of_small_blocks_fills_up_and_serves_again",
        || {
            // A part of the low addresses, since each of these blocks takes memory for its page.
            let part = AddressRange::new(0x1000_0000, 0x17ff_ffff).expect("a range");
            let heap = Heap::<_, _, OsLock>::on(Within::new(OS, part), OS, HeapConfig::new());
            let heap = heap.expect("metadata");
            let local = heap.local().expect("metadata");
            let layout = Layout::from_size_align(16 << 10, 16).expect("a layout");
            for _ in 0..2 {
                let mut blocks = Vec::new();
                while let Ok(block) = local.alloc(layout) {
                    assert!(part.contains(block.addr().get()), "outside");
                    blocks.push(block);
                }
                let bytes = blocks.len() * layout.size();
                assert!(bytes * 100 >= 97 * (128 << 20), "{} MiB", bytes >> 20);
                for block in blocks {
                    // SAFETY: live, and used no more.
                    unsafe { local.free(block) }.expect("a live block");
                }
            }
        }
    );
}

/// What a handler asks of, and what it is to find: whether the heap owns it, and the start of its
/// block.
struct Row {
    addr: usize,
    owned: bool,
    block: Option<usize>,
}

/// H4's rows, the heap they are about, and the end of a block, behind which another may lie.
static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
static ASKED: OnceLock<Heap<OsProvider, OsProvider, OsLock>> = OnceLock::new();
static BEHIND: AtomicUsize = AtomicUsize::new(0);
static ANSWERS: AtomicUsize = AtomicUsize::new(0);
static WRONG: AtomicUsize = AtomicUsize::new(0);

extern "C" fn ask(_: libc::c_int) {
    let (Some(rows), Some(heap)) = (ROWS.get(), ASKED.get()) else {
        return;
    };
    for row in rows {
        let found = heap.block_of(row.addr).map(|found| found.addr);
        let start = NonNull::new(core::ptr::without_provenance_mut(row.addr));
        let usable = start.and_then(|start| heap.usable_size(start));
        let starts = row.block == Some(row.addr);
        let right =
            heap.owns(row.addr) == row.owned && found == row.block && usable.is_some() == starts;
        WRONG.fetch_add(usize::from(!right), Relaxed);
    }
    let behind = BEHIND.load(Relaxed);
    let found = heap.block_of(behind);
    let right = found.is_none_or(|found| found.addr == behind);
    WRONG.fetch_add(usize::from(!right), Relaxed);
    ANSWERS.fetch_add(1, Relaxed);
}

/// Has the handler interrupt this process every 100 microseconds of its processor time.
fn start_interrupting() {
    handle(libc::SIGPROF, ask);
    let tick = libc::timeval {
        tv_sec: 0,
        tv_usec: 100,
    };
    let timer = libc::itimerval {
        it_interval: tick,
        it_value: tick,
    };
    // SAFETY: a valid timer.
    let set = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, null_mut()) };
    assert_eq!(set, 0);
}

#[test]
fn signal_handlers_tell_addresses_apart_whatever_they_interrupt() {
    isolated!(
        "signal_handlers_tell_addresses_apart_whatever_they_interrupt",
        || {
            let made = || Heap::on(OS, OS, HeapConfig::new()).expect("metadata");
            let heap = ASKED.get_or_init(made);
            let other: Heap<OsProvider, OsProvider, OsLock> = made();
            let local = heap.local().expect("metadata");
            // A handle that is not used any more keeps what it freed.
            let idle = heap.local().expect("metadata");
            let sized = |size| Layout::from_size_align(size, 8).expect("a layout");
            let stack = 0_u8;
            let mut rows = Vec::new();
            for size in [48, 3000, 100_000, 700_000, 3_000_000] {
                let block = local.alloc(sized(size)).expect("memory");
                let start = block.addr().get();
                rows.extend([0, 1, size / 2, size - 1].map(|inside| Row {
                    addr: start + inside,
                    owned: true,
                    block: Some(start),
                }));
                let len = heap.usable_size(block).expect("live");
                BEHIND.store(start + len, Relaxed);
                let theirs = other.alloc(sized(size)).expect("memory");
                rows.push(Row {
                    addr: theirs.addr().get(),
                    owned: false,
                    block: None,
                });
            }
            let freed = idle.alloc(sized(80)).expect("memory");
            // SAFETY: live, and used no more.
            unsafe { idle.free(freed) }.expect("a live block");
            rows.push(Row {
                addr: freed.addr().get(),
                owned: true,
                block: None,
            });
            let nobodys = [0, 8, 0x1000, 1 << 62, 1 << 63, (&raw const stack).addr()];
            rows.extend(nobodys.map(|addr| Row {
                addr,
                owned: false,
                block: None,
            }));
            assert!(ROWS.set(rows).is_ok(), "once");
            start_interrupting();
            let answers = if emulated() { 20 } else { 300 };
            let patience = Patience::new();
            let mut random = Random(77);
            let mut blocks = Vec::new();
            while ANSWERS.load(Relaxed) < answers {
                let layout = layout(&mut random);
                let block = match blocks.len() % 3 {
                    0 => heap.alloc(layout),
                    _ => local.alloc(layout),
                };
                blocks.push(block.expect("memory"));
                if blocks.len() == 200 {
                    for block in blocks.drain(..) {
                        // SAFETY: live, and used no more.
                        unsafe { heap.free(block) }.expect("a live block");
                    }
                    heap.collect(Level::Free);
                }
                patience.check("a signal");
            }
            assert_eq!(WRONG.load(Relaxed), 0);
        },
    );
}

#[test]
fn guards_and_freed_blocks_fault_in_a_hardened_heap() {
    let config = HeapConfig::new().hardening(Hardening::Full);
    let heap = Heap::<_, _, OsLock>::on(OS, OS, config).expect("metadata");
    for size in [300_000, 1 << 20, 3 << 20, 5_000_001] {
        let layout = Layout::from_size_align(size, 16).expect("a layout");
        let blocks = [(); 3].map(|()| heap.alloc(layout).expect("memory"));
        let write = |addr: usize| {
            let place: *mut u8 = core::ptr::with_exposed_provenance_mut(addr);
            // SAFETY: this is the fault: what lies there is the heap's. The byte is no block's.
            faults(|| unsafe { place.write_volatile(1) }).map(|fault| fault.address)
        };
        for block in blocks {
            // SAFETY: a live block of so many bytes.
            unsafe { block.write_bytes(1, size) };
            let start = block.expose_provenance().get();
            // Where the granules end, or the pages of a huge block.
            let least = if size > 1 << 20 {
                OS.page_size().bytes()
            } else {
                64 << 10
            };
            let end = start + size.next_multiple_of(least);
            for guard in [start - 1, start - (64 << 10), end, end + 65_535] {
                assert_eq!(write(guard), Some(guard), "{size} bytes at {start:#x}");
            }
        }
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("guards were not written");
            // Huge ones are unmapped, where another thread of this test may map something.
            let start = block.addr().get();
            if size <= 1 << 20 {
                assert_eq!(write(start), Some(start), "{size} bytes");
            }
        }
    }
}

#[test]
fn short_threads_leave_memory_flat() {
    let heap = Heap::<_, _, OsLock>::on(OS, OS, HeapConfig::new()).expect("metadata");
    let threads = if at_length() { 100_000 } else { 1000 };
    let (mut first, mut resident) = (None, 0);
    for n in 0..threads {
        thread::scope(|scope| {
            scope.spawn(|| {
                let local = heap.local().expect("metadata");
                for size in [10, 100, 1000, 10_000] {
                    let layout = Layout::from_size_align(size, 8).expect("a layout");
                    let block = local.alloc(layout).expect("memory");
                    // SAFETY: live, and used no more.
                    unsafe { local.free(block) }.expect("a live block");
                }
            });
        });
        // Each shard has been used then.
        if n == 8 {
            resident = in_memory(&heap);
        }
        if n >= 4 {
            let mut held = heap.statistics();
            held.requested = 0;
            assert_eq!(held, *first.get_or_insert(held), "thread {n}");
        }
    }
    let after = in_memory(&heap);
    assert!(after <= resident, "{after} bytes after {resident}");
}

/// Returns how many bytes of a heap's blocks the host holds in memory.
fn in_memory<P: PageProvider + Copy>(heap: &Heap<P, OsProvider, OsLock>) -> usize {
    let page = OS.page_size().bytes();
    let mut bytes = 0;
    let mut pages = vec![0_u8; 1 << 14];
    for range in heap.ranges() {
        let (start, last) = (range.addresses.start(), range.addresses.last());
        for part in (start..last).step_by(pages.len() * page) {
            let len = (last - part + 1).min(pages.len() * page);
            let at = core::ptr::without_provenance_mut(part);
            // SAFETY: the kernel writes a byte for each page, as many as there are, and touches
            // nothing else.
            let result = unsafe { libc::mincore(at, len, pages.as_mut_ptr().cast()) };
            assert_eq!(result, 0, "mapped: {range:x?}");
            let held = pages[..len / page].iter().filter(|page| **page & 1 == 1);
            bytes += held.count() * page;
        }
    }
    bytes
}

#[test]
fn what_is_resident_is_what_the_host_holds() {
    if skip_emulated("has pages of its own") {
        return;
    }
    let thp = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    // Then a page that is touched may bring others along.
    let alone = !thp.is_ok_and(|thp| thp.contains("[always]"));
    let page = OS.page_size().bytes();
    let config = HeapConfig::new().large_pages(false);
    let heap = Heap::<_, _, OsLock>::on(OS, OS, config).expect("metadata");
    let classes = heap.class_statistics().count();
    let local = heap.local().expect("metadata");
    // What was at hand once may never have been touched, and nor may the page that it ended in, one
    // a class.
    let check = |at_hand: usize| {
        let (held, there) = (heap.statistics(), in_memory(&heap));
        if alone {
            assert!(there <= held.resident, "{there} bytes, {held:?}");
        }
        let slack = if at_hand == 0 {
            0
        } else {
            at_hand + classes * page
        };
        assert!(held.resident <= there + slack, "{there} bytes, {held:?}");
    };
    let mut at_hand = 0;
    let mut random = Random(0x5eed);
    let mut blocks = Vec::new();
    for n in 0..40_000 {
        let layout = layout(&mut random);
        let block = if n < 20_000 {
            heap.alloc(layout)
        } else {
            local.alloc(layout)
        };
        let block = block.expect("memory");
        let len = heap.usable_size(block).expect("a live block");
        // SAFETY: a live block of so many bytes.
        unsafe { block.write_bytes(1, len) };
        blocks.push(block);
        if n % 5000 != 4999 {
            continue;
        }
        at_hand = at_hand.max(heap.statistics().cached);
        check(at_hand);
    }
    for percent in [30, 70, 95] {
        blocks.retain(|block| {
            let stays = random.below(100) >= percent;
            if !stays {
                // SAFETY: live, and used no more.
                unsafe { local.free(*block) }.expect("a live block");
            }
            stays
        });
        local.flush();
        for level in [Level::Free, Level::Deep] {
            heap.collect(level);
            check(at_hand);
        }
    }
}
