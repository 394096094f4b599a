//! J11 on the real system: threads that run code, one of them blocked in the kernel, while others
//! retire it; and J10 with release, so that memory of old code is used for new code all along.

use crate::{
    code::{Jit, OS, allocator, place, run},
    common::{
        call, emulated, skip_emulated,
        threads::{Stop, await_more},
    },
};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use hostmem::{
    OsLock, OsProvider,
    fork::around_fork,
    jit::{Executor, Fill, JitConfig, JitError, RetireConfig, RetireQueue, Span},
};
use hostmem_test_support::isolate::isolated;
use std::{
    sync::mpsc::{self, TryRecvError},
    thread,
};

type Queue<'a> = RetireQueue<&'a Jit, OsProvider, OsLock>;

/// What is released becomes trapping instructions, so that to run it cannot go unnoticed.
fn trapping() -> Jit {
    allocator(JitConfig::new().fill(Fill::Trap))
}

fn queue(jit: &Jit, waiting: usize) -> Queue<'_> {
    RetireQueue::on(jit, OS, RetireConfig::new().waiting(waiting)).expect("memory")
}

#[test]
fn j11_a_thread_in_the_kernel_holds_nothing_back_and_one_in_a_loop_does() {
    let jit = trapping();
    let queue = &queue(&jit, 8);
    let (ready, is_ready) = mpsc::channel();
    let (wake, woken) = mpsc::channel::<AtomicPtr<u8>>();
    let (pass, may_pass) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Should this thread fail, the others find their channels closed, and end.
        let (wake, pass, also_ready) = (wake, pass, ready.clone());
        let blocked = scope.spawn(move || {
            let me = queue.register().expect("one of 64");
            me.offline();
            ready.send(()).expect("somebody listens");
            let code = woken.recv().expect("somebody speaks");
            me.online();
            // SAFETY: not retired before this executor's next quiescent point.
            unsafe { call(code.into_inner()) }
        });
        is_ready.recv().expect("somebody speaks");
        for value in 0..100 {
            queue.retire(place(&jit, value)).expect("there is room");
            assert_eq!(queue.reclaim().spans, 1, "the thread is in the kernel");
        }
        scope.spawn(move || {
            let me = queue.register().expect("one of 64");
            for _ in 0..2 {
                also_ready.send(()).expect("somebody listens");
                while may_pass.try_recv() == Err(TryRecvError::Empty) {
                    thread::yield_now();
                }
                me.quiescent();
            }
        });
        is_ready.recv().expect("somebody speaks");
        let waiting: Vec<_> = (0..8).map(|value| place(&jit, value)).collect();
        let codes: Vec<_> = waiting.iter().map(|span| span.rx().as_ptr()).collect();
        for span in waiting {
            queue.retire(span).expect("there is room");
        }
        let refused = queue.retire(place(&jit, 8)).expect_err("eight wait");
        assert_eq!(refused.error, JitError::QueueFull);
        assert_eq!(run(&refused.span), 8, "a refused span is as it was");
        for _ in 0..100 {
            assert_eq!(queue.reclaim().spans, 0, "the loop may be in any of them");
            jit.release(place(&jit, 9)).expect("once");
        }
        for (value, code) in (0..).zip(codes) {
            // SAFETY: it waits.
            assert_eq!(unsafe { call(code) }, value, "never reused early");
        }
        pass.send(()).expect("somebody listens");
        is_ready.recv().expect("somebody speaks");
        assert_eq!(queue.reclaim().spans, 8, "it has passed");
        pass.send(()).expect("somebody listens");
        let code = AtomicPtr::new(refused.span.rx().as_ptr());
        wake.send(code).expect("somebody listens");
        assert_eq!(blocked.join().expect("it returns"), 8);
        queue.retire(refused.span).expect("there is room");
    });
    assert_eq!(queue.reclaim().spans, 1, "all threads are gone");
    assert_eq!(jit.statistics().spans, 0);
}

/// Places of code that is replaced all the time. Code n returns n modulo their number.
const LINKS: usize = 16;

type Links = [AtomicPtr<u8>; LINKS];

