//! Functions that are replaced while other threads call them.

use crate::common::{
    CODE_LEN, bare_fork, code_returning, exit, skip_emulated,
    threads::{Stop, await_more},
    wait,
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use hostmem::{
    FuncCell, Function, JitConfig, JitRuntime, RetireConfig, RetireQueue,
    fork::around_fork,
    jit::{Fill, JitError},
};
use std::thread;

type Answer = extern "C" fn() -> u32;
type Cell<'a> = FuncCell<'a, Answer>;

/// What is released becomes trapping instructions, so that to run it cannot go unnoticed.
fn runtime() -> JitRuntime {
    JitRuntime::new(JitConfig::new().fill(Fill::Trap)).expect("the configuration is valid")
}

fn queue(runtime: &JitRuntime, waiting: usize) -> RetireQueue<'_> {
    let config = RetireConfig::new().waiting(waiting);
    RetireQueue::new(runtime.allocator(), config).expect("memory")
}

fn function(runtime: &JitRuntime, returns: u32) -> Function {
    runtime.add(&code_returning(returns)).expect("memory")
}

fn cell<'a>(queue: &'a RetireQueue<'a>, first: Function) -> Cell<'a> {
    // SAFETY: the tests make functions of this type, which do no harm.
    unsafe { FuncCell::new(queue, first) }.expect("it is this allocator's")
}

fn spans(runtime: &JitRuntime) -> usize {
    runtime.allocator().statistics().spans
}

#[test]
fn threads_call_what_is_replaced() {
    const LAST: u32 = 2000;
    let runtime = runtime();
    let queue = &queue(&runtime, 4096);
    let cell = &cell(queue, function(&runtime, 0));
    let (called, is_done) = (&[const { AtomicU64::new(0) }; 4], &AtomicBool::new(false));
    thread::scope(|scope| {
        let stop = Stop(is_done);
        let work = |n: usize| {
            let mut me = queue.register().expect("one of 64");
            let (mut rounds, mut before) = (0, 0);
            loop {
                let is_last = is_done.load(Ordering::Relaxed);
                fence(Ordering::Acquire);
                // Two calls of one function, and another thread's of the same one.
                let found = cell.get(&mut me).expect("it is of this queue");
                let answer = found.call();
                assert_eq!(found.call(), answer);
                assert!(answer >= before, "{answer} after {before}");
                if is_last {
                    return answer;
                }
                before = answer;
                called[n].fetch_add(1, Ordering::Relaxed);
                rounds += 1;
                if n == 0 && rounds % 7 == 0 {
                    me.offline();
                } else {
                    me.quiescent();
                }
            }
        };
        let threads = [0, 1, 2, 3].map(|n| scope.spawn(move || work(n)));
        for n in 1..=LAST {
            // SAFETY: as in `cell`.
            unsafe { cell.replace(function(&runtime, n)) }.expect("there is room");
            queue.reclaim();
            // Most of them are replaced while all threads call.
            for calls in called {
                await_more(calls, 0);
            }
        }
        fence(Ordering::Release);
        drop(stop);
        for thread in threads {
            assert_eq!(thread.join().expect("it found no fault"), LAST);
        }
    });
    queue.reclaim();
    assert_eq!(spans(&runtime), 1);
}

