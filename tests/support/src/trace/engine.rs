//! The loop that waits for stops, records them, and lets the tracee run on.
//!
//! ```text
//! filter's stop ─┬─ refused by the plan: skip ───────────────────────────────┬─> run on
//!                ├─ changes mappings while another does: queue ─┐            │
//!                └──────────────────────── let it in <──────────┴─ return: record
//! ```

use std::collections::VecDeque;
use std::io;

use super::cpu;
use super::event::{Call, Event};
use super::plan::Plan;
use super::ptrace::{self, Until};
use super::threads::{Entry, State, Threads};
use super::watch::Tracees;
use crate::maps::{self, Mapping};

/// Tells the stop of a system call from a SIGTRAP (`PTRACE_O_TRACESYSGOOD`).
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// What the engine found out.
pub(super) struct Record {
    pub(super) main: libc::pid_t,
    pub(super) events: Vec<Event>,
    /// The wait status of the main process.
    pub(super) status: Option<i32>,
}

/// Holds the state of a trace.
pub(super) struct Engine {
    plan: Plan,
    tracees: Tracees,
    threads: Threads,
    /// The thread inside a call that changes mappings.
    changing: Option<libc::pid_t>,
    /// Threads that wait to be next.
    queue: VecDeque<libc::pid_t>,
    record: Record,
}

impl Engine {
    /// Traces `main`, to which the calling thread has attached.
    pub(super) fn new(main: libc::pid_t, plan: Plan, tracees: Tracees) -> Self {
        let record = Record {
            main,
            events: Vec::new(),
            status: None,
        };
        let (threads, queue) = (Threads::new(main), VecDeque::new());
        Self {
            plan,
            tracees,
            threads,
            changing: None,
            queue,
            record,
        }
    }

    /// Runs until no tracee is left.
    pub(super) fn run(mut self) -> io::Result<Record> {
        while let Some((tid, status)) = self.tracees.next(self.unborn())? {
            if libc::WIFSTOPPED(status) {
                // None says that the thread was killed in the meantime; its end will be reported.
                let _ = self.stopped(tid, libc::WSTOPSIG(status), status >> 16);
            } else {
                self.ended(tid, status);
            }
            for orphan in self.threads.adopt_orphans(&mut self.record.events) {
                let _ = self.resume(orphan, 0);
            }
        }
        Ok(self.record)
    }

    /// Returns the main process if it has not executed the command yet.
    fn unborn(&self) -> Option<libc::pid_t> {
        let main = self.record.main;
        self.threads
            .get(main)
            .filter(|thread| !thread.recorded)
            .map(|_| main)
    }

    fn stopped(&mut self, tid: libc::pid_t, signal: i32, event: i32) -> Option<()> {
        match event {
            0 if signal == SYSCALL_STOP => self.returned(tid),
            0 => self.resume(tid, signal),
            libc::PTRACE_EVENT_SECCOMP => self.entered(tid),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_CLONE => self.made_child(tid, false),
            libc::PTRACE_EVENT_VFORK => self.made_child(tid, true),
            libc::PTRACE_EVENT_EXEC => self.executed(tid),
            libc::PTRACE_EVENT_STOP => self.halted(tid, signal),
            _ => self.resume(tid, 0),
        }
    }

    /// Handles a call at its entry.
    fn entered(&mut self, tid: libc::pid_t) -> Option<()> {
        let (number, args) = ptrace::entered(tid)?;
        let Some(thread) = self.threads.get_mut(tid).filter(|thread| thread.recorded) else {
            return self.resume(tid, 0);
        };
        let entry = Entry { number, args };
        if let Some(errno) = self.plan.refuses(number, &args) {
            cpu::skip(tid, errno)?;
            self.push(tid, entry, -i64::from(errno), true);
            return self.resume(tid, 0);
        }
        thread.state = State::Queued(entry);
        if changes_mappings(number) && self.changing.is_some() {
            self.queue.push_back(tid);
            return Some(());
        }
        self.let_in(tid)
    }

    /// Lets a queued call happen.
    fn let_in(&mut self, tid: libc::pid_t) -> Option<()> {
        let thread = self.threads.get_mut(tid)?;
        let State::Queued(entry) = thread.state else {
            return None;
        };
        thread.state = State::Inside(entry);
        if changes_mappings(entry.number) {
            self.changing = Some(tid);
        }
        self.resume(tid, 0)
    }

