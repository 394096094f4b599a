//! What each structure does, alone and with threads, for Miri to watch.

use core::{
    alloc::Layout,
    ptr::{NonNull, null_mut, with_exposed_provenance_mut},
};
use hostmem_core::{
    arena::Arena,
    heap::{Hardening, Heap, HeapConfig, Return},
    jit::{JitAllocator, JitConfig, JitError, Mapping, RetireConfig, RetireQueue, Span},
    page::{AddressRange, PageSize, RwxOptIn},
    provider::Capabilities,
    range_map::RangeMap,
    sync::Spin,
};
use hostmem_miri::{Host, Random};
use std::{
    sync::{
        atomic::{
            AtomicBool, AtomicPtr, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc,
    },
    thread,
};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("it is valid")
}

fn byte(n: usize) -> u8 {
    n.to_le_bytes()[0]
}

#[test]
fn an_arena() {
    let host = Host::new(Capabilities::empty());
    let arena: Arena<_, Spin> = Arena::new(&host, 1 << 20).expect("a page");
    let mut live = Vec::new();
    let mut random = Random(7);
    for n in 0..60 {
        let layout = layout(1 + random.below(900), 1 << random.below(8));
        let object = arena.alloc(layout).expect("memory");
        // SAFETY: a live object of this many bytes.
        unsafe { object.write_bytes(byte(n), layout.size()) };
        live.push((object, layout, n));
        if random.below(3) == 0 {
            let (object, layout, n) = live.swap_remove(random.below(live.len()));
            // SAFETY: the last byte of a live object.
            let last = unsafe { object.add(layout.size() - 1).read() };
            assert_eq!(last, byte(n));
            // SAFETY: live, of this layout, and not used any more.
            unsafe { arena.free(object, layout) };
        }
    }
    for (object, layout, n) in live {
        // SAFETY: a live object.
        assert_eq!(unsafe { object.read() }, byte(n));
        // SAFETY: live, of this layout, and not used any more.
        unsafe { arena.free(object, layout) };
    }
    drop(arena);
    assert_eq!(host.reservations(), 0);
}

fn small_heap() -> HeapConfig {
    HeapConfig::new()
        .metadata(256 << 10)
        .segment(256 << 10)
        .shards(1)
        .memory_return(Return::Never)
        .large_pages(false)
}

/// Allocates, resizes and frees, and checks the first and the last byte of each block.
fn check_heap(config: HeapConfig, count: usize) {
    let host = Host::new(Capabilities::empty());
    let heap: Heap<_> = Heap::on(&host, &host, config).expect("metadata");
    let local = heap.local().expect("metadata");
    let mut live: Vec<(NonNull<u8>, usize, usize)> = Vec::new();
    let mut random = Random(12345);
    let ends = |block: NonNull<u8>, len: usize| {
        // SAFETY: a live block of this many bytes, all of them written.
        let last = unsafe { block.add(len - 1).read() };
        // SAFETY: a live block of this many bytes, all of them written.
        (unsafe { block.read() }, last)
    };
    for n in 0..count {
        let size = 1 + random.below(700);
        let block = if random.below(4) == 0 {
            let block = local.alloc_zeroed(layout(size, 8)).expect("memory");
            assert_eq!(ends(block, size), (0, 0));
            block
        } else {
            let align = 1 << random.below(6);
            local.alloc(layout(size, align)).expect("memory")
        };
        // SAFETY: a live block of this many bytes.
        unsafe { block.write_bytes(byte(n), size) };
        live.push((block, size, n));
        let info = heap.block_of(block.addr().get() + size / 2).expect("live");
        assert_eq!(info.addr, block.addr().get());
        if random.below(2) == 0 {
            let (block, size, n) = live.swap_remove(random.below(live.len()));
            assert_eq!(ends(block, size), (byte(n), byte(n)));
            // SAFETY: live, and not used any more.
            unsafe { local.free(block) }.expect("live");
        } else if random.below(3) == 0 {
            let at = random.below(live.len());
            let (block, size, n) = live[at];
            let len = 1 + random.below(900);
            // SAFETY: live, of this layout, and used by its new address only.
            let moved = unsafe { local.realloc(block, layout(size, 8), len) }.expect("memory");
            assert_eq!(ends(moved, size.min(len)), (byte(n), byte(n)));
            // SAFETY: a live block of this many bytes.
            unsafe { moved.write_bytes(byte(n), len) };
            live[at] = (moved, len, n);
        }
    }
    let large = local.alloc(layout(100_000, 64)).expect("memory");
    // SAFETY: the last byte of a live block.
    unsafe { large.add(99_999).write(1) };
    // SAFETY: live, and not used any more.
    unsafe { local.free(large) }.expect("live");
    for (block, size, n) in live {
        assert_eq!(ends(block, size), (byte(n), byte(n)));
        // SAFETY: live, and not used any more.
        unsafe { local.free(block) }.expect("live");
    }
    drop(local);
    heap.trim();
    drop(heap);
    assert_eq!(host.reservations(), 0);
}

