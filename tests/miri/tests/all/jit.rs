//! Code: an allocator, questions without a lock, and a retire queue.

use crate::byte;
use core::ptr::null_mut;
use hostmem_core::{
    jit::{JitAllocator, JitConfig, JitError, Mapping, RetireConfig, RetireQueue, Span},
    page::RwxOptIn,
    provider::Capabilities,
};
use hostmem_miri::{Host, Random};
use std::{
    sync::atomic::{
        AtomicBool, AtomicPtr, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};

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
