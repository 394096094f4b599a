//! Calls inside calls, forks prepared by many threads at once, and limits to the last byte.

use crate::{
    code::{OS, allocator, allocator_on, place, run},
    common::{CODE_LEN, call, code_returning, emulated, hooked_fork, wait},
};
use core::cell::Cell;
use hostmem::{
    OsLock, OsProvider,
    counted::{Counted, Limits},
    fork::ForkHooks,
    jit::{Fill, JitAllocator, JitConfig, JitError, Mapping, Reset, Span},
    provider::{PageProvider, Placement},
};
use hostmem_test_support::isolate::isolated;
use std::thread;

#[test]
fn forks_prepared_by_many_threads_leave_no_copies() {
    const THREADS: usize = 4;
    let rounds = if emulated() { 50 } else { 2000 };
    let metadata = Counted::<OsProvider>::new(OS, "metadata", Limits::NONE).expect("metadata");
    let jit = JitAllocator::<_, _, OsLock>::on(OS, &metadata, JitConfig::new());
    let jit = jit.expect("the configuration is valid");
    let mut span = jit.alloc(3000).expect("memory");
    jit.write(&mut span, 0, &[0xcc; 3000]).expect("ours");
    let held = || {
        let now = metadata.counters();
        (now.reserved.now, now.committed.now)
    };
    let before = held();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..rounds {
                    jit.fork_prepare().expect("memory for a copy");
                    // SAFETY: prepared just now by this thread, which did not fork.
                    unsafe { jit.fork_parent() };
                }
            });
        }
    });
    assert_eq!(held(), before, "every copy went again");
    jit.release(span).expect("once");
}

/// Configurations under which a write holds something, and under which it does not.
fn modes() -> impl Iterator<Item = JitConfig> {
    let mappings = [Mapping::Toggle, Mapping::Dual];
    let fills = [Fill::Keep, Fill::Trap];
    mappings
        .into_iter()
        .flat_map(move |mapping| fills.map(|fill| JitConfig::new().mapping(mapping).fill(fill)))
}

#[test]
fn a_write_may_call_the_allocator() {
    isolated!("a_write_may_call_the_allocator", || {
        for config in modes() {
            let jit = allocator(config);
            // Of one page, so that all that is written in between is written there too.
            let (mut outer, mut inner) = (place(&jit, 1), place(&jit, 2));
            let (gone, again) = (place(&jit, 3), place(&jit, 4));
            let mut shrunk = jit.alloc(1000).expect("memory");
            let placed = Cell::new(None);
            let written = jit.write_with(&mut outer, |writer| {
                writer.bytes_mut()[..CODE_LEN].copy_from_slice(&code_returning(11));
                jit.release(gone).expect("once");
                jit.shrink(&mut shrunk, 64).expect("ours");
                jit.write(&mut inner, 0, &code_returning(12)).expect("ours");
                let other = place(&jit, 5);
                // More than the first block has, so that one is mapped.
                let large = jit.alloc(1 << 20).expect("memory");
                let deeper = jit.write_with(&mut inner, |writer| {
                    writer.bytes_mut()[..CODE_LEN].copy_from_slice(&code_returning(13));
                    // SAFETY: the span is live, and its token is not used again.
                    unsafe { jit.release_at(again.rx().addr().get()) }.expect("once");
                });
                deeper.expect("ours");
                jit.decommit_unused();
                assert!(jit.query(inner.rx().addr().get()).is_some());
                // Still writable, after all that was done with the same page.
                writer.bytes_mut()[CODE_LEN..].fill(0xcc);
                placed.set(Some((other, large)));
            });
            written.expect("ours");
            assert_eq!((run(&outer), run(&inner)), (11, 13), "{config:?}");
            let (other, large) = placed.take().expect("they were allocated");
            assert_eq!(run(&other), 5);
            for span in [outer, inner, other, large, shrunk] {
                jit.release(span).expect("once");
            }
            assert_eq!(jit.statistics().spans, 0);
        }
    });
}

#[test]
fn a_panic_in_a_nested_write_leaves_code_executable() {
    isolated!("a_panic_in_a_nested_write_leaves_code_executable", || {
        for config in modes() {
            let jit = allocator(config);
            let (mut outer, mut inner) = (place(&jit, 1), place(&jit, 2));
            let other = place(&jit, 3);
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _ = jit.write_with(&mut outer, |_| {
                    let _ = jit.write_with(&mut inner, |_| panic!("on purpose"));
                });
            }));
            assert!(panicked.is_err());
            assert_eq!((run(&outer), run(&inner), run(&other)), (1, 2, 3));
        }
    });
}

#[test]
fn threads_write_to_shared_pages_at_once() {
    isolated!("threads_write_to_shared_pages_at_once", || {
        const THREADS: u32 = 4;
        let rounds: u32 = if emulated() { 50 } else { 1000 };
        for config in modes() {
            let jit = allocator(config);
            let barrier = std::sync::Barrier::new(usize::try_from(THREADS).expect("few"));
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (jit, barrier) = (&jit, &barrier);
                    scope.spawn(move || {
                        let mut span = place(jit, 0);
                        for n in 0..rounds {
                            let value = THREADS * n + thread;
                            let code = code_returning(value % (1 << 16));
                            jit.write(&mut span, 0, &code).expect("ours");
                            // No code executes while others write: the mode does not allow it.
                            if n % 100 == 0 {
                                barrier.wait();
                                assert_eq!(run(&span), value % (1 << 16));
                                barrier.wait();
                            }
                        }
                        jit.release(span).expect("once");
                    });
                }
            });
        }
    });
}