#[test]
fn a_heap() {
    check_heap(small_heap(), 60);
}

#[test]
fn a_heap_that_checks_everything() {
    check_heap(small_heap().hardening(Hardening::Full).seed(3), 25);
}

/// A block on its way to another thread, by pointer, so that strict provenance holds.
struct Sent(NonNull<u8>);

// SAFETY: whoever has it owns the block.
unsafe impl Send for Sent {}

#[test]
fn a_heap_whose_blocks_other_threads_free() {
    let host = Host::new(Capabilities::empty());
    let heap: Heap<_> = Heap::on(&host, &host, small_heap()).expect("metadata");
    let heap = &heap;
    thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        scope.spawn(move || {
            let local = heap.local().expect("metadata");
            for n in 0..20 {
                let block = local.alloc(layout(8 + n * 10, 8)).expect("memory");
                // SAFETY: a live block.
                unsafe { block.write(byte(n)) };
                send.send(Sent(block))
                    .expect("the other thread waits for it");
            }
        });
        scope.spawn(move || {
            let local = heap.local().expect("metadata");
            for (n, Sent(block)) in receive.into_iter().enumerate() {
                // SAFETY: a live block.
                assert_eq!(unsafe { block.read() }, byte(n));
                // SAFETY: live, and not used any more.
                unsafe { local.free(block) }.expect("live");
            }
        });
    });
}

#[test]
fn a_heap_that_is_asked_without_a_lock() {
    let host = Host::new(Capabilities::empty());
    let config = small_heap().memory_return(Return::Eager);
    let heap: Heap<_> = Heap::on(&host, &host, config).expect("metadata");
    let (heap, last, is_done) = (&heap, &AtomicUsize::new(0), &AtomicBool::new(false));
    let exchange = |send: mpsc::Sender<usize>, receive: mpsc::Receiver<usize>, seed| {
        let local = heap.local().expect("metadata");
        let mut random = Random(seed);
        let free = |addr: usize| {
            let block = NonNull::new(with_exposed_provenance_mut(addr)).expect("a block");
            assert!(heap.block_of(addr).is_some());
            // SAFETY: the other thread has sent it here, and does not use it any more.
            unsafe { local.free(block) }.expect("live");
        };
        for _ in 0..12 {
            let block = local
                .alloc(layout(16 + random.below(300), 8))
                .expect("memory");
            // SAFETY: a live block of 16 bytes or more.
            unsafe { block.cast::<u64>().write(1) };
            last.store(block.addr().get(), Release);
            let sent = send.send(block.as_ptr().expose_provenance());
            sent.expect("the other thread waits for it");
            receive.try_iter().for_each(free);
        }
        drop(send);
        receive.into_iter().for_each(free);
    };
    thread::scope(|scope| {
        let (send_a, receive_a) = mpsc::channel();
        let (send_b, receive_b) = mpsc::channel();
        let a = scope.spawn(move || exchange(send_a, receive_b, 99));
        let b = scope.spawn(move || exchange(send_b, receive_a, 77));
        scope.spawn(move || {
            while !is_done.load(Relaxed) {
                let addr = last.load(Acquire);
                if let Some(info) = heap.block_of(addr) {
                    assert!(info.addr <= addr && addr - info.addr < info.len);
                }
                thread::yield_now();
            }
        });
        a.join().expect("it does not panic");
        b.join().expect("it does not panic");
        is_done.store(true, Relaxed);
    });
}

