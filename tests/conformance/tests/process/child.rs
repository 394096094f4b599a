//! Forked children: they end whatever happens, and somebody waits for them.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Seconds until a child that hangs is killed: many times what a slow emulated machine takes.
const DEADLINE: libc::c_uint = 120;

/// Exit code of a child whose assertions hold.
pub(crate) const PASSED: i32 = 0;

/// Exit code of a child that panicked.
const PANICKED: i32 = 101;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
}

/// A child, which is killed if it was not waited for.
#[derive(Debug)]
pub(crate) struct Child {
    /// None once it is waited for.
    process: Option<libc::pid_t>,
}

/// Forks without any hooks; `None` is the child, which has to [`finish`].
pub(crate) fn fork() -> Option<Child> {
    // SAFETY: the process has no thread beside the caller, or the child keeps from the heap and
    // from locks, by the rules of this module.
    match unsafe { libc::fork() } {
        -1 => panic!("cannot fork: {}", io::Error::last_os_error()),
        0 => {
            // SAFETY: the default action: the signal kills.
            unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
            // SAFETY: always allowed.
            unsafe { libc::alarm(DEADLINE) };
            None
        }
        process => Some(Child {
            process: Some(process),
        }),
    }
}

/// Runs assertions, and ends the process with the verdict.
pub(crate) fn finish(run: impl FnOnce()) -> ! {
    // A panic must not get into the frames that are the parent's.
    let passed = catch_unwind(AssertUnwindSafe(run)).is_ok();
    // SAFETY: always allowed; nothing of the parent's is run or flushed.
    unsafe { libc::_exit(if passed { PASSED } else { PANICKED }) }
}

/// Runs assertions in a child.
pub(crate) fn spawn(run: impl FnOnce()) -> Child {
    fork().unwrap_or_else(|| finish(run))
}

/// Runs assertions in a child, and waits for it.
#[track_caller]
pub(crate) fn check(run: impl FnOnce()) {
    spawn(run).expect_success();
}

impl Child {
    /// Waits for the end.
    pub(crate) fn wait(mut self) -> End {
        self.reap().expect("it was not waited for before")
    }

    /// Waits, and asserts that all was well in the child.
    #[track_caller]
    pub(crate) fn expect_success(self) {
        match self.wait() {
            End::Code(PASSED) => {}
            End::Code(PANICKED) => panic!("the child panicked"),
            End::Code(code) => panic!("the child failed with code {code}"),
            End::Signal(libc::SIGALRM) => panic!("the child hung"),
            End::Signal(signal) => panic!("signal {signal} killed the child"),
        }
    }

    fn reap(&mut self) -> Option<End> {
        let process = self.process.take()?;
        let mut status = 0;
        loop {
            // SAFETY: status is a live int.
            if unsafe { libc::waitpid(process, &raw mut status, 0) } == process {
                break;
            }
            let error = io::Error::last_os_error();
            let interrupted = error.kind() == io::ErrorKind::Interrupted;
            assert!(interrupted, "cannot wait: {error}");
        }
        Some(if libc::WIFEXITED(status) {
            End::Code(libc::WEXITSTATUS(status))
        } else {
            End::Signal(libc::WTERMSIG(status))
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            // SAFETY: a child of this process that was not waited for, so the number is its own.
            unsafe { libc::kill(process, libc::SIGKILL) };
            self.reap();
        }
    }
}

/// One end of a line between parent and child, who take turns.
pub(crate) struct Turns {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Turns {
    /// Makes both ends: one for the parent, and one for the child's closure to own, so that the
    /// parent hears of the child's end.
    pub(crate) fn new() -> (Self, Self) {
        let pipe = || io::pipe().expect("a pipe can be had");
        let ((from_child, to_parent), (from_parent, to_child)) = (pipe(), pipe());
        let parent = Self {
            reader: from_child,
            writer: to_child,
        };
        let child = Self {
            reader: from_parent,
            writer: to_parent,
        };
        (parent, child)
    }

    /// Gives the turn to the other side.
    #[track_caller]
    pub(crate) fn give(&mut self) {
        self.writer.write_all(&[0]).expect("the other side waits");
    }

    /// Waits until the other side gives the turn.
    #[track_caller]
    pub(crate) fn wait(&mut self) {
        let read = self.reader.read_exact(&mut [0]);
        read.expect("the other side gives the turn before it ends");
    }
}
