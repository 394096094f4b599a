//! `--gdb PORT`: the guest under a debugger, by gdb's remote protocol.
//!
//! The guest is interpreted then. Each of its threads comes here before it runs guest code
//! (`enter`), and waits here as long as the debugger has the program; a thread in a system call
//! that waits may stay there, since it comes here when it returns. A breakpoint is an address at
//! which the interpreter reads `ebreak` in place of what memory has, so that no memory is changed.
//!
//! `serve` talks to the debugger in a thread of its own, `target` does what the debugger asks for,
//! and `signal` has its numbers of signals.

mod serve;
mod signal;
mod target;

pub(crate) use serve::begin;

use crate::{
    access::Identity,
    interpret::{Code, Fault, Hart, Trap, decode_at, step},
    machine::{End, Machine, Thread},
    signals::{self, Raised},
    space::Space,
    sys,
};
use serve::Event;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering, mpsc::Sender,
    },
};

/// `c.ebreak`.
const EBREAK: u32 = 0x9002;

/// The debugger; there is one at most.
static DEBUGGER: OnceLock<Debugger> = OnceLock::new();

/// Returns the debugger, if there is one.
pub(crate) fn debugger() -> Option<&'static Debugger> {
    DEBUGGER.get()
}

/// What the threads of the guest and the one that serves the debugger share.
pub(crate) struct Debugger {
    machine: &'static Machine,
    state: Mutex<State>,
    changed: Condvar,
    events: Sender<Event>,
}

#[derive(Default)]
struct State {
    /// Whether the debugger has the program, so that no thread may run.
    stopped: bool,
    /// Whether the debugger has gone, for good.
    gone: bool,
    breakpoints: Arc<BTreeSet<u32>>,
    threads: BTreeMap<u32, Known>,
    /// What the debugger is still to be told.
    reports: VecDeque<Report>,
}

/// A thread of the guest, as the debugger sees it.
struct Known {
    /// Registers, which are the thread's unless it is running.
    hart: Hart,
    place: Place,
    /// What the thread is to do when it waits here no more.
    order: Order,
}

/// Where a thread is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Running,
    /// In a system call that may take long; it changes registers when it returns.
    Calling,
    /// Here, with registers that the debugger may change.
    Waiting,
}

#[derive(Clone, Copy, Default)]
struct Order {
    run: bool,
    /// To come back after one instruction, and whether that was run.
    step: bool,
    stepped: bool,
    /// A signal that the debugger passes on.
    signal: Option<u8>,
}

/// Why a thread stopped the program.
#[derive(Clone, Copy)]
enum Why {
    Step,
    Breakpoint,
    Signal(u8),
    End(End),
}

#[derive(Clone, Copy)]
struct Report {
    tid: u32,
    why: Why,
}

/// Code with breakpoints.
struct Marked<'a> {
    space: &'a Space,
    breakpoints: &'a BTreeSet<u32>,
}

impl Code for Marked<'_> {
    fn fetch(&self, pc: u32) -> Result<u32, Fault> {
        let bits = self.space.fetch(pc)?;
        Ok(if self.breakpoints.contains(&pc) {
            EBREAK
        } else {
            bits
        })
    }
}

impl State {
    fn known(&mut self, thread: &Thread) -> &mut Known {
        let run = !self.stopped;
        self.threads
            .entry(thread.peer.tid)
            .or_insert_with(|| Known {
                hart: thread.hart.clone(),
                place: Place::Running,
                order: Order {
                    run,
                    ..Order::default()
                },
            })
    }
}

