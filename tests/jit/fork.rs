//! P8: code around forks. Each test forks in a process of its own; the children use neither the
//! heap nor locks that another thread of the parent may have held.

use crate::{
    code::{Jit, OS, allocator, place, run},
    common::{
        CODE_LEN, bare_fork, call, code_returning, exit, hooked_fork, hooked_fork_after, map_dual,
        skip_emulated,
        threads::{Stop, await_more},
        unmap_dual, wait, write_code,
    },
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hostmem::{
    fork::ForkHooks,
    jit::{JitConfig, JitError, Span},
    provider::{DualMapProvider, DualRequest, ErrorKind, Fork},
};
use hostmem_test_support::{
    fault::{Signal, faults_in_fork},
    isolate::isolated,
};

/// What the emulator lacks, so that children have views that they should have lost.
const NO_DONTFORK: &str = "does not pass MADV_DONTFORK on";

#[test]
fn p8_a_bare_child_cannot_change_the_parents_code() {
    if skip_emulated(NO_DONTFORK) {
        return;
    }
    isolated!("p8_a_bare_child_cannot_change_the_parents_code", || {
        let mapping = map_dual(&OS);
        // SAFETY: two pages, and ours alone.
        unsafe { write_code(&mapping, 0, 5) };
        let (rw, rx) = (mapping.rw().start().as_ptr(), mapping.rx().start().as_ptr());
        let fault = faults_in_fork(|| {
            // SAFETY: this is to fault, in a child.
            unsafe { rw.write_volatile(0xcc) };
        });
        let fault = fault.expect("the child has no writable view");
        assert_eq!((fault.signal, fault.address), (Signal::Segv, rw.addr()));
        let len = mapping.len_bytes();
        let child = bare_fork();
        if child == 0 {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a range of ours; both calls are to fail.
            let rx_opened = unsafe { libc::mprotect(rx.cast(), len, access) } == 0;
            // SAFETY: a range of ours; both calls are to fail.
            let rw_opened = unsafe { libc::mprotect(rw.cast(), len, access) } == 0;
            // SAFETY: the code is still there.
            let value = unsafe { call(rx) };
            exit(i32::from(rx_opened) | i32::from(rw_opened) << 1 | i32::from(value != 5) << 2);
        }
        assert_eq!(
            wait(child),
            0,
            "1: rx made writable, 2: rw there, 4: code gone"
        );
        // SAFETY: published, and unchanged.
        assert_eq!(unsafe { call(rx) }, 5);
        unmap_dual(&OS, mapping);
    });
}

#[test]
fn p8_the_lost_view_is_reserved_again_or_reported() {
    if skip_emulated(NO_DONTFORK) {
        return;
    }
    isolated!("p8_the_lost_view_is_reserved_again_or_reported", || {
        for fork in [
            Fork::Detach,
            Fork::ChildLosesRw,
            Fork::ChildLosesBoth,
            Fork::Share,
        ] {
            let request = DualRequest {
                fork,
                ..DualRequest::bytes(1 << 16)
            };
            // SAFETY: neither target is a range of ours.
            let mapping = unsafe { OS.map_dual(&request) }.expect("a strategy works");
            let child = bare_fork();
            if child == 0 {
                // SAFETY: the only thread of a forked child, once.
                let first = unsafe { OS.fork_child_dual(&mapping) };
                // SAFETY: breaks the rule of once, to see that what is there is not replaced.
                let second = unsafe { OS.fork_child_dual(&mapping) };
                let second = second.map_err(|e| e.kind());
                let expected = if fork == Fork::Share {
                    Ok(())
                } else {
                    Err(ErrorKind::RangeLost)
                };
                exit(i32::from(first.is_err()) | i32::from(second != expected) << 1);
            }
            assert_eq!(wait(child), 0, "{fork:?}");
            unmap_dual(&OS, mapping);
        }
    });
}

/// Handlers of `pthread_atfork`, a heap's for instance, run before anything that the caller of
/// `fork` can call.
#[test]
fn what_a_child_maps_before_the_hook_takes_no_place_of_a_lost_view() {
    if skip_emulated(NO_DONTFORK) {
        return;
    }
    isolated!(
        "what_a_child_maps_before_the_hook_takes_no_place_of_a_lost_view",
        || {
            let jit = &allocator(JitConfig::new());
            let mut kept = [place(jit, 7)];
            let child = hooked_fork_after(
                jit,
                || {
                    let null = core::ptr::null_mut();
                    for pages in (0..9).cycle().take(900) {
                        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                        // SAFETY: new mappings, which replace nothing.
                        unsafe { libc::mmap(null, 4096 << pages, libc::PROT_NONE, flags, -1, 0) };
                    }
                },
                || detached_child(jit, &mut kept, 7),
            );
            assert_eq!(wait(child), 0);
        },
    );
}

/// What a child of the long test checks; zero if all is well.
fn detached_child(jit: &Jit, kept: &mut [Span], first: u32) -> i32 {
    for (span, value) in kept.iter().zip(first..) {
        if run(span) != value {
            return 1;
        }
        let inside = span.rx().addr().get() + span.len_bytes() - 1;
        if jit.query(inside).is_none_or(|info| info.rx != span.rx()) {
            return 2;
        }
    }
    for span in kept.iter_mut() {
        if jit.write(span, 0, &code_returning(60_000)).is_err() || run(span) != 60_000 {
            return 3;
        }
    }
    let Ok(mut new) = jit.alloc(1000) else {
        return 4;
    };
    if jit.write(&mut new, 900, &code_returning(61_000)).is_err() {
        return 5;
    }
    // SAFETY: such a function was just written there.
    if unsafe { call(new.rx().as_ptr().wrapping_add(900)) } != 61_000 {
        return 6;
    }
    if jit.release(new).is_err() {
        return 7;
    }
    0
}

#[test]
fn p8_ten_thousand_detached_children_of_eight_allocating_threads() {
    if skip_emulated(NO_DONTFORK) {
        return;
    }
    let forks: u32 = std::env::var("HOSTMEM_FORKS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(10_000);
    isolated!(
        "p8_ten_thousand_detached_children_of_eight_allocating_threads",
        || {
            let jit = &allocator(JitConfig::new());
            let (stop, rounds) = (&AtomicBool::new(false), &AtomicU64::new(0));
            std::thread::scope(|scope| {
                let _stop = Stop(stop);
                for thread in 0..8u32 {
                    scope.spawn(move || {
                        let _stop = Stop(stop);
                        let mut spans: Vec<Span> = Vec::new();
                        let mut round = thread;
                        while !stop.load(Ordering::Relaxed) {
                            round = (round + 8) % 50_000;
                            spans.push(place(jit, round));
                            assert_eq!(run(&spans[spans.len() - 1]), round);
                            if spans.len() > 20 {
                                let span = spans.swap_remove(round as usize % spans.len());
                                jit.release(span).expect("released once");
                            }
                            rounds.fetch_add(1, Ordering::Relaxed);
                            // There are fewer cores than threads, and the forking one is to get on.
                            std::thread::yield_now();
                        }
                        spans
                            .into_iter()
                            .for_each(|span| jit.release(span).expect("released once"));
                    });
                }
                let mut kept: Vec<Span> = (0..10).map(|n| place(jit, n)).collect();
                let (mut first, mut seen) = (0, 0);
                for n in 0..forks {
                    seen = await_more(rounds, seen);
                    assert!(!stop.load(Ordering::Relaxed), "a thread failed");
                    let child = hooked_fork(jit, || detached_child(jit, &mut kept, first));
                    // At once, while the child still copies: it must see what was there before.
                    first = (n % 1000) * 10;
                    for (span, value) in kept.iter_mut().zip(first..) {
                        jit.write(span, 0, &code_returning(value))
                            .expect("the span is ours");
                    }
                    assert_eq!(wait(child), 0, "fork {n}");
                    for (span, value) in kept.iter().zip(first..) {
                        assert_eq!(
                            run(span),
                            value,
                            "fork {n}: the child wrote the parent's code"
                        );
                    }
                }
                kept.into_iter()
                    .for_each(|span| jit.release(span).expect("released once"));
            });
            assert_eq!(jit.statistics().spans, 0);
        },
    );
}

#[test]
fn p8_children_forked_without_the_hooks_leave_the_parent_alone() {
    isolated!(
        "p8_children_forked_without_the_hooks_leave_the_parent_alone",
        || {
            let jit = allocator(JitConfig::new());
            let span = place(&jit, 7);
            let child = bare_fork();
            if child == 0 {
                // Running and asking need no hooks.
                let found = jit.query(span.rx().addr().get()).is_some();
                exit(i32::from(run(&span) != 7 || !found));
            }
            assert_eq!(wait(child), 0);
            assert_eq!(run(&span), 7);
            jit.release(span).expect("released once");
        },
    );
}

#[test]
fn p8_a_child_of_a_child_detaches_again() {
    if skip_emulated(NO_DONTFORK) {
        return;
    }
    isolated!("p8_a_child_of_a_child_detaches_again", || {
        let jit = allocator(JitConfig::new());
        let mut span = place(&jit, 1);
        let child = hooked_fork(&jit, || {
            jit.write(&mut span, 0, &code_returning(2))
                .expect("the span is ours");
            let grandchild = hooked_fork(&jit, || {
                let inherited = run(&span);
                jit.write(&mut span, 0, &code_returning(3))
                    .expect("the span is ours");
                i32::from(inherited != 2 || run(&span) != 3)
            });
            wait(grandchild) << 1 | i32::from(run(&span) != 2)
        });
        assert_eq!(wait(child), 0);
        assert_eq!(run(&span), 1);
        jit.release(span).expect("released once");
    });
}

#[test]
fn other_policies_say_what_the_child_lost() {
    if skip_emulated(NO_DONTFORK) {
        return;
    }
    isolated!("other_policies_say_what_the_child_lost", || {
        for fork in [Fork::ChildLosesRw, Fork::ChildLosesBoth, Fork::Share] {
            let jit = allocator(JitConfig::new().fork(fork));
            let mut span = place(&jit, 1);
            let child = hooked_fork(&jit, || {
                let found = jit.query(span.rx().addr().get()).is_some();
                let written = jit.write(&mut span, 0, &code_returning(2));
                let before = (found, written);
                // New spans are the child's own, and never in pages that the parent sees.
                let mut new = jit.alloc(CODE_LEN).expect("a new block");
                jit.write(&mut new, 0, &code_returning(9))
                    .expect("the span is ours");
                let alone = run(&new) == 9 && new.rx().addr() != span.rx().addr();
                let expected = match fork {
                    Fork::ChildLosesRw => (true, Err(JitError::ReadOnly)),
                    Fork::ChildLosesBoth => (false, Err(JitError::NotOwned)),
                    _ => (true, Ok(())),
                };
                i32::from(before != expected) | i32::from(!alone) << 1
            });
            assert_eq!(wait(child), 0, "{fork:?}");
            assert_eq!(run(&span), if fork == Fork::Share { 2 } else { 1 });
            jit.release(span).expect("released once");
        }
    });
}

#[test]
fn a_fork_that_does_not_come_about_leaves_everything_as_it_was() {
    let jit = allocator(JitConfig::new());
    let span = place(&jit, 3);
    let before = jit.statistics();
    jit.fork_prepare().expect("memory for the copy");
    // SAFETY: prepared above, on this thread.
    unsafe { jit.fork_parent() };
    assert_eq!(jit.statistics(), before);
    assert_eq!(run(&span), 3);
    jit.release(span).expect("released once");
}
