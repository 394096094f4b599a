//! Which threads are traced, to which process each belongs, and in which address space it runs.

use std::collections::{HashMap, HashSet};
use std::fs;

use super::event::{Arguments, Event, Space};
use crate::maps;

/// Compares address spaces (kcmp(2)).
const KCMP_VM: i64 = 1;
/// A flag of personality(2).
const READ_IMPLIES_EXEC: u64 = 0x040_0000;

/// A system call that was entered.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) number: libc::c_long,
    pub(super) args: Arguments,
}

/// What the tracer waits for from a thread.
#[derive(Clone, Copy)]
pub(super) enum State {
    /// Its next event.
    Running,
    /// Nothing: it is stopped at the entry of a call until its turn comes.
    Queued(Entry),
    /// The return from a call.
    Inside(Entry),
}

/// Describes a traced thread.
pub(super) struct Thread {
    pub(super) process: libc::pid_t,
    pub(super) space: Space,
    pub(super) state: State,
    /// It descends from the exec of the command, or has come through it.
    pub(super) recorded: bool,
}

/// Holds all traced threads.
pub(super) struct Threads {
    known: HashMap<libc::pid_t, Thread>,
    /// New threads that stopped before the thread that made them told of them. They wait for it.
    strays: HashSet<libc::pid_t>,
    spaces: u64,
}

impl Threads {
    /// Knows `main` alone, which has not executed the command yet.
    pub(super) fn new(main: libc::pid_t) -> Self {
        let mut threads = Self {
            known: HashMap::new(),
            strays: HashSet::new(),
            spaces: 0,
        };
        let space = threads.new_space();
        let thread = Thread {
            process: main,
            space,
            state: State::Running,
            recorded: false,
        };
        threads.known.insert(main, thread);
        threads
    }

    pub(super) fn get(&self, tid: libc::pid_t) -> Option<&Thread> {
        self.known.get(&tid)
    }

    pub(super) fn get_mut(&mut self, tid: libc::pid_t) -> Option<&mut Thread> {
        self.known.get_mut(&tid)
    }

    /// Keeps a new thread waiting.
    pub(super) fn strand(&mut self, tid: libc::pid_t) {
        self.strays.insert(tid);
    }

    /// Takes in the new thread that `parent` told of, and says whether it waits to run.
    pub(super) fn adopt(
        &mut self,
        parent: libc::pid_t,
        child: libc::pid_t,
        by_vfork: bool,
        events: &mut Vec<Event>,
    ) -> bool {
        let waits = self.strays.remove(&child);
        // Without an entry in /proc it is reaped: it was killed before its parent could tell.
        let (Some(made_by), Some(ids)) = (self.known.get(&parent), Ids::of(child)) else {
            return waits;
        };
        if self.known.contains_key(&child) {
            return waits;
        }
        let (from, recorded) = (made_by.space, made_by.recorded);
        // Where the kernel cannot compare: threads share, vfork shares, and all else copies.
        let guess = by_vfork || ids.process == made_by.process;
        let space = if same_memory(parent, child).unwrap_or(guess) {
            from
        } else {
            let space = self.new_space();
            let event = Event::Fork {
                pid: ids.process,
                from: Some(from),
                space,
            };
            events.extend(recorded.then_some(event));
            space
        };
        let thread = Thread {
            process: ids.process,
            space,
            state: State::Running,
            recorded,
        };
        self.known.insert(child, thread);
        waits
    }

    /// Takes in those whose parent was killed before it could tell of them, and returns them.
    pub(super) fn adopt_orphans(&mut self, events: &mut Vec<Event>) -> Vec<libc::pid_t> {
        let strays: Vec<_> = self.strays.iter().copied().collect();
        let mut adopted = Vec::new();
        for child in strays {
            let Some(ids) = Ids::of(child) else { continue };
            let is_known = |pid| self.known.values().any(|thread| thread.process == pid);
            if is_known(ids.process) || is_known(ids.parent) {
                continue;
            }
            let space = self.new_space();
            events.push(Event::Fork {
                pid: ids.process,
                from: None,
                space,
            });
            let process = ids.process;
            let thread = Thread {
                process,
                space,
                state: State::Running,
                recorded: true,
            };
            self.known.insert(child, thread);
            self.strays.remove(&child);
            adopted.push(child);
        }
        adopted
    }

    /// Notes that `former`, as the only thread of its process, goes on as `leader` with a new
    /// program.
    pub(super) fn exec(
        &mut self,
        leader: libc::pid_t,
        former: libc::pid_t,
        events: &mut Vec<Event>,
    ) {
        let state = self
            .known
            .get(&former)
            .map_or(State::Running, |thread| thread.state);
        if former != leader {
            self.remove(former, events);
        }
        self.remove(leader, events);
        let space = self.new_space();
        let thread = Thread {
            process: leader,
            space,
            state,
            recorded: true,
        };
        self.known.insert(leader, thread);
        // Empty if it was killed meanwhile.
        let mappings = maps::of(leader).unwrap_or_default();
        let read_implies_exec = personality(leader).is_some_and(|p| p & READ_IMPLIES_EXEC != 0);
        events.push(Event::Exec {
            pid: leader,
            space,
            mappings,
            read_implies_exec,
        });
    }

    /// Forgets a thread, and tells if it was the last in its address space.
    pub(super) fn remove(&mut self, tid: libc::pid_t, events: &mut Vec<Event>) {
        self.strays.remove(&tid);
        let Some(Thread {
            space,
            recorded: true,
            ..
        }) = self.known.remove(&tid)
        else {
            return;
        };
        if self.known.values().all(|other| other.space != space) {
            events.push(Event::End { space });
        }
    }

    fn new_space(&mut self) -> Space {
        self.spaces += 1;
        Space(self.spaces)
    }
}

/// The ids of a thread, as `/proc` tells them in the tracer's pid namespace.
struct Ids {
    process: libc::pid_t,
    parent: libc::pid_t,
}

impl Ids {
    fn of(tid: libc::pid_t) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
        let field = |name| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse().ok()
        };
        Some(Self {
            process: field("Tgid:")?,
            parent: field("PPid:")?,
        })
    }
}

/// Compares the address spaces of two threads; none if the kernel cannot.
fn same_memory(one: libc::pid_t, other: libc::pid_t) -> Option<bool> {
    let (one, other) = (i64::from(one), i64::from(other));
    // SAFETY: this comparison takes no pointer.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0_i64, 0_i64) } {
        -1 => None,
        order => Some(order == 0),
    }
}

/// Reads the personality of a process.
fn personality(pid: libc::pid_t) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/personality")).ok()?;
    u64::from_str_radix(text.trim(), 16).ok()
}
