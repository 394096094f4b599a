//! A guest program: what its threads share, and the loop that each of them runs.

use crate::{
    access::{Identity, Second},
    cli::Options,
    code::{Code, Cpu, Runner},
    gdb,
    host::Host,
    interpret::{Fault, Hart, Interpreter, Kind, Trap},
    signals::{Actions, Raised},
    space::{Content, Space},
    sys,
    syscalls::{self, Flow, files::Files},
    thunks,
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{
    error::Error,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};
use hostmem::OsLock;
use spin::Once;

/// A lock around what threads share.
pub(crate) type Mutex<T> = lock_api::Mutex<OsLock, T>;
pub(crate) type MutexGuard<'a, T> = lock_api::MutexGuard<'a, OsLock, T>;

/// What the threads of a guest share.
pub(crate) struct Machine {
    pub(crate) options: Options,
    pub(crate) host: Host,
    pub(crate) space: Space,
    pub(crate) files: Files,
    pub(crate) actions: Mutex<Actions>,
    /// What runs code, unless it is interpreted.
    pub(crate) code: Option<Code>,
    /// Moves when decoded instructions may be no more what memory has.
    pub(crate) generation: AtomicU64,
    /// Where handlers of the guest return to.
    pub(crate) trampoline: u32,
    pub(crate) counts: Counts,
    peers: Mutex<Vec<Arc<Peer>>>,
}

/// What `--stats` prints.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) interpreted: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) thunks: AtomicU64,
    pub(crate) signals: AtomicU64,
}

/// The machine; there is one in a process, whose low addresses it has.
static MACHINE: Once<Machine> = Once::new();

/// Returns the machine, once it is there. For handlers of signals.
pub(crate) fn machine() -> Option<&'static Machine> {
    MACHINE.get()
}

/// What other threads see of a thread.
pub(crate) struct Peer {
    pub(crate) tid: u32,
    /// Signals that wait for this thread, a bit each.
    pub(crate) pending: AtomicU64,
    cpu: Arc<Cpu>,
}

impl Peer {
    /// Makes the thread leave guest code soon, and any system call that blocks.
    pub(crate) fn interrupt(&self) {
        self.cpu.interrupt.store(1, Ordering::Release);
    }
}

/// Locks what threads share; none of them panics while it holds it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Machine {
    pub(crate) fn install(
        options: Options,
        host: Host,
        space: Space,
        files: Files,
        code: Option<Code>,
        trampoline: u32,
    ) -> &'static Self {
        MACHINE.call_once(|| Self {
            options,
            host,
            space,
            files,
            actions: Mutex::new(Actions::new()),
            code,
            generation: AtomicU64::new(0),
            trampoline,
            counts: Counts::default(),
            peers: Mutex::new(Vec::new()),
        })
    }

    /// Calls `with` for every thread.
    pub(crate) fn each_peer(&self, mut with: impl FnMut(&Peer)) {
        for peer in lock(&self.peers).iter() {
            with(peer);
        }
    }

    /// Finds a thread.
    pub(crate) fn peer(&self, tid: u32) -> Option<Arc<Peer>> {
        let peers = lock(&self.peers);
        peers.iter().find(|peer| peer.tid == tid).cloned()
    }

    /// Forgets code of guest addresses, since what lies there has changed or gone.
    pub(crate) fn invalidate(&self, range: hostmem::page::AddressRange) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let Some(code) = &self.code {
            code.invalidate(range);
        }
    }

    /// Forgets code of pages that the guest can write to: what `fence.i` asks for.
    pub(crate) fn invalidate_writable(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let Some(code) = &self.code {
            code.invalidate_where(|page| {
                let found = self.space.query(page);
                found.is_none_or(|(_, mapping)| mapping.protection.write)
            });
        }
    }
}

/// How a thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The thread alone, with a status.
    Thread(i32),
    /// The program.
    Program(i32),
    /// The program, by a signal that it has no handler for.
    Killed(u8),
}

/// A thread of the guest.
pub(crate) struct Thread {
    pub(crate) machine: &'static Machine,
    pub(crate) peer: Arc<Peer>,
    pub(crate) cpu: Arc<Cpu>,
    pub(crate) hart: Hart,
    /// Signals that are blocked, a bit each.
    pub(crate) mask: u64,
    /// What `rt_sigsuspend` has to restore.
    pub(crate) suspended: Option<u64>,
    /// The stack for signal handlers: start and length; none where the length is zero.
    pub(crate) signal_stack: (u32, u32),
    /// Where to store zero, and whom to wake, when the thread ends.
    pub(crate) clear_at_end: u32,
    /// Signals that a debugger passes on, a bit each: it is not to be asked again.
    pub(crate) injected: u64,
    pub(crate) interpreter: Interpreter,
    /// Runs translated code; without it, instructions are interpreted.
    pub(crate) runner: Option<Runner>,
}