#[test]
fn what_a_call_may_reach_is_kept_and_the_rest_goes() {
    let runtime = runtime();
    let queue = &queue(&runtime, 8);
    let cell = cell(queue, function(&runtime, 1));
    let (mut me, mut other) = (
        queue.register().expect("one"),
        queue.register().expect("two"),
    );
    let found = cell.get(&mut me).expect("of this queue");
    // SAFETY: as in `cell`.
    unsafe { cell.replace(function(&runtime, 2)) }.expect("there is room");
    other.quiescent();
    assert_eq!(queue.reclaim().spans, 0);
    assert_eq!(found.call(), 1);
    assert_eq!(cell.get(&mut other).expect("of this queue").call(), 2);
    me.quiescent();
    other.quiescent();
    assert_eq!(queue.reclaim().spans, 1);
    // One that is offline holds nothing back, and comes online to call.
    me.offline();
    // SAFETY: as in `cell`.
    unsafe { cell.replace(function(&runtime, 3)) }.expect("there is room");
    let found = cell.get(&mut me).expect("of this queue");
    assert_eq!(found.call(), 3);
    // SAFETY: as in `cell`.
    unsafe { cell.replace(function(&runtime, 4)) }.expect("there is room");
    other.quiescent();
    // What was retired while it was offline, or before.
    let _ = queue.reclaim();
    assert_eq!(found.call(), 3);
    drop((me, other));
    queue.reclaim();
    assert_eq!(spans(&runtime), 1);
    // What is in the cell goes with it.
    drop(cell);
    assert_eq!(spans(&runtime), 0);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (runtime, others) = (runtime(), runtime());
    let queue = &queue(&runtime, 8);
    let other_queue = self::queue(&runtime, 8);
    // SAFETY: as in `cell`.
    let refused = unsafe { Cell::new(queue, function(&others, 1)) };
    let refused = refused.expect_err("another allocator's");
    assert_eq!(refused.error, JitError::NotOwned);
    let foreign = refused.function;
    let cell = cell(queue, function(&runtime, 2));
    // SAFETY: as in `cell`.
    let refused = unsafe { cell.replace(foreign) }.expect_err("another allocator's");
    assert_eq!(refused.error, JitError::NotOwned);
    others.release(refused.function).expect("it came back");
    let mut stranger = other_queue.register().expect("one of 64");
    assert_eq!(
        cell.get(&mut stranger).expect_err("another queue's"),
        JitError::NotOwned
    );
    let mut me = queue.register().expect("one of 64");
    assert_eq!(cell.get(&mut me).expect("of this queue").call(), 2);
}

#[test]
fn a_full_queue_gives_the_old_function_back() {
    let runtime = runtime();
    let queue = &queue(&runtime, 1);
    let cell = cell(queue, function(&runtime, 0));
    let mut me = queue.register().expect("one of 64");
    let mut kept = Vec::new();
    for n in 1..10 {
        // SAFETY: as in `cell`.
        if let Err(refused) = unsafe { cell.replace(function(&runtime, n)) } {
            assert_eq!(refused.error, JitError::QueueFull);
            kept.push(refused.function);
        }
        // The new one is there in either case.
        assert_eq!(cell.get(&mut me).expect("of this queue").call(), n);
    }
    assert!(!kept.is_empty());
    for old in kept {
        me.quiescent();
        queue.reclaim();
        queue.retire(old.into_span()).expect("there is room again");
    }
    me.quiescent();
    queue.reclaim();
    assert_eq!(spans(&runtime), 1);
}

#[test]
fn a_child_calls_by_the_executors_that_came_along() {
    if skip_emulated("knows no MADV_DONTFORK") {
        return;
    }
    let runtime = runtime();
    let queue = &queue(&runtime, 8);
    let cell = cell(queue, function(&runtime, 7));
    let (mut mine, mut lost) = (
        queue.register().expect("one"),
        queue.register().expect("two"),
    );
    assert_eq!(CODE_LEN, code_returning(7).len());
    let mut pid = 0;
    let fork = || {
        pid = bare_fork();
        pid == 0
    };
    let along = [&mine];
    let hooks = queue.forking(&along);
    // SAFETY: it forks once, and the child has one thread.
    let in_child = unsafe { around_fork(&[&hooks, runtime.allocator()], &[], fork) };
    drop(hooks);
    if in_child.expect("memory") {
        let answer = cell.get(&mut mine).map(|found| found.call());
        let refused = cell.get(&mut lost).map(|found| found.call());
        exit(i32::from(
            answer != Ok(7) || refused != Err(JitError::NotOwned),
        ));
    }
    assert_eq!(wait(pid), 0);
    assert_eq!(cell.get(&mut lost).map(|found| found.call()), Ok(7));
}
