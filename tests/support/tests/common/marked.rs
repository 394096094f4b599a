//! Processes to trace, and mappings to recognise them by.

use std::process::Command;

use hostmem_test_support::isolate::or_skip;
use hostmem_test_support::trace::{Call, Plan, TraceReport, Tracer};

use crate::common::{Map, PAGE, RW};

/// Lengths that nothing but these tests maps.
pub(crate) const MARK: usize = 1237 * PAGE;

pub(crate) fn mark(nth: usize) -> Map {
    Map::anonymous(MARK + nth * PAGE, RW).expect("memory is left")
}

/// Returns the mark of an mmap that has one.
pub(crate) fn nth_mark(call: &Call) -> Option<usize> {
    let excess = usize::try_from(call.args[1]).ok()?.checked_sub(MARK)?;
    Some(excess / PAGE).filter(|&nth| call.number == libc::SYS_mmap && nth < 100)
}

/// Returns the marked mmaps with their marks.
pub(crate) fn marks(report: &TraceReport) -> Vec<(usize, &Call)> {
    report
        .calls()
        .filter_map(|call| Some((nth_mark(call)?, call)))
        .collect()
}

pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

pub(crate) fn trace(command: Command, plan: Plan) -> Option<TraceReport> {
    or_skip(Tracer::run(command, plan))
}

/// Forks, runs `body` in the child, and returns the child's pid.
pub(crate) fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the child runs what a test gave it and exits; the tests fork before they make
    // threads, or make system calls only.
    match unsafe { libc::fork() } {
        0 => {
            body();
            // SAFETY: _exit has no precondition.
            unsafe { libc::_exit(0) }
        }
        child => child,
    }
}

/// Waits for a change of a child and returns its status.
pub(crate) fn wait(child: i32, options: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a live, writable int.
    let waited = unsafe { libc::waitpid(child, &raw mut status, options | libc::__WALL) };
    assert_eq!(waited, child, "{}", std::io::Error::last_os_error());
    status
}
