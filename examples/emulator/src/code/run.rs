//! Threads that run translated code, and what brings them out of it.

use super::{
    Code, Cpu,
    translate::{HOLDS, INTERRUPTED, STEP},
};
use crate::{
    access::{Identity, Second},
    interpret::{Hart, Trap, UNRESERVED, decode_at, step},
    machine::lock,
    space::Space,
};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hostmem::jit::Executor;

/// What a thread needs to run code.
pub(crate) struct Runner {
    pub(super) executor: Executor<'static>,
    pub(super) cpu: Arc<Cpu>,
    pub(super) code: &'static Code,
}

impl Runner {
    /// Runs guest code until something is to be done for the guest.
    pub(crate) fn run(&self, hart: &mut Hart, space: &Space) -> Trap {
        let registers = self.cpu.registers.get();
        // SAFETY: the thread's own registers, which no code runs on now.
        unsafe { registers.write(hart.clone()) };
        let trap = self.run_on(registers, space);
        // SAFETY: as above.
        *hart = unsafe { (*registers).clone() };
        hart.reserved = UNRESERVED;
        trap
    }

    fn run_on(&self, registers: *mut Hart, space: &Space) -> Trap {
        let mut exit = STEP;
        // SAFETY: the thread's own registers, which no code runs on now.
        let mut key = unsafe { (*registers).pc };
        loop {
            self.executor.quiescent();
            if self.cpu.interrupt.load(Ordering::Acquire) != 0 {
                return Trap::Interrupted;
            }
            let code = match self.code.find(self, space, key, exit) {
                Ok(code) => code,
                Err(trap) => return trap,
            };
            let code = core::ptr::with_exposed_provenance(code);
            // SAFETY: a block's code, which is not released before this thread is quiescent again,
            // on registers that are part of a thread's state.
            exit = unsafe { (self.code.enter)(registers, code) };
            // SAFETY: as above; the code has returned.
            let hart = unsafe { &mut *registers };
            key = hart.pc;
            hart.pc = key & !HOLDS;
            match exit {
                INTERRUPTED => return Trap::Interrupted,
                STEP => {
                    if let Err(trap) = interpret(hart, space) {
                        return trap;
                    }
                    let holds = hart.reserved != UNRESERVED;
                    key = hart.pc | if holds { HOLDS } else { 0 };
                }
                _ => {}
            }
        }
    }

    /// Says that the thread runs no code until [`Runner::online`].
    pub(crate) fn offline(&self) {
        self.executor.offline();
    }

    pub(crate) fn online(&self) {
        self.executor.online();
    }
}

/// Interprets the next instruction; where accesses may fault that the guest may make, some more of
/// them, since a fault costs as much.
fn interpret(hart: &mut Hart, space: &Space) -> Result<(), Trap> {
    /// How many instructions.
    const MORE: usize = 100;
    if !space.has_second_view() {
        let inst = decode_at(space, hart.pc)?;
        hart.pc = step(hart, &Identity, &inst, hart.pc)?;
        return Ok(());
    }
    for _ in 0..MORE {
        let inst = decode_at(space, hart.pc)?;
        hart.pc = step(hart, &Second, &inst, hart.pc)?;
    }
    Ok(())
}

impl Drop for Runner {
    fn drop(&mut self) {
        lock(&self.code.cpus).retain(|cpu| !Arc::ptr_eq(cpu, &self.cpu));
    }
}