#[test]
fn a_fork_inside_a_write_leaves_code_executable_in_the_child() {
    isolated!(
        "a_fork_inside_a_write_leaves_code_executable_in_the_child",
        || {
            let config = JitConfig::new().mapping(Mapping::Toggle);
            let jit = allocator(config);
            let (mut outer, other) = (place(&jit, 1), place(&jit, 2));
            let written = jit.write_with(&mut outer, |writer| {
                let child = hooked_fork(&jit, || {
                    i32::from(run(&other) == 2 && place(&jit, 3).len_bytes() != 0)
                });
                assert_eq!(
                    wait(child),
                    1,
                    "the child ran code of the page that was being written"
                );
                writer.bytes_mut()[..CODE_LEN].copy_from_slice(&code_returning(4));
            });
            written.expect("ours");
            assert_eq!((run(&outer), run(&other)), (4, 2));
        },
    );
}

#[test]
fn a_span_may_be_as_long_as_the_limit() {
    isolated!("a_span_may_be_as_long_as_the_limit", || {
        let page = OS.page_size().bytes();
        for limit in [
            page,
            64 << 10,
            128 << 10,
            1 << 20,
            32 << 20,
            33 << 20,
            512 << 20,
        ] {
            for pools in [1, 3] {
                for padding in [true, false] {
                    let config = JitConfig::new().limit(limit).pools(pools).padding(padding);
                    let jit = allocator(config);
                    for _ in 0..2 {
                        // Another block is in the way at first, that is kept empty.
                        let small = jit.alloc(64).expect("there is room");
                        jit.release(small).expect("once");
                        let span = jit.alloc(limit).expect("just as long");
                        assert_eq!(
                            (span.len_bytes(), jit.statistics().reserved),
                            (limit, limit)
                        );
                        assert_eq!(jit.alloc(64).err(), Some(JitError::Limit));
                        jit.release(span).expect("once");
                    }
                    let placed = jit.alloc_with(limit, Placement::ANYWHERE);
                    jit.release(placed.expect("just as long")).expect("once");
                    assert_eq!(jit.alloc(limit + 1).err(), Some(JitError::Limit));
                }
            }
        }
        // Several blocks, the last of which takes all that is left.
        let jit = allocator_on(
            OS,
            JitConfig::new()
                .limit(1 << 20)
                .block_size(64 << 10, 64 << 10),
        );
        let spans: Vec<Span> = std::iter::from_fn(|| jit.alloc(64 << 10).ok()).collect();
        assert!(spans.len() >= 8, "{} spans", spans.len());
        let left = (1 << 20) - jit.statistics().reserved;
        if left != 0 {
            let last = jit.alloc(left).expect("as long as what is left");
            jit.release(last).expect("once");
        }
        for span in spans {
            jit.release(span).expect("once");
        }
    });
}

#[test]
fn blocks_may_be_one_gib_long() {
    isolated!("blocks_may_be_one_gib_long", || {
        assert!(
            JitConfig::new()
                .block_size(2 << 30, 2 << 30)
                .check()
                .is_err()
        );
        for granularity in [16, 64, 4096] {
            let config = JitConfig::new()
                .block_size(1 << 30, 1 << 30)
                .granularity(granularity);
            let jit = allocator(config);
            let first = match jit.alloc(CODE_LEN) {
                Ok(span) => span,
                Err(JitError::Map(error)) => {
                    return hostmem_test_support::isolate::skip(format!("2 GiB: {error}"));
                }
                Err(error) => panic!("{error}"),
            };
            // To the last granule of it.
            let rest = (1 << 30) - 2 * granularity;
            let mut span = jit.alloc(rest - 4096).expect("there is room");
            let blocks: Vec<_> = jit.blocks().collect();
            assert!(blocks[0].rx.len_bytes() >= 1 << 28, "{blocks:?}");
            let end = span.len_bytes() - CODE_LEN;
            jit.write(&mut span, end, &code_returning(9)).expect("ours");
            let last = span.rx().as_ptr().wrapping_add(end);
            // SAFETY: written just now.
            assert_eq!(unsafe { call(last) }, 9);
            assert_eq!(jit.query(last.addr()), Some(span.info()));
            jit.release(span).expect("once");
            jit.release(first).expect("once");
            // SAFETY: no span is live.
            unsafe { jit.reset(Reset::Hard) };
            assert_eq!(jit.statistics().reserved, 0);
        }
    });
}

#[test]
fn spans_longer_than_blocks_leave_no_metadata_behind() {
    isolated!("spans_longer_than_blocks_leave_no_metadata_behind", || {
        let metadata = || Counted::<OsProvider>::new(OS, "metadata", Limits::NONE);
        // Refused by the limit, by the host, and served.
        for limit in [1 << 30, usize::MAX] {
            let counted = metadata().expect("metadata");
            let config = JitConfig::new().limit(limit);
            let jit = JitAllocator::<_, _, OsLock>::on(OS, &counted, config);
            let jit = jit.expect("the configuration is valid");
            let small = jit.alloc(64).expect("memory");
            let come_and_go = || {
                for shift in [31, 34, 40, 46, 50] {
                    if let Ok(span) = jit.alloc(1 << shift) {
                        jit.release(span).expect("once");
                    }
                }
            };
            come_and_go();
            let before = counted.counters().committed.now;
            (0..100).for_each(|_| come_and_go());
            assert_eq!(counted.counters().committed.now, before, "limit {limit}");
            assert!(before <= 512 << 10, "{before} bytes");
            jit.release(small).expect("once");
        }
    });
}
