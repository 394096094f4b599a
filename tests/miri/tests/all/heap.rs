//! Heaps: one thread, blocks that another thread frees, and questions without a lock.

use crate::{byte, layout};
use core::ptr::{NonNull, with_exposed_provenance_mut};
use hostmem_core::{
    heap::{Hardening, Heap, HeapConfig, Return},
    provider::Capabilities,
};
use hostmem_miri::{Host, Random};
use std::{
    sync::{
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc,
    },
    thread,
};

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
