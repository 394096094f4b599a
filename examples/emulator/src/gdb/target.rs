//! What the debugger asks for: registers, memory, threads, breakpoints, and how to go on.

use super::{Debugger, Place, Report, Why, serve::Event, signal};
use crate::{access::Identity, machine::End, space::PAGE};
use gdbstub::{
    common::{Signal, Tid},
    stub::MultiThreadStopReason,
    target::{
        Target, TargetError, TargetResult,
        ext::{
            base::{
                BaseOps,
                multithread::{
                    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps,
                    MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps,
                    MultiThreadSingleStep, MultiThreadSingleStepOps,
                },
            },
            breakpoints::{Breakpoints, BreakpointsOps, SwBreakpoint, SwBreakpointOps},
        },
    },
};
use gdbstub_arch::riscv::{Riscv32, reg::RiscvCoreRegs};
use hostmem::page::AddressRange;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, sync::atomic::Ordering};

/// The guest, as the debugger has it.
pub(super) struct Guest {
    debugger: &'static Debugger,
    /// How threads are to go on: whether for one instruction, and with which signal.
    actions: BTreeMap<u32, (bool, Option<u8>)>,
    /// Whether only those may run.
    locked: bool,
}

impl Guest {
    pub(super) const fn new(debugger: &'static Debugger) -> Self {
        Self {
            debugger,
            actions: BTreeMap::new(),
            locked: false,
        }
    }

    fn note(&mut self, tid: Tid, step: bool, signal: Option<Signal>) {
        let signal = signal.and_then(signal::from_gdb);
        self.actions.insert(number(tid), (step, signal));
    }
}

/// Returns the guest's number of a thread.
fn number(tid: Tid) -> u32 {
    u32::try_from(tid.get()).unwrap_or(0)
}

/// Returns the debugger's.
fn tid(number: u32) -> Tid {
    Tid::new(number as usize).unwrap_or(Tid::MIN)
}

/// Returns how a report is told.
pub(super) fn reason(report: Report) -> MultiThreadStopReason<u32> {
    let tid = tid(report.tid);
    match report.why {
        Why::Step => MultiThreadStopReason::SignalWithThread {
            tid,
            signal: Signal::SIGTRAP,
        },
        Why::Breakpoint => MultiThreadStopReason::SwBreak(tid),
        Why::Signal(number) => MultiThreadStopReason::SignalWithThread {
            tid,
            signal: signal::to_gdb(number),
        },
        Why::End(End::Killed(number)) => MultiThreadStopReason::Terminated(signal::to_gdb(number)),
        Why::End(End::Thread(status) | End::Program(status)) => {
            MultiThreadStopReason::Exited(status.to_le_bytes()[0])
        }
    }
}

impl Target for Guest {
    type Arch = Riscv32;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, Riscv32, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Guest {
    fn read_registers(&mut self, to: &mut RiscvCoreRegs<u32>, tid: Tid) -> TargetResult<(), Self> {
        let state = self.debugger.lock();
        let known = state.threads.get(&number(tid));
        let known = known.ok_or(TargetError::NonFatal)?;
        to.x = known.hart.x;
        to.pc = known.hart.pc;
        Ok(())
    }

    fn write_registers(&mut self, from: &RiscvCoreRegs<u32>, tid: Tid) -> TargetResult<(), Self> {
        let mut state = self.debugger.lock();
        let known = state.threads.get_mut(&number(tid));
        // What a call returns would be lost, or overwrite what is written here.
        let known = known.filter(|known| known.place == Place::Waiting);
        let hart = &mut known.ok_or(TargetError::NonFatal)?.hart;
        hart.x = from.x;
        hart.x[0] = 0;
        hart.pc = from.pc & !1;
        Ok(())
    }

    fn read_addrs(&mut self, start: u32, to: &mut [u8], _: Tid) -> TargetResult<usize, Self> {
        let mut done = 0;
        // By pages, so that what is there is read up to its last byte.
        while done < to.len() {
            let Some(addr) = u32::try_from(done).ok().and_then(|n| start.checked_add(n)) else {
                break;
            };
            let len = ((PAGE - addr % PAGE) as usize).min(to.len() - done);
            if Identity.read(addr, &mut to[done..done + len]).is_err() {
                break;
            }
            done += len;
        }
        if done == 0 && !to.is_empty() {
            return Err(TargetError::NonFatal);
        }
        Ok(done)
    }

    fn write_addrs(&mut self, start: u32, from: &[u8], _: Tid) -> TargetResult<(), Self> {
        let written = Identity.write(start, from);
        if let Some(range) = AddressRange::from_len(start as usize, from.len()) {
            self.debugger.machine.invalidate(range);
        }
        written.map_err(|_| TargetError::NonFatal)
    }

    fn list_active_threads(&mut self, is_active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        for number in self.debugger.lock().threads.keys() {
            is_active(tid(*number));
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadResume for Guest {
    fn resume(&mut self) -> Result<(), Infallible> {
        let mut state = self.debugger.lock();
        let more = !state.reports.is_empty();
        for (number, known) in &mut state.threads {
            let action = self.actions.get(number);
            if let Some((_, Some(signal))) = action {
                known.order.signal = Some(*signal);
            }
            known.order.run = !more && (action.is_some() || !self.locked);
            known.order.step = action.is_some_and(|(step, _)| *step);
            known.order.stepped = false;
        }
        if more {
            // Others had stopped at the same time.
            let _ = self.debugger.events.send(Event::Report);
        } else {
            state.stopped = false;
            self.debugger.changed.notify_all();
        }
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.actions.clear();
        self.locked = false;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.note(tid, false, signal);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Guest {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.note(tid, true, signal);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Guest {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.locked = true;
        Ok(())
    }
}

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl Guest {
    fn change(&self, with: impl FnOnce(&mut std::collections::BTreeSet<u32>) -> bool) -> bool {
        let done = with(Arc::make_mut(&mut self.debugger.lock().breakpoints));
        // Decoded instructions have breakpoints in them.
        let generation = &self.debugger.machine.generation;
        generation.fetch_add(1, Ordering::AcqRel);
        done
    }
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, addr: u32, _: usize) -> TargetResult<bool, Self> {
        self.change(|breakpoints| breakpoints.insert(addr));
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, addr: u32, _: usize) -> TargetResult<bool, Self> {
        Ok(self.change(|breakpoints| breakpoints.remove(&addr)))
    }
}
