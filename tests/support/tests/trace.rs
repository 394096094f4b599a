//! The tracer sees every mapping call.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/marked.rs"]
mod marked;
#[path = "common/traced.rs"]
mod traced;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use common::{Map, RW, errno, memfd};
use hostmem_test_support::harden::{memfd_noexec, noexec_mounts};
use hostmem_test_support::isolate::{check, is_isolated, isolated, isolated_command, or_skip};
use hostmem_test_support::seccomp::refuse;
use hostmem_test_support::trace::{Event, Plan, Tracer};
use marked::{fork, mark, marks, shell, trace, wait};
use traced::traced;

#[test]
fn calls_are_recorded_with_arguments_and_results() {
    let name = "calls_are_recorded_with_arguments_and_results";
    let report = traced(name, Plan::new(), || {
        let map = mark(1);
        map.protect(libc::PROT_READ).expect("rights can be dropped");
        map.advise(libc::MADV_DONTFORK);
        map.unmap();
        drop(memfd(0));
        assert_eq!(errno(Map::anonymous(0, RW)), Some(libc::EINVAL));
    });
    let Some(report) = report else { return };
    let [(1, map)] = marks(&report)[..] else {
        panic!("{:?}", marks(&report))
    };
    assert_eq!(map.args[2], u64::from(RW.cast_unsigned()));
    assert_eq!(
        (map.errno(), map.injected, map.name()),
        (None, false, "mmap")
    );
    let start = map.result.cast_unsigned();
    let at = |number| report.calls_of(number).find(|call| call.args[0] == start);
    for number in [libc::SYS_mprotect, libc::SYS_madvise, libc::SYS_munmap] {
        let call = at(number).unwrap_or_else(|| panic!("call {number} is missing"));
        assert_eq!((call.args[1], call.result), (map.args[1], 0));
    }
    assert_eq!(report.calls_of(libc::SYS_memfd_create).count(), 1);
    assert!(
        report
            .calls()
            .any(|call| call.errno() == Some(libc::EINVAL))
    );
    assert!(matches!(report.events[0], Event::Exec { ref mappings, .. } if !mappings.is_empty()));
}

#[test]
fn the_dynamic_loader_is_recorded() {
    let Some(report) = trace(shell("exit 7"), Plan::new()) else {
        return;
    };
    assert_eq!(report.output.status.code(), Some(7));
    assert!(!report.timed_out);
    assert!(
        report.calls_of(libc::SYS_mmap).count() > 0,
        "libc is mapped"
    );
}

#[test]
fn threads_and_children_are_followed() {
    let report = traced("threads_and_children_are_followed", Plan::new(), || {
        let child = fork(|| mark(1).write(1));
        assert_eq!(wait(child, 0), 0);
        let thread = thread::spawn(|| mark(2).start.addr());
        assert!(thread.join().is_ok());
        assert!(
            shell("exit 0")
                .status()
                .is_ok_and(|status| status.success())
        );
        mark(3);
    });
    let Some(report) = report else { return };
    let marks = marks(&report);
    let [(1, in_child), (2, in_thread), (3, in_main)] = marks[..] else {
        panic!("{marks:?}")
    };
    assert_ne!(in_child.pid, in_main.pid);
    assert_ne!(in_child.space, in_main.space);
    assert_eq!(
        (in_thread.pid, in_thread.space),
        (in_main.pid, in_main.space)
    );
    assert_ne!(in_thread.tid, in_main.pid);
    let execs = report
        .events
        .iter()
        .filter(|event| matches!(event, Event::Exec { .. }));
    assert_eq!(execs.count(), 2, "the test binary, and the shell");
}

#[test]
fn an_exec_by_a_thread_is_survived() {
    let name = "an_exec_by_a_thread_is_survived";
    if is_isolated(name) {
        let idle = || {
            thread::spawn(|| {
                loop {
                    mark(1).unmap();
                }
            })
        };
        let _idle = [idle(), idle()];
        let error = thread::spawn(|| shell("exit 5").exec()).join();
        panic!("exec returned: {error:?}");
    }
    let plan = Plan::new().observe(libc::SYS_execve);
    let Some(report) = trace(isolated_command(name), plan) else {
        return;
    };
    assert_eq!(report.output.status.code(), Some(5), "{:?}", report.output);
    let execs = report
        .calls_of(libc::SYS_execve)
        .filter(|call| call.result == 0);
    assert_eq!(
        execs.count(),
        1,
        "the return of the thread's exec is recorded"
    );
}

#[test]
fn long_output_on_both_pipes_is_captured() {
    let script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; echo end";
    let Some(report) = trace(shell(script), Plan::new()) else {
        return;
    };
    assert!(report.output.status.success());
    assert_eq!(
        (report.output.stdout.len(), report.output.stderr.len()),
        (1_000_004, 1_000_000)
    );
}

#[test]
#[should_panic(expected = "cannot start \"/no/such/program\"")]
fn a_missing_program_panics() {
    let _ = Tracer::run(Command::new("/no/such/program"), Plan::new());
}

#[test]
fn a_call_that_a_filter_refuses_is_not_recorded() {
    let name = "a_call_that_a_filter_refuses_is_not_recorded";
    let report = traced(name, Plan::new(), || {
        refuse(&[libc::SYS_memfd_create], libc::ENOSYS).expect("the tracer set a filter before");
        assert_eq!(errno(memfd(0)), Some(libc::ENOSYS));
        mark(1);
    });
    let Some(report) = report else { return };
    assert_eq!(report.calls_of(libc::SYS_memfd_create).count(), 0);
    assert_eq!(marks(&report).len(), 1, "calls that it permits still are");
}

#[test]
fn a_command_in_namespaces_is_traced() {
    let name = "a_command_in_namespaces_is_traced";
    if is_isolated(name) {
        isolated(name, || {
            assert_eq!(std::process::id(), 2);
            assert_eq!(errno(memfd(0x10)), Some(libc::EACCES));
            assert_eq!(wait(fork(|| mark(1).unmap()), 0), 0);
            mark(2);
        });
        return;
    }
    let mut command = isolated_command(name);
    let restricted =
        memfd_noexec(&mut command).and_then(|()| noexec_mounts(&mut command, &["/tmp"]));
    if or_skip(restricted).is_none() {
        return;
    }
    let Some(report) = trace(command, Plan::new()) else {
        return;
    };
    check(name, &report.output);
    assert_eq!(
        marks(&report).iter().map(|mark| mark.0).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(
        report.calls().all(|call| call.pid > 2),
        "pids are those of the caller's namespace"
    );
    let memfd = report
        .calls_of(libc::SYS_memfd_create)
        .next()
        .expect("it was called");
    assert_eq!(memfd.errno(), Some(libc::EACCES));
}

#[test]
fn where_tracing_is_refused_it_is_unavailable() {
    traced(
        "where_tracing_is_refused_it_is_unavailable",
        Plan::new(),
        || {
            let refused = Tracer::run(shell("exit 0"), Plan::new()).map(|report| report.output);
            let reason = refused
                .expect_err("the child is traced already")
                .to_string();
            assert!(reason.contains("Operation not permitted"), "{reason}");
        },
    );
}