impl Debugger {
    fn new(machine: &'static Machine, events: Sender<Event>) -> Self {
        Self {
            machine,
            state: Mutex::new(State {
                stopped: true,
                ..State::default()
            }),
            changed: Condvar::new(),
            events,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all threads wait, and the debugger hear why.
    fn halt(&self, state: &mut State, report: Option<Report>) {
        state.stopped = true;
        for known in state.threads.values_mut() {
            known.order = Order {
                signal: known.order.signal,
                ..Order::default()
            };
        }
        self.machine.each_peer(|peer| peer.interrupt());
        if let Some(report) = report {
            state.reports.push_back(report);
            // Without a thread that serves it the debugger has gone.
            let _ = self.events.send(Event::Report);
        }
    }

    /// Lets a thread wait until the debugger says otherwise; returns what it is to do.
    fn stay(&self, thread: &mut Thread, why: Option<Why>) -> Order {
        let tid = thread.peer.tid;
        let mut state = self.lock();
        state.known(thread);
        match why {
            // Another thread was first. The breakpoint is met again.
            Some(Why::Step | Why::Breakpoint) if state.stopped => {}
            Some(why) if !state.gone => self.halt_for(&mut state, Report { tid, why }),
            _ => {}
        }
        loop {
            let gone = state.gone;
            let known = state.known(thread);
            if known.order.run || gone {
                if known.place == Place::Waiting {
                    thread.hart = known.hart.clone();
                }
                known.place = Place::Running;
                let order = known.order;
                known.order.signal = None;
                return order;
            }
            if known.place != Place::Waiting {
                known.place = Place::Waiting;
                known.hart = thread.hart.clone();
                self.changed.notify_all();
            }
            state = self.wait(state);
        }
    }

    fn halt_for(&self, state: &mut State, report: Report) {
        if state.stopped {
            // It is told when the debugger lets the program go on.
            state.reports.push_back(report);
        } else {
            self.halt(state, Some(report));
        }
    }

    /// Runs guest code until something is to be done for the guest, as the debugger wants it.
    pub(crate) fn enter(&self, thread: &mut Thread) -> Trap {
        loop {
            let stepped = self.lock().known(thread).order.stepped;
            let order = self.stay(thread, stepped.then_some(Why::Step));
            if let Some(signal) = order.signal {
                let bit = signals::bit(signal);
                thread.injected |= bit;
                thread.peer.pending.fetch_or(bit, Ordering::AcqRel);
                return Trap::Interrupted;
            }
            let Machine {
                space, generation, ..
            } = self.machine;
            if order.step {
                self.lock().known(thread).order.stepped = true;
                let pc = thread.hart.pc;
                let done = decode_at(space, pc)
                    .and_then(|inst| step(&mut thread.hart, &Identity, &inst, pc));
                return match done {
                    Ok(next) => {
                        thread.hart.pc = next;
                        Trap::Interrupted
                    }
                    Err(trap) => trap,
                };
            }
            let breakpoints = self.lock().breakpoints.clone();
            let marked = Marked {
                space,
                breakpoints: &breakpoints,
            };
            let trap = thread.interpreter.run(
                &mut thread.hart,
                (&Identity, &marked),
                &thread.cpu.interrupt,
                generation,
            );
            if trap != Trap::Ebreak || !breakpoints.contains(&thread.hart.pc) {
                return trap;
            }
            self.stay(thread, Some(Why::Breakpoint));
        }
    }

    /// Says that a thread is in a system call that may take long, or has returned from it.
    pub(crate) fn calls(&self, thread: &Thread, begins: bool) {
        let mut state = self.lock();
        let known = state.known(thread);
        known.hart = thread.hart.clone();
        known.place = if begins {
            Place::Calling
        } else {
            Place::Running
        };
        self.changed.notify_all();
    }

    /// Says that a thread is no more.
    pub(crate) fn forget(&self, tid: u32) {
        self.lock().threads.remove(&tid);
        self.changed.notify_all();
    }

    /// Says how the program ends, and returns when the debugger has been told.
    pub(crate) fn ended(&self, end: End) {
        let tid = sys::thread();
        let mut state = self.lock();
        if let Some(known) = state.threads.get_mut(&tid) {
            known.place = Place::Calling;
        }
        if !state.gone {
            let why = Why::End(end);
            self.halt_for(&mut state, Report { tid, why });
        }
        while !state.gone {
            state = self.wait(state);
        }
    }

    /// Lets the program run without the debugger.
    fn leave(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.stopped = false;
        state.breakpoints = Arc::default();
        self.machine.generation.fetch_add(1, Ordering::AcqRel);
        for known in state.threads.values_mut() {
            known.order.run = true;
            known.order.step = false;
        }
        self.changed.notify_all();
    }
}

impl Thread {
    /// Asks the debugger what is to become of a signal, if there is one.
    pub(crate) fn debugged(&mut self, raised: Raised) -> Option<Raised> {
        let bit = signals::bit(raised.signal);
        let Some(debugger) = debugger().filter(|_| self.injected & bit == 0) else {
            self.injected &= !bit;
            return Some(raised);
        };
        if debugger.lock().gone {
            return Some(raised);
        }
        let order = debugger.stay(self, Some(Why::Signal(raised.signal)));
        match order.signal {
            Some(signal) if signal == raised.signal => Some(raised),
            Some(signal) => Some(Raised::sent(signal)),
            None if debugger.lock().gone => Some(raised),
            None => None,
        }
    }
}
