//! Traced processes live, map, fork, stop and die as they would untraced.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/marked.rs"]
mod marked;
#[path = "common/traced.rs"]
mod traced;

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Instant;

use hostmem_test_support::harden::memfd_noexec;
use hostmem_test_support::isolate::or_skip;
use hostmem_test_support::trace::{Call, Event, Plan, TraceReport};
use marked::{fork, mark, marks, nth_mark, shell, trace, wait};
use traced::traced;

static RECEIVED: AtomicU32 = AtomicU32::new(0);

extern "C" fn receive(_: i32) {
    RECEIVED.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn signals_arrive() {
    let report = traced("signals_arrive", Plan::new(), || {
        let handler: extern "C" fn(i32) = receive;
        // SAFETY: the handler only adds to an atomic.
        unsafe { libc::signal(libc::SIGUSR1, handler as usize) };
        for sent in 1..=20 {
            // SAFETY: raise takes no pointer, and the handler is set.
            unsafe { libc::raise(libc::SIGUSR1) };
            assert_eq!(RECEIVED.load(Ordering::SeqCst), sent);
            mark(1).unmap();
        }
        let child = fork(|| {
            // SAFETY: raise takes no pointer; the child dies of it.
            unsafe { libc::raise(libc::SIGTERM) };
        });
        assert_eq!(libc::WTERMSIG(wait(child, 0)), libc::SIGTERM);
    });
    assert!(report.is_none_or(|report| marks(&report).len() == 20));
}

#[test]
fn job_control_works() {
    let report = traced("job_control_works", Plan::new(), || {
        let child = fork(|| {
            // SAFETY: raise takes no pointer.
            unsafe { libc::raise(libc::SIGSTOP) };
            mark(1);
        });
        let status = wait(child, libc::WUNTRACED);
        assert!(libc::WIFSTOPPED(status));
        assert_eq!(libc::WSTOPSIG(status), libc::SIGSTOP);
        thread::sleep(Duration::from_millis(50));
        // SAFETY: kill takes no pointer; the child is not reaped yet.
        unsafe { libc::kill(child, libc::SIGCONT) };
        assert_eq!(wait(child, 0), 0);
    });
    assert!(report.is_none_or(|report| marks(&report).len() == 1));
}

#[test]
fn a_fatal_signal_is_reported() {
    let Some(report) = trace(shell("kill -9 $$"), Plan::new()) else {
        return;
    };
    assert_eq!(report.output.status.signal(), Some(9));
}

#[test]
fn the_timeout_kills_all_descendants() {
    let start = Instant::now();
    let plan = Plan::new().timeout(Duration::from_millis(300));
    let Some(report) = trace(shell("sleep 1000 & sleep 1000"), plan) else {
        return;
    };
    assert!(report.timed_out);
    assert_eq!(report.output.status.signal(), Some(9));
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_descendant_that_outlives_the_command_is_awaited() {
    let Some(report) = trace(shell("(sleep 0.2; echo late) & exit 3"), Plan::new()) else {
        return;
    };
    assert_eq!(report.output.status.code(), Some(3));
    assert_eq!(report.output.stdout, b"late\n");
}

#[test]
fn a_time_out_in_namespaces_ends_the_helpers_too() {
    let mut command = shell("sleep 1000 & sleep 1000");
    if or_skip(memfd_noexec(&mut command)).is_none() {
        return;
    }
    let plan = Plan::new().timeout(Duration::from_millis(300));
    let Some(report) = trace(command, plan) else {
        return;
    };
    assert!(report.timed_out);
    assert_eq!(report.output.status.signal(), Some(9));
}

/// Makes a process with `clone` that no handler of `fork` knows of, and whose end sends no signal.
fn bare_clone() -> i32 {
    let (none, null) = (0_u64, ptr::null_mut::<u8>());
    // SAFETY: without CLONE_VM the child runs on a copy of this stack, and exits at once.
    let child = unsafe { libc::syscall(libc::SYS_clone, none, null, null, null, none) };
    if child == 0 {
        // SAFETY: _exit has no precondition.
        unsafe { libc::_exit(0) };
    }
    i32::try_from(child).expect("a pid is an int")
}

/// Replays the marked mmaps of one address space and their munmaps: where the record is out of
/// order, memory appears to be mapped twice.
fn assert_in_order(report: &TraceReport, in_space: &Call) {
    let mut live = BTreeMap::new();
    let mut maps = 0;
    for call in report.calls().filter(|call| call.space == in_space.space) {
        match call.number {
            libc::SYS_mmap if nth_mark(call).is_some() => {
                let start = call.result.cast_unsigned();
                let end = start + call.args[1];
                let before = live.range(..end).next_back();
                assert!(
                    before.is_none_or(|(_, &e)| e <= start),
                    "{start:#x} is mapped twice"
                );
                live.insert(start, end);
                maps += 1;
            }
            libc::SYS_munmap => drop(live.remove(&call.args[0])),
            _ => {}
        }
    }
    assert_eq!(maps, 8 * 200);
}

#[test]
fn threads_that_map_while_others_fork_are_recorded_in_order() {
    let name = "threads_that_map_while_others_fork_are_recorded_in_order";
    let report = traced(name, Plan::new(), || {
        thread::scope(|scope| {
            for nth in 0..8 {
                scope.spawn(move || (0..200).for_each(|_| mark(nth).unmap()));
            }
            for _ in 0..200 {
                assert_eq!(wait(bare_clone(), 0), 0);
            }
        });
    });
    let Some(report) = report else { return };
    let forks: BTreeSet<_> = report
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Fork {
                space,
                from: Some(_),
                ..
            } => Some(*space),
            _ => None,
        })
        .collect();
    let ends = report
        .events
        .iter()
        .filter(|event| matches!(event, Event::End { space } if forks.contains(space)));
    assert_eq!((forks.len(), ends.count()), (200, 200));
    assert_in_order(&report, marks(&report)[0].1);
}

#[test]
fn a_parent_killed_while_it_forks_leaves_no_child_stopped() {
    let name = "a_parent_killed_while_it_forks_leaves_no_child_stopped";
    let plan = Plan::new().timeout(Duration::from_secs(60));
    let report = traced(name, plan, || {
        for nth in 0..200 {
            let parent = fork(|| {
                loop {
                    wait(bare_clone(), 0);
                }
            });
            thread::sleep(Duration::from_micros(500 + 7 * nth));
            // SAFETY: kill takes no pointer; the child is not reaped yet.
            unsafe { libc::kill(parent, libc::SIGKILL) };
            assert_eq!(libc::WTERMSIG(wait(parent, 0)), libc::SIGKILL);
        }
    });
    assert!(report.is_none_or(|report| !report.timed_out));
}
