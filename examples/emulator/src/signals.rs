//! Signals of the guest: those that its own instructions raise, and those that are sent.
//!
//! A handler's frame is the one of Linux for RISC-V (`arch/riscv/kernel/signal.c` and its headers
//! say how it looks): a `siginfo` of 128 bytes, then a `ucontext`.

use crate::{
    access::Identity,
    arch::Context,
    interpret::Fault,
    machine::{End, Thread, lock, machine},
    sys::{self, say},
};
use alloc::{borrow::ToOwned, format};
use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) const SIGILL: u8 = 4;
pub(crate) const SIGTRAP: u8 = 5;
pub(crate) const SIGABRT: u8 = 6;
pub(crate) const SIGBUS: u8 = 7;
pub(crate) const SIGFPE: u8 = 8;
pub(crate) const SIGKILL: u8 = 9;
pub(crate) const SIGSEGV: u8 = 11;
const SIGCHLD: u8 = 17;
const SIGCONT: u8 = 18;
pub(crate) const SIGSTOP: u8 = 19;
const SIGURG: u8 = 23;
const SIGWINCH: u8 = 28;
/// The highest number.
pub(crate) const LAST: u8 = 64;

const SIG_DFL: u32 = 0;
const SIG_IGN: u32 = 1;
const SA_ONSTACK: u32 = 0x0800_0000;
const SA_RESTART: u32 = 0x1000_0000;
const SA_NODEFER: u32 = 0x4000_0000;
const SA_RESETHAND: u32 = 0x8000_0000;
pub(crate) const SS_ONSTACK: u32 = 1;
pub(crate) const SS_DISABLE: u32 = 2;
const SI_TKILL: i32 = -6;

/// The frame: where what is in it, and how long it is. It is aligned to 16 bytes.
const UCONTEXT: u32 = 128;
const STACK: u32 = UCONTEXT + 8;
const MASK: u32 = UCONTEXT + 20;
const REGISTERS: u32 = UCONTEXT + 160;
const FLOATS: u32 = REGISTERS + 128;
const FRAME: u32 = FLOATS + 528;

/// The code that handlers return to: `li a7, 139; ecall`.
pub(crate) const TRAMPOLINE: [u32; 2] = [0x08b0_0893, 0x0000_0073];

/// What is to be done at a signal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Action {
    pub(crate) handler: u32,
    pub(crate) flags: u32,
    pub(crate) mask: u64,
}

/// The actions of all signals.
#[derive(Debug)]
pub(crate) struct Actions([Action; LAST as usize + 1]);

impl Actions {
    pub(crate) fn new() -> Self {
        Self([Action::default(); LAST as usize + 1])
    }

    pub(crate) fn of(&mut self, signal: u8) -> Option<&mut Action> {
        self.0.get_mut(usize::from(signal))
    }
}

/// Returns the bit of a signal in a set.
pub(crate) const fn bit(signal: u8) -> u64 {
    1 << (signal.wrapping_sub(1) & 63)
}

/// A signal with what the guest is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raised {
    pub(crate) signal: u8,
    code: i32,
    addr: u32,
}

impl Raised {
    pub(crate) const UNMAPPED: Self = Self::new(SIGSEGV, 1);
    pub(crate) const ACCESS: Self = Self::new(SIGSEGV, 2);
    pub(crate) const MISALIGNED: Self = Self::new(SIGBUS, 1);
    pub(crate) const ILLEGAL: Self = Self::new(SIGILL, 1);
    pub(crate) const BREAKPOINT: Self = Self::new(SIGTRAP, 1);

    const fn new(signal: u8, code: i32) -> Self {
        Self {
            signal,
            code,
            addr: 0,
        }
    }

    /// A signal that a thread sent.
    pub(crate) const fn sent(signal: u8) -> Self {
        Self::new(signal, SI_TKILL)
    }

    pub(crate) const fn at(self, addr: u32) -> Self {
        Self { addr, ..self }
    }
}

/// Signals that were sent to the program, not to a thread, a bit each.
static SENT: AtomicU64 = AtomicU64::new(0);

/// Notes a signal that was sent to the program. May be called in a handler of signals.
pub(crate) fn send_to_program(signal: u8) {
    SENT.fetch_or(bit(signal), Ordering::AcqRel);
}

/// Notes a signal of the host's for the guest.
extern "C" fn on_host_signal(signal: i32, _: *const u8, _: *mut Context) {
    send_to_program(u8::try_from(signal).unwrap_or(0));
    if let Some(main) = crate::code::cpu::of_main() {
        main.interrupt.store(1, Ordering::Release);
    }
}

