//! Records every mapping call of a process and its descendants, and can make one of them fail.
//!
//! The tracer uses ptrace, so it also sees what a snapshot of `/proc/PID/maps` misses. A seccomp
//! filter stops the tracee at the calls of interest only; all others run at full speed. Calls
//! that change mappings are let through one at a time, over all threads and processes, so that the
//! order of the record is the order in which they took effect.
//!
//! A filter that the tracee [installs itself](crate::seccomp::refuse) takes precedence: what it
//! refuses is not recorded, for it did not happen. The tracer makes no record of 32-bit and x32
//! system calls: a process that makes one in the 32-bit ABI is killed by the filter.
//!
//! # Examples
//!
//! ```
//! use hostmem_test_support::isolate::or_skip;
//! use hostmem_test_support::trace::{Plan, Tracer, gained_exec, writable_and_executable};
//! use std::process::Command;
//!
//! if let Some(report) = or_skip(Tracer::run(Command::new("true"), Plan::new())) {
//!     assert!(report.output.status.success());
//!     assert!(report.calls_of(libc::SYS_mmap).count() > 0, "the dynamic loader maps");
//!     assert_eq!(writable_and_executable(&report.events), []);
//!     assert_eq!(gained_exec(&report.events), []);
//! }
//! ```

mod attach;
mod audit;
mod engine;
mod event;
mod plan;
mod ptrace;
mod replay;
mod threads;
mod watch;

#[cfg_attr(target_arch = "x86_64", path = "trace/cpu_x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "trace/cpu_aarch64.rs")]
mod cpu;

pub use audit::{Exposure, gained_exec, writable_and_executable};
pub use event::{Arguments, Call, Event, Space, name};
pub use plan::{Injection, MAPPING_CALLS, Plan};

use core::time::Duration;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};

use crate::Unavailable;
use engine::{Engine, Record};
use watch::Tracees;

/// How long to wait between attempts to kill tracees that fork while they are being killed.
const KILL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs commands under observation.
#[derive(Debug)]
pub struct Tracer;

/// Tells what a traced command did.
#[derive(Debug)]
pub struct TraceReport {
    /// What was observed, in the order in which it took effect.
    pub events: Vec<Event>,
    /// The exit status and the whole output of the command.
    pub output: Output,
    /// The time-out passed, and the command and its descendants were killed.
    pub timed_out: bool,
}

impl TraceReport {
    /// Iterates over the recorded system calls.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.events.iter().filter_map(|event| match event {
            Event::Call(call) => Some(call),
            _ => None,
        })
    }

    /// Iterates over the recorded system calls of one number.
    pub fn calls_of(&self, number: libc::c_long) -> impl Iterator<Item = &Call> {
        self.calls().filter(move |call| call.number == number)
    }
}

impl Tracer {
    /// Runs `command` to the end of its last descendant, and records from its first instruction on.
    ///
    /// Its input is empty; its output is captured. Restrictions of [`harden`](crate::harden) that
    /// the command already has apply; of a process in a new pid namespace the helpers outside it
    /// are not traced. Pids in the record are those of the caller's namespace.
    ///
    /// # Errors
    ///
    /// The user, or another tracer, or the kernel does not permit tracing.
    ///
    /// # Panics
    ///
    /// If the command cannot be started.
    pub fn run(mut command: Command, plan: Plan) -> Result<TraceReport, Unavailable> {
        let timeout = plan.timeout;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let refused = |e: io::Error| Unavailable::new("tracing with ptrace", e);
        let gate = attach::gate(&mut command, &plan).map_err(refused)?;
        let tracees = Tracees::default();
        let (done, result) = mpsc::channel();
        let tracer = {
            let tracees = tracees.clone();
            // The tracer's own thread: a process is traced by the thread that attached, which here
            // must also act while `spawn` waits for the command's exec.
            thread::spawn(move || {
                let record = attach::admit(gate).and_then(|main| {
                    main.map(|main| Engine::new(main, plan, tracees).run())
                        .transpose()
                });
                // The receiver is gone only if the caller panicked.
                let _ = done.send(record);
            })
        };
        let name = format!("{:?}", command.get_program());
        let spawned = command.spawn();
        // Closes the tracee's end of the gate: if it never came, the tracer waits no longer.
        drop(command);
        let child = match spawned {
            Ok(child) => child,
            Err(e) => {
                let record = result.recv();
                record
                    .unwrap_or_else(|_| panic!("the tracer panicked"))
                    .map_err(refused)?;
                panic!("cannot start {name}: {e}");
            }
        };
        let drains = Drains::start(child);
        let (record, timed_out) = attend(&result, &tracees, timeout);
        let record = record
            .map_err(refused)?
            .expect("a process that was spawned was attached to");
        tracer
            .join()
            .expect("the tracer sent its result, and did nothing after");
        Ok(TraceReport {
            output: drains.finish(&record),
            events: record.events,
            timed_out,
        })
    }
}

/// Waits for the tracer; kills the tracees when the time is up.
fn attend<T>(result: &Receiver<T>, tracees: &Tracees, timeout: Duration) -> (T, bool) {
    let mut wait = timeout;
    let mut timed_out = false;
    loop {
        match result.recv_timeout(wait) {
            Ok(record) => return (record, timed_out),
            Err(RecvTimeoutError::Timeout) => tracees.kill_all(),
            Err(RecvTimeoutError::Disconnected) => panic!("the tracer panicked"),
        }
        timed_out = true;
        wait = KILL_INTERVAL;
    }
}

/// Reads both pipes at once: a child that fills one while the other is read would never end.
struct Drains {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Drains {
    fn start(mut child: Child) -> Self {
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    fn finish(mut self, record: &Record) -> Output {
        // Where the tracer reaped the child, no status is left to wait for, and the pid is free;
        // where helpers of a namespace stand between, the child is theirs to relay.
        let main_is_child = self.child.id() == record.main.cast_unsigned();
        let status = match record.status {
            Some(raw) if main_is_child => ExitStatus::from_raw(raw),
            _ => self.child.wait().expect("the child was not waited for"),
        };
        let read = |drain: JoinHandle<_>| drain.join().expect("reading a pipe does not panic");
        Output {
            status,
            stdout: read(self.stdout),
            stderr: read(self.stderr),
        }
    }
}

/// Reads a pipe to its end in a thread.
fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until an error is the better part of the truth.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    })
}