const BOUNDS: usize = 1 << 24;

fn pages(first: usize, count: usize) -> AddressRange {
    AddressRange::from_len(first * 4096, count * 4096).expect("not empty")
}

fn range_map(host: &Host) -> RangeMap<u32, &Host> {
    let bounds = AddressRange::new(0, BOUNDS - 1).expect("not empty");
    RangeMap::on(host, bounds, PageSize::KIB_4, 256 << 10).expect("metadata")
}

#[test]
fn a_range_map() {
    let host = Host::new(Capabilities::empty());
    let map = range_map(&host);
    let mut model = vec![None; BOUNDS / 4096];
    let mut random = Random(5);
    for n in 0..150 {
        let (first, count) = (random.below(4000), 1 + random.below(30));
        let range = pages(first, count);
        let of_model = &mut model[first..first + count];
        match random.below(4) {
            0 | 1 => {
                map.insert(range, n % 5).expect("metadata");
                of_model.fill(Some(n % 5));
            }
            2 => {
                map.remove(range).expect("metadata");
                of_model.fill(None);
            }
            _ => {
                map.update(range, |value| value + 1).expect("metadata");
                of_model.iter_mut().flatten().for_each(|value| *value += 1);
            }
        }
        let page = random.below(model.len());
        let found = map.query(page * 4096 + 5).map(|(_, value)| value);
        assert_eq!(found, model[page]);
    }
}

#[test]
fn a_range_map_that_changes_while_it_is_read() {
    let host = Host::new(Capabilities::empty());
    let map = range_map(&host);
    let (map, is_done) = (&map, &AtomicBool::new(false));
    for n in 0..40_u32 {
        map.insert(pages(n as usize * 100, 3), n).expect("metadata");
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random(9);
            for n in 0..40 {
                let first = random.below(40) * 100;
                if n % 2 == 0 {
                    map.remove(pages(first, 50)).expect("metadata");
                } else {
                    let range = pages(first + 3, 1 + random.below(20));
                    map.insert(range, 1000 + n).expect("metadata");
                    map.update(pages(first, 50), |value| value)
                        .expect("metadata");
                }
            }
            is_done.store(true, Relaxed);
        });
        scope.spawn(move || {
            let mut random = Random(3);
            let mut reads = 0;
            while !is_done.load(Relaxed) || reads < 10 {
                let addr = random.below(4000) * 4096;
                if let Some((range, _)) = map.query(addr) {
                    assert!(range.contains(addr));
                }
                if let Some((range, _)) = map.next_from(addr) {
                    assert!(range.last() >= addr);
                }
                reads += 1;
            }
        });
    });
}

/// A host that maps code once: Miri has no two views of the same memory.
fn code_host() -> Host {
    Host::new(Capabilities::RWX | Capabilities::TOGGLE_EXEC | Capabilities::CORE_SYNC)
}

fn jit(host: &Host, mapping: Mapping) -> JitAllocator<&Host> {
    let config = JitConfig::new()
        .metadata(256 << 10)
        .block_size(64 << 10, 64 << 10)
        .shards(1)
        .immediate_release(true)
        .mapping(mapping);
    JitAllocator::on(host, host, config).expect("it is valid")
}

fn writable_code() -> Mapping {
    // SAFETY: nothing is executed.
    Mapping::ReadWriteExec(unsafe { RwxOptIn::accept() })
}

#[test]
fn a_jit_allocator() {
    for mapping in [Mapping::Toggle, writable_code()] {
        let host = code_host();
        let jit = jit(&host, mapping);
        let mut live = Vec::new();
        let mut random = Random(11);
        for n in 0..60 {
            let len = 1 + random.below(800);
            let mut span = jit.alloc(len).expect("memory");
            jit.write(&mut span, 0, &vec![byte(n); len]).expect("live");
            assert!(jit.query(span.rx().addr().get() + len / 2).is_some());
            if random.below(4) == 0 {
                jit.shrink(&mut span, (len / 2).max(1)).expect("live");
            }
            live.push((span, n));
            if random.below(2) == 0 {
                let (span, n) = live.swap_remove(random.below(live.len()));
                // SAFETY: the first byte of a live span, which was written.
                assert_eq!(unsafe { span.rx().read() }, byte(n));
                jit.release(span).expect("live");
            }
        }
        for (span, _) in live {
            jit.release(span).expect("live");
        }
        drop(jit);
        assert_eq!(host.reservations(), 0);
    }
}