impl Thread {
    /// Raises a signal that an instruction of this thread caused: it goes to the guest's handler,
    /// or ends the program.
    pub(crate) fn raise(&mut self, raised: Raised) -> Option<End> {
        let raised = self.debugged(raised)?;
        let blocked = self.mask & bit(raised.signal) != 0;
        let handler = lock(&self.machine.actions)
            .of(raised.signal)
            .map_or(SIG_DFL, |action| action.handler);
        if blocked || handler == SIG_DFL || handler == SIG_IGN {
            self.report(raised);
            return Some(End::Killed(raised.signal));
        }
        self.deliver(raised)
    }

    /// Delivers what is pending and not blocked.
    pub(crate) fn take_pending(&mut self) -> Option<End> {
        // Before looking: a signal that comes in between interrupts again.
        self.clear_interrupt();
        let pending = self.peer.pending.load(Ordering::SeqCst) | SENT.load(Ordering::SeqCst);
        if pending & !self.mask == 0 {
            self.mask = self.suspended.take().unwrap_or(self.mask);
            return None;
        }
        for signal in 1..=LAST {
            if self.mask & bit(signal) != 0 {
                continue;
            }
            let own = self.peer.pending.fetch_and(!bit(signal), Ordering::AcqRel);
            let sent = SENT.fetch_and(!bit(signal), Ordering::AcqRel);
            if (own | sent) & bit(signal) != 0
                && let Some(raised) = self.debugged(Raised::sent(signal))
                && let Some(end) = self.deliver(raised)
            {
                return Some(end);
            }
        }
        self.mask = self.suspended.take().unwrap_or(self.mask);
        None
    }

    /// Says whether a signal waits that would be delivered.
    pub(crate) fn has_pending(&self) -> bool {
        let pending = self.peer.pending.load(Ordering::SeqCst) | SENT.load(Ordering::SeqCst);
        pending & !self.mask != 0
    }

    /// Says whether a call that a signal interrupted is to be made again: if it is handled that
    /// way.
    pub(crate) fn restarts(&self) -> bool {
        let pending = self.peer.pending.load(Ordering::Acquire) | SENT.load(Ordering::Acquire);
        let pending = pending & !self.mask;
        let mut actions = lock(&self.machine.actions);
        let restarts = |signal: u8| {
            let found = actions.of(signal).map(|action| action.flags & SA_RESTART);
            pending & bit(signal) == 0 || found.is_some_and(|flag| flag != 0)
        };
        pending != 0 && (1..=LAST).all(restarts)
    }

    fn deliver(&mut self, raised: Raised) -> Option<End> {
        let action = {
            let mut actions = lock(&self.machine.actions);
            let action = actions.of(raised.signal)?;
            let taken = *action;
            if taken.flags & SA_RESETHAND != 0 {
                action.handler = SIG_DFL;
            }
            taken
        };
        match action.handler {
            SIG_DFL => match raised.signal {
                SIGCHLD | SIGCONT | SIGURG | SIGWINCH => None,
                signal => Some(End::Killed(signal)),
            },
            SIG_IGN => None,
            handler => {
                self.machine.counts.signals.fetch_add(1, Ordering::Relaxed);
                match self.push_frame(raised, &action, handler) {
                    Ok(()) => None,
                    Err(_) => {
                        self.report(raised);
                        Some(End::Killed(SIGSEGV))
                    }
                }
            }
        }
    }

    /// Says whether the guest's stack is the one for handlers.
    pub(crate) fn is_on_signal_stack(&self) -> bool {
        let (start, len) = self.signal_stack;
        len != 0 && self.hart.x[2].wrapping_sub(start) <= len
    }