/// Runs what the links lead to, each piece several times, until told to stop.
fn run_links(me: &Executor<'_>, links: &Links, stop: &AtomicBool, first: usize, runs: &AtomicU64) {
    for n in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let index = n % LINKS;
        let code = links[index].load(Ordering::Acquire);
        // SAFETY: this executor is online, and reached the code since its last quiescent point.
        let value = unsafe { call(code) };
        assert_eq!(value as usize % LINKS, index, "somebody else's code");
        for _ in 0..50 {
            // SAFETY: this executor is online, and reached the code since its last quiescent point.
            assert_eq!(unsafe { call(code) }, value, "it changed under this thread");
        }
        runs.fetch_add(1, Ordering::Relaxed);
        match n % 64 {
            62 => {
                me.offline();
                thread::yield_now();
                me.online();
            }
            // Not always: code is to be retired while it is in use for long, too.
            _ if n % 3 == 0 => me.quiescent(),
            _ => {}
        }
    }
    me.quiescent();
}

/// Retires a span, however long it takes until there is room.
fn retire(queue: &Queue<'_>, span: Span) {
    let mut left = Some(span);
    while let Some(span) = left.take() {
        if let Err(refused) = queue.retire(span) {
            assert_eq!(refused.error, JitError::QueueFull);
            left = Some(refused.span);
            queue.reclaim();
            thread::yield_now();
        }
    }
}

/// Replaces the links of one half, and retires what they led to; in the end they lead to `idle`.
/// Does so `rounds` times, with runs between them.
fn replace_links(
    queue: &Queue<'_>,
    links: &Links,
    idle: &[Span],
    half: usize,
    (rounds, runs): (u32, &AtomicU64),
) {
    let mut seen = 0;
    let mut spans: Vec<Option<Span>> = (0..LINKS).map(|_| None).collect();
    let own = (0..LINKS).filter(|index| index % 2 == half);
    for round in 0..rounds {
        if round % 4 == 0 {
            seen = await_more(runs, seen);
        }
        for index in own.clone() {
            let value = round as usize * LINKS + index;
            let value = u32::try_from(value % (1 << 16)).expect("16 bits");
            let new = place(queue.allocator(), value);
            links[index].store(new.rx().as_ptr(), Ordering::Release);
            if let Some(old) = spans[index].replace(new) {
                retire(queue, old);
            }
        }
        if round % 4 == 0 {
            queue.reclaim();
        }
    }
    for index in own {
        links[index].store(idle[index].rx().as_ptr(), Ordering::Release);
        let last = spans[index].take().expect("replaced at least once");
        retire(queue, last);
    }
}

#[test]
fn j10_code_is_retired_and_its_memory_used_again_while_threads_run_it() {
    let rounds = if emulated() { 30 } else { 1500 };
    let jit = trapping();
    let queue = &queue(&jit, 100);
    let (stop, runs) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let idle: &Vec<Span> = &(0..16).map(|value| place(&jit, value)).collect();
    let links: &Links = &core::array::from_fn(|n| AtomicPtr::new(idle[n].rx().as_ptr()));
    thread::scope(|scope| {
        let _stop = Stop(stop);
        for first in 0..3 {
            scope.spawn(move || {
                let me = queue.register().expect("one of 64");
                run_links(&me, links, stop, first, runs);
            });
        }
        let replace =
            |half| scope.spawn(move || replace_links(queue, links, idle, half, (rounds, runs)));
        for writer in [replace(0), replace(1)] {
            writer.join().expect("no writer fails");
        }
        // A thousand calls.
        await_more(runs, 20);
    });
    queue.reclaim();
    let after = queue.statistics();
    assert_eq!(after.waiting.spans, 0, "no executor is left to wait for");
    assert_eq!(after.reclaimed.spans, u64::from(rounds) * LINKS as u64);
    assert_eq!((after.refused, after.executors), (0, 0));
    assert_eq!(jit.statistics().spans, LINKS);
}

#[test]
fn executors_go_from_thread_to_thread() {
    let jit = trapping();
    let queue = queue(&jit, 8);
    let me = queue.register().expect("one of 64");
    queue.retire(place(&jit, 1)).expect("there is room");
    thread::scope(|scope| {
        let moved = scope.spawn(|| {
            let me = me;
            assert_eq!(queue.reclaim().spans, 0, "it had no quiescent point yet");
            me.quiescent();
            assert_eq!(queue.reclaim().spans, 1);
            me
        });
        let me = moved.join().expect("it returns");
        queue.retire(place(&jit, 2)).expect("there is room");
        assert_eq!(queue.reclaim().spans, 0, "it is waited for here too");
        drop(me);
    });
    assert_eq!(queue.reclaim().spans, 1);
}