impl Thread {
    /// Makes a thread of the guest, to be run by the calling thread of the host.
    ///
    /// # Errors
    ///
    /// Where there are too many threads, and without memory.
    pub(crate) fn new(machine: &'static Machine, hart: Hart) -> Result<Self, Box<dyn Error>> {
        crate::faults::prepare_thread(machine.host.region)?;
        let cpu = Arc::new(Cpu::new());
        let code = machine.code.as_ref();
        let runner = code.map(|code| code.runner(cpu.clone())).transpose()?;
        let peer = Arc::new(Peer {
            tid: sys::thread(),
            pending: AtomicU64::new(0),
            cpu: cpu.clone(),
        });
        lock(&machine.peers).push(peer.clone());
        Ok(Self {
            machine,
            peer,
            cpu,
            hart,
            mask: 0,
            suspended: None,
            signal_stack: (0, 0),
            clear_at_end: 0,
            injected: 0,
            interpreter: Interpreter::new(),
            runner,
        })
    }

    /// Runs the thread to its end.
    pub(crate) fn run(&mut self) -> End {
        loop {
            let trap = self.enter();
            let end = match trap {
                Trap::Ecall => {
                    self.hart.pc = self.hart.pc.wrapping_add(4);
                    self.call()
                }
                Trap::FenceI => {
                    self.machine.invalidate_writable();
                    self.hart.pc = self.hart.pc.wrapping_add(4);
                    None
                }
                Trap::Thunk(number) => match thunks::call(self, number) {
                    Ok(()) => {
                        self.hart.pc = self.hart.pc.wrapping_add(4);
                        None
                    }
                    Err(raised) => self.raise(raised),
                },
                Trap::Ebreak => self.raise(Raised::BREAKPOINT.at(self.hart.pc)),
                Trap::Illegal => self.raise(Raised::ILLEGAL.at(self.hart.pc)),
                Trap::Misaligned(addr) => self.raise(Raised::MISALIGNED.at(addr)),
                Trap::Fault(fault) => self.fault(fault),
                Trap::Interrupted => None,
            };
            if let Some(end) = end.or_else(|| self.take_pending()) {
                return end;
            }
        }
    }

    /// Runs guest code until it traps.
    fn enter(&mut self) -> Trap {
        if let Some(debugger) = gdb::debugger() {
            return debugger.enter(self);
        }
        let Machine {
            space, generation, ..
        } = self.machine;
        if let Some(runner) = &self.runner {
            return runner.run(&mut self.hart, space);
        }
        let (hart, interrupt) = (&mut self.hart, &self.cpu.interrupt);
        if space.has_second_view() {
            let memory = (&Second, space);
            return self.interpreter.run(hart, memory, interrupt, generation);
        }
        let memory = (&Identity, space);
        self.interpreter.run(hart, memory, interrupt, generation)
    }

    fn call(&mut self) -> Option<End> {
        self.machine.counts.calls.fetch_add(1, Ordering::Relaxed);
        match syscalls::call(self) {
            Flow::Return(value) => self.hart.x[10] = value,
            Flow::Resume => {}
            Flow::End(end) => return Some(end),
        }
        None
    }

    fn fault(&mut self, fault: Fault) -> Option<End> {
        let raised = match self.machine.space.query(fault.addr) {
            Some((_, mapping)) if mapping.content != Content::Host => Raised::ACCESS,
            _ => Raised::UNMAPPED,
        };
        if fault.kind == Kind::Fetch {
            self.hart.pc = fault.addr & !1;
        }
        self.raise(raised.at(fault.addr))
    }

    /// Says that the thread has no more to do with what made it leave guest code.
    pub(crate) fn clear_interrupt(&self) {
        let interrupt: &AtomicU32 = &self.cpu.interrupt;
        interrupt.store(0, Ordering::SeqCst);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let executed = self.interpreter.executed;
        let counts = &self.machine.counts;
        counts.interpreted.fetch_add(executed, Ordering::Relaxed);
        lock(&self.machine.peers).retain(|peer| !Arc::ptr_eq(peer, &self.peer));
        if let Some(debugger) = gdb::debugger() {
            debugger.forget(self.peer.tid);
        }
    }
}