    fn push_frame(&mut self, raised: Raised, action: &Action, handler: u32) -> Result<(), Fault> {
        let (start, len) = self.signal_stack;
        let switches = action.flags & SA_ONSTACK != 0 && len != 0 && !self.is_on_signal_stack();
        let top = if switches {
            start.wrapping_add(len)
        } else {
            self.hart.x[2]
        };
        let frame = top.wrapping_sub(FRAME) & !15;
        let mut bytes = [0; FRAME as usize];
        let mut put = |at: u32, word: u32| {
            let at = at as usize;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        };
        put(0, raised.signal.into());
        put(8, raised.code.cast_unsigned());
        put(12, raised.addr);
        let (mask_low, mask_high) = halves(self.suspended.take().unwrap_or(self.mask));
        put(STACK, start);
        put(STACK + 4, if len == 0 { SS_DISABLE } else { 0 });
        put(STACK + 8, len);
        put(MASK, mask_low);
        put(MASK + 4, mask_high);
        put(REGISTERS, self.hart.pc);
        for (at, value) in (REGISTERS..).step_by(4).zip(self.hart.x).skip(1) {
            put(at, value);
        }
        Identity.write(frame, &bytes)?;
        self.mask |= action.mask;
        if action.flags & SA_NODEFER == 0 {
            self.mask |= bit(raised.signal);
        }
        let x = &mut self.hart.x;
        x[1] = self.machine.trampoline;
        x[2] = frame;
        x[10] = raised.signal.into();
        x[11] = frame;
        x[12] = frame.wrapping_add(UCONTEXT);
        self.hart.pc = handler & !1;
        self.hart.reserved = crate::interpret::UNRESERVED;
        Ok(())
    }

    /// Goes back to where a handler's signal came: `rt_sigreturn`.
    pub(crate) fn pop_frame(&mut self) -> Result<(), Fault> {
        let frame = self.hart.x[2];
        let bytes: [u8; FRAME as usize] = Identity.bytes(frame)?;
        let get = |at: u32| {
            let at = at as usize;
            let field = bytes[at..].first_chunk().copied();
            u32::from_le_bytes(field.unwrap_or_default())
        };
        for (at, value) in (REGISTERS..).step_by(4).zip(&mut self.hart.x).skip(1) {
            *value = get(at);
        }
        self.hart.pc = get(REGISTERS) & !1;
        self.hart.reserved = crate::interpret::UNRESERVED;
        self.mask = u64::from(get(MASK)) | u64::from(get(MASK + 4)) << 32;
        Ok(())
    }

    /// Tells what ends the program: where it was, what it did, and what lies there.
    pub(crate) fn report(&self, raised: Raised) {
        let Raised { signal, addr, .. } = raised;
        let pc = self.hart.pc;
        let what = match signal {
            SIGILL => {
                let bits = Identity.bytes(pc).map(u32::from_le_bytes);
                match bits {
                    Ok(bits) if bits & 3 == 3 => format!("unsupported instruction {bits:08x}"),
                    Ok(bits) => format!("unsupported instruction {:04x}", bits & 0xffff),
                    Err(_) => "unsupported instruction".to_owned(),
                }
            }
            SIGTRAP => "breakpoint".to_owned(),
            SIGBUS => format!("misaligned atomic access to {addr:#x}"),
            _ => format!("access to {addr:#x} is not allowed"),
        };
        say!("emulator: the guest ends by signal {signal}: {what}, at pc {pc:#x}\n");
        match self.machine.space.query(addr) {
            Some((range, mapping)) => {
                let (start, last) = (range.start(), range.last());
                let (content, protection) = (mapping.content, mapping.protection);
                say!("  {addr:#x} lies in {start:#x}..={last:#x}: {content:?}, {protection:?}\n");
            }
            None => say!("  nothing is mapped at {addr:#x}\n"),
        }
        for (row, values) in self.hart.x.chunks(8).enumerate() {
            say!("  x{:<2}", row * 8);
            for value in values {
                say!(" {value:08x}");
            }
            say!("\n");
        }
    }
}

/// Splits a set of signals into the words that the guest has it in.
pub(crate) fn halves(set: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = set.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

/// Lets the host's signals of this number come to the guest.
pub(crate) fn forward(signal: u8) {
    if matches!(
        signal,
        SIGILL | SIGTRAP | SIGABRT | SIGBUS | SIGFPE | SIGSEGV | SIGKILL | SIGSTOP
    ) || signal > 31
    {
        return;
    }
    sys::handle(signal.into(), Some(on_host_signal));
}

/// Makes all threads look for signals.
pub(crate) fn wake_all() {
    if let Some(machine) = machine() {
        machine.each_peer(|peer| peer.interrupt());
    }
}

/// The host's signal that makes a call of another thread return.
pub(crate) const WAKE: u8 = SIGURG;

/// Gives that signal a handler, which does nothing.
pub(crate) fn prepare_wake() {
    extern "C" fn nothing(_: i32, _: *const u8, _: *mut Context) {}
    sys::handle(WAKE.into(), Some(nothing));
}