#[test]
fn a_jit_allocator_that_is_asked_without_a_lock() {
    let host = code_host();
    let jit = jit(&host, writable_code());
    let (jit, is_done) = (&jit, &AtomicBool::new(false));
    let last = &[const { AtomicUsize::new(0) }; 4];
    thread::scope(|scope| {
        for seed in [13, 14] {
            scope.spawn(move || {
                let mut live = Vec::new();
                let mut random = Random(seed);
                for n in 0..25 {
                    let len = 1 + random.below(5000);
                    let mut span = jit.alloc(len).expect("memory");
                    jit.write(&mut span, 0, &[byte(n); 16][..len.min(16)])
                        .expect("live");
                    let addr = span.rx().addr().get();
                    assert_eq!(jit.query(addr).map(|info| info.rx), Some(span.rx()));
                    last[random.below(4)].store(addr, Release);
                    live.push(span);
                    if random.below(3) != 0 {
                        let span = live.swap_remove(random.below(live.len()));
                        jit.release(span).expect("live");
                    }
                }
                for span in live {
                    jit.release(span).expect("live");
                }
                is_done.store(true, Relaxed);
            });
        }
        scope.spawn(move || {
            while !is_done.load(Relaxed) {
                for addr in last.iter().map(|last| last.load(Relaxed)) {
                    if let Some(info) = jit.query(addr) {
                        let start = info.rx.addr().get();
                        assert!(start <= addr && addr - start < info.len);
                    }
                }
                thread::yield_now();
            }
        });
    });
}

/// Retires a span, as soon as there is room for it.
fn retire(queue: &RetireQueue<&JitAllocator<&Host>, &Host>, mut span: Span) {
    while let Err(refused) = queue.retire(span) {
        assert_eq!(refused.error, JitError::QueueFull);
        span = refused.span;
        thread::yield_now();
    }
}

#[test]
fn code_is_retired_while_threads_read_it() {
    let host = code_host();
    let jit = jit(&host, writable_code());
    let config = RetireConfig::new().waiting(16).executors(4);
    let queue = RetireQueue::on(&jit, &host, config).expect("metadata");
    // The table that executors look code up in.
    let code = &AtomicPtr::new(null_mut::<u8>());
    let (jit, queue, is_done) = (&jit, &queue, &AtomicBool::new(false));
    thread::scope(|scope| {
        for goes_offline in [false, true] {
            scope.spawn(move || {
                let me = queue.register().expect("one of four");
                let mut rounds = 0;
                while !is_done.load(Relaxed) {
                    let found = code.load(Acquire);
                    if !found.is_null() {
                        // "Runs" the code: reads, which a release that comes too early races with.
                        // SAFETY: it is not released before this executor's quiescent point.
                        let first = unsafe { found.read() };
                        // SAFETY: not released before this executor's quiescent point, and 64 bytes
                        // long.
                        assert_eq!(first, unsafe { found.add(7).read() });
                    }
                    rounds += 1;
                    if goes_offline && rounds % 3 == 0 {
                        me.offline();
                        thread::yield_now();
                        me.online();
                    } else {
                        me.quiescent();
                        thread::yield_now();
                    }
                }
            });
        }
        let mut old = None;
        for n in 1..30 {
            let mut span = jit.alloc(64).expect("memory");
            jit.write(&mut span, 0, &[byte(n); 64]).expect("live");
            code.store(span.rx().as_ptr(), Release);
            if let Some(old) = old.replace(span) {
                retire(queue, old);
            }
            queue.reclaim();
            thread::yield_now();
        }
        code.store(null_mut(), Release);
        retire(queue, old.expect("the last one"));
        is_done.store(true, Relaxed);
    });
    queue.reclaim();
    assert_eq!(queue.statistics().waiting.spans, 0);
}