/// Forks with the hooks of the queue and its allocator; in the child, runs `child` and exits with
/// its code. Returns the child's exit code, or 128 and its signal, as a shell does.
fn hooked_fork(queue: &Queue<'_>, own: &[&Executor<'_>], child: impl FnOnce() -> i32) -> i32 {
    let mut pid = 0;
    let fork = || {
        // SAFETY: the child makes system calls, runs code of its own and exits.
        pid = unsafe { libc::fork() };
        pid == 0
    };
    // SAFETY: fork clones the process once, and its child has one thread.
    let in_child = unsafe { around_fork(&[&queue.forking(own), *queue.allocator()], &[], fork) };
    if pid == 0 {
        let code = in_child.map_or(99, |_| child());
        // SAFETY: always allowed.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: status is a live int.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "{}", std::io::Error::last_os_error());
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    }
}

#[test]
fn a_child_waits_for_its_own_executors_only() {
    if skip_emulated("does not pass MADV_DONTFORK on") {
        return;
    }
    isolated!("a_child_waits_for_its_own_executors_only", || {
        let jit = trapping();
        let queue = queue(&jit, 8);
        let mine = queue.register().expect("one of 64");
        let others = [queue.register(), queue.register()];
        let span = place(&jit, 7);
        let code = span.rx().as_ptr();
        queue.retire(span).expect("there is room");
        let child = hooked_fork(&queue, &[&mine], || {
            // SAFETY: this thread's executor holds it back.
            let runs = queue.reclaim().spans == 0 && unsafe { call(code) } == 7;
            let before = queue.statistics();
            mine.quiescent();
            let released = queue.reclaim().spans;
            let gone = jit.query(code.addr()).is_none();
            let new = place(&jit, 8);
            let again = new.rx().as_ptr() == code && run(&new) == 8;
            let retired = queue.retire(new).is_ok() && queue.reclaim().spans == 0;
            i32::from(!runs)
                | i32::from((before.executors, before.online) != (1, 1)) << 1
                | i32::from(released != 1 || !gone) << 2
                | i32::from(!again) << 3
                | i32::from(!retired) << 4
        });
        assert_eq!(
            child, 0,
            "1: not held back, 2: others, 4: kept, 8: not reused, 16: retire"
        );
        mine.quiescent();
        assert_eq!(queue.reclaim().spans, 0, "the parent has three");
        // SAFETY: it waits.
        assert_eq!(unsafe { call(code) }, 7);
        drop(others);
        assert_eq!(queue.reclaim().spans, 1);
    });
}

#[test]
fn children_of_busy_threads_can_retire() {
    if skip_emulated("does not pass MADV_DONTFORK on") {
        return;
    }
    isolated!("children_of_busy_threads_can_retire", || {
        let jit = trapping();
        let queue = &queue(&jit, 16);
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = Stop(stop);
            for thread in 0..3 {
                let jit = &jit;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let me = queue.register().expect("one of 64");
                        let span = place(jit, thread);
                        // Who waits for room keeps no other thread waiting.
                        me.offline();
                        retire(queue, span);
                        me.online();
                        queue.reclaim();
                        thread::yield_now();
                    }
                });
            }
            for n in 0..300 {
                let child = hooked_fork(queue, &[], || {
                    let before = queue.statistics();
                    let all = queue.reclaim().spans == before.waiting.spans;
                    let left = queue.statistics().waiting.spans == 0;
                    let fits = (0..16).all(|value| queue.retire(place(&jit, value)).is_ok());
                    let executors = (0..64).map_while(|_| queue.register().ok());
                    let executors: [_; 64] = core::array::from_fn({
                        let mut executors = executors;
                        move |_| executors.next()
                    });
                    let slots = executors.iter().all(Option::is_some);
                    i32::from(before.executors != 0)
                        | i32::from(!all || !left) << 1
                        | i32::from(!fits) << 2
                        | i32::from(!slots) << 3
                });
                assert_eq!(
                    child, 0,
                    "fork {n}: 1: executors, 2: kept, 4: full, 8: slots"
                );
            }
        });
        queue.reclaim();
        assert_eq!(jit.statistics().spans, 0);
    });
}