    /// Handles a call at its return.
    fn returned(&mut self, tid: libc::pid_t) -> Option<()> {
        let result = ptrace::returned(tid)?;
        let thread = self.threads.get_mut(tid)?;
        if let State::Inside(entry) = thread.state {
            thread.state = State::Running;
            self.push(tid, entry, result, false);
            self.release(tid);
        }
        self.resume(tid, 0)
    }

    /// Records a call.
    fn push(&mut self, tid: libc::pid_t, entry: Entry, result: i64, injected: bool) {
        let Some(thread) = self.threads.get(tid) else {
            return;
        };
        let (pid, space, Entry { number, args }) = (thread.process, thread.space, entry);
        let mut call = Call {
            pid,
            tid,
            space,
            number,
            args,
            result,
            injected,
            left: Vec::new(),
        };
        call.left = left_behind(&call);
        self.record.events.push(Event::Call(call));
    }

    /// Notes that a thread is in no call and in no queue any more, and lets in the next.
    fn release(&mut self, tid: libc::pid_t) {
        self.queue.retain(|&queued| queued != tid);
        if self.changing == Some(tid) {
            self.changing = None;
            if let Some(next) = self.queue.pop_front() {
                // If it was killed, its reported end will let in the one after it.
                let _ = self.let_in(next);
            }
        }
    }

    fn made_child(&mut self, parent: libc::pid_t, by_vfork: bool) -> Option<()> {
        let child = ptrace::event_message(parent)?;
        if self
            .threads
            .adopt(parent, child, by_vfork, &mut self.record.events)
        {
            // If it was killed, its end will be reported; the parent runs on regardless.
            let _ = self.resume(child, 0);
        }
        self.resume(parent, 0)
    }

    fn executed(&mut self, leader: libc::pid_t) -> Option<()> {
        let former = ptrace::event_message(leader)?;
        self.release(leader);
        if former != leader {
            self.release(former);
            self.tracees.forget(former);
        }
        self.threads.exec(leader, former, &mut self.record.events);
        self.resume(leader, 0)
    }

    /// Handles the first stop of a new thread, and those of job control.
    fn halted(&mut self, tid: libc::pid_t, signal: i32) -> Option<()> {
        if self.threads.get(tid).is_none() {
            self.threads.strand(tid);
            return Some(());
        }
        match signal {
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                ptrace::resume(tid, Until::Continued, 0)
            }
            _ => self.resume(tid, 0),
        }
    }

    fn ended(&mut self, tid: libc::pid_t, status: i32) {
        if tid == self.record.main {
            self.record.status = Some(status);
        }
        self.threads.remove(tid, &mut self.record.events);
        self.release(tid);
    }

    fn resume(&self, tid: libc::pid_t, signal: i32) -> Option<()> {
        let inside = self
            .threads
            .get(tid)
            .is_some_and(|t| matches!(t.state, State::Inside(_)));
        ptrace::resume(
            tid,
            if inside { Until::Syscall } else { Until::Event },
            signal,
        )
    }
}

/// Says whether a call changes what is mapped or how, and so must be recorded in order.
fn changes_mappings(number: libc::c_long) -> bool {
    matches!(
        number,
        libc::SYS_mmap
            | libc::SYS_mprotect
            | libc::SYS_pkey_mprotect
            | libc::SYS_mremap
            | libc::SYS_munmap
            | libc::SYS_shmat
            | libc::SYS_shmdt
            | libc::SYS_remap_file_pages
    )
}

/// Reads the mappings that a call left behind where only `/proc` can tell.
fn left_behind(call: &Call) -> Vec<Mapping> {
    let (start, len) = match (call.number, call.errno()) {
        (libc::SYS_shmat, None) => (call.result.cast_unsigned(), 1),
        (libc::SYS_mprotect | libc::SYS_pkey_mprotect, Some(_)) if !call.injected => {
            (call.args[0], call.args[1])
        }
        _ => return Vec::new(),
    };
    let bound = |address| usize::try_from(address).unwrap_or(usize::MAX);
    let (start, end) = (bound(start), bound(start.saturating_add(len)));
    // Empty if the process was killed meanwhile.
    let mappings = maps::of(call.tid).unwrap_or_default();
    mappings
        .into_iter()
        .filter(|mapping| mapping.overlaps(start, end))
        .collect()
}
