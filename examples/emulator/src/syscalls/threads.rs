//! Calls of threads: making and ending them, waiting, and signals.

use super::{Answer, double, host, put, time::timespec, within, word};
use crate::{
    access::{Identity, for_kernel},
    cli::finish,
    interpret::Memory,
    machine::{End, Machine, Thread, lock},
    signals::{self, LAST, SIGKILL, SIGSTOP, SS_DISABLE, SS_ONSTACK},
    sys, system,
};
use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general::FUTEX_WAKE;
use syscalls::{Errno, Sysno, syscall};

/// What a thread that could not be prepared says in place of its number.
const FAILED: u32 = u32::MAX;

const CLONE_VM: u32 = 0x100;
const CLONE_THREAD: u32 = 0x1_0000;
const CLONE_SETTLS: u32 = 0x8_0000;
const CLONE_PARENT_SETTID: u32 = 0x10_0000;
const CLONE_CHILD_CLEARTID: u32 = 0x20_0000;
const CLONE_CHILD_SETTID: u32 = 0x100_0000;

pub(super) fn set_tid_address(thread: &mut Thread, addr: u32) -> Answer {
    thread.clear_at_end = addr;
    Ok(thread.peer.tid)
}

pub(super) fn clone(
    thread: &Thread,
    flags: u32,
    stack: u32,
    parent_tid: u32,
    tls: u32,
    child_tid: u32,
) -> Answer {
    if flags & CLONE_THREAD == 0 || flags & CLONE_VM == 0 {
        // A program of its own, in a copy of all memory.
        return Err(Errno::ENOSYS);
    }
    let machine = thread.machine;
    let mut hart = thread.hart.clone();
    hart.reserved = crate::interpret::UNRESERVED;
    hart.x[10] = 0;
    if stack != 0 {
        hart.x[2] = stack;
    }
    if flags & CLONE_SETTLS != 0 {
        hart.x[4] = tls;
    }
    let mask = thread.mask;
    let told = Arc::new(AtomicU32::new(0));
    let tell = told.clone();
    let run = move || {
        let mut child = match Thread::new(machine, hart) {
            Ok(child) => child,
            Err(_) => return sys::tell(&tell, FAILED),
        };
        child.mask = mask;
        if flags & CLONE_CHILD_CLEARTID != 0 {
            child.clear_at_end = child_tid;
        }
        let tid = child.peer.tid;
        for (flag, addr) in [
            (CLONE_PARENT_SETTID, parent_tid),
            (CLONE_CHILD_SETTID, child_tid),
        ] {
            if flags & flag != 0 {
                let _ = put(addr, &tid.to_le_bytes());
            }
        }
        sys::tell(&tell, tid);
        drop(tell);
        match child.run() {
            End::Thread(_) => end(child),
            end => finish(machine, end),
        }
    };
    system::spawn(Box::new(run)).ok_or(Errno::EAGAIN)?;
    match sys::wait(&told) {
        FAILED => Err(Errno::ENOMEM),
        tid => Ok(tid),
    }
}

/// Ends a thread: it is known no more when others are told.
pub(crate) fn end(thread: Thread) {
    let addr = thread.clear_at_end;
    drop(thread);
    if addr != 0 && Identity.store_u32(addr, 0).is_ok() {
        // SAFETY: the kernel takes the address as a name only.
        let _ = unsafe { syscall!(Sysno::futex, for_kernel(addr), FUTEX_WAKE, i32::MAX) };
    }
}

pub(super) fn futex(addr: u32, op: u32, value: u32, time: u32, other: u32, third: u32) -> Answer {
    const FUTEX_WAIT: u32 = 0;
    const FUTEX_WAIT_BITSET: u32 = 9;
    let (addr, other) = (for_kernel(addr), for_kernel(other));
    let limit = match op & 0x7f {
        FUTEX_WAIT | FUTEX_WAIT_BITSET => timespec(time)?,
        _ => None,
    };
    let fourth = match &limit {
        Some(limit) => core::ptr::from_ref(limit).addr(),
        None => time as usize,
    };
    // SAFETY: the kernel reads and writes the guest's memory, or says EFAULT; the time is valid.
    host(unsafe { syscall!(Sysno::futex, addr, op, value, fourth, other, third) })
}

pub(super) fn yield_now() -> Answer {
    // SAFETY: the call has no arguments.
    host(unsafe { syscall!(Sysno::sched_yield) })
}

pub(super) fn getaffinity(len: u32, to: u32) -> Answer {
    let to = within(to, len)?;
    // SAFETY: the kernel writes to the guest's memory, or says EFAULT.
    host(unsafe { syscall!(Sysno::sched_getaffinity, 0, len, to) })
}

/// `kill`, `tkill` and `tgkill`: the guest can signal itself only.
pub(super) fn kill(thread: &Thread, number: u32, a: u32, b: u32, c: u32) -> Answer {
    let (target, signal) = match number {
        129 => (None, b),
        130 => (Some(a), b),
        _ => (Some(b), c),
    };
    let signal = u8::try_from(signal).ok().filter(|signal| *signal <= LAST);
    let signal = signal.ok_or(Errno::EINVAL)?;
    let Some(tid) = target else {
        if a != sys::process() && a != 0 {
            return Err(Errno::EPERM);
        }
        if signal != 0 {
            signals::send_to_program(signal);
            signals::wake_all();
        }
        return Ok(0);
    };
    let peer = thread.machine.peer(tid).ok_or(Errno::ESRCH)?;
    if signal != 0 {
        peer.pending
            .fetch_or(signals::bit(signal), Ordering::AcqRel);
        peer.interrupt();
        if tid != thread.peer.tid {
            // A call that waits is to return.
            // SAFETY: the number is one of this program's threads; the signal has a handler.
            let _ = unsafe { syscall!(Sysno::tgkill, sys::process(), tid, signals::WAKE) };
        }
    }
    Ok(0)
}

pub(super) fn sigaltstack(thread: &mut Thread, new: u32, old: u32) -> Answer {
    let (start, len) = thread.signal_stack;
    let on_it = thread.is_on_signal_stack();
    let wanted = if new == 0 {
        None
    } else {
        let [start, flags, len] = [0, 4, 8].map(|at| word(new.wrapping_add(at)));
        Some(if flags? & SS_DISABLE != 0 {
            (0, 0)
        } else {
            (start?, len?)
        })
    };
    if old != 0 {
        let flags = match len {
            0 => SS_DISABLE,
            _ if on_it => SS_ONSTACK,
            _ => 0,
        };
        for (at, value) in [(0, start), (4, flags), (8, len)] {
            put(old.wrapping_add(at), &value.to_le_bytes())?;
        }
    }
    if let Some(wanted) = wanted {
        if on_it {
            return Err(Errno::EPERM);
        }
        thread.signal_stack = wanted;
    }
    Ok(0)
}

pub(super) fn sigaction(thread: &Thread, signal: u32, new: u32, old: u32, len: u32) -> Answer {
    let signal = u8::try_from(signal).map_err(|_| Errno::EINVAL)?;
    let fixed = matches!(signal, 0 | SIGKILL | SIGSTOP);
    if len != 8 || signal > LAST || (fixed && new != 0) {
        return Err(Errno::EINVAL);
    }
    let wanted = if new == 0 {
        None
    } else {
        Some(signals::Action {
            handler: word(new)?,
            flags: word(new.wrapping_add(4))?,
            mask: double(new.wrapping_add(8))?,
        })
    };
    let before = {
        let mut actions = lock(&thread.machine.actions);
        let action = actions.of(signal).ok_or(Errno::EINVAL)?;
        let before = *action;
        if let Some(wanted) = wanted {
            *action = wanted;
        }
        before
    };
    if wanted.is_some_and(|wanted| wanted.handler > 1) {
        signals::forward(signal);
    }
    if old != 0 {
        put(old, &before.handler.to_le_bytes())?;
        put(old.wrapping_add(4), &before.flags.to_le_bytes())?;
        put(old.wrapping_add(8), &before.mask.to_le_bytes())?;
    }
    Ok(0)
}

pub(super) fn sigprocmask(thread: &mut Thread, how: u32, new: u32, old: u32, len: u32) -> Answer {
    if len != 8 {
        return Err(Errno::EINVAL);
    }
    let before = thread.mask;
    if new != 0 {
        let set = double(new)?;
        thread.mask = match how {
            0 => before | set,
            1 => before & !set,
            2 => set,
            _ => return Err(Errno::EINVAL),
        } & !(signals::bit(SIGKILL) | signals::bit(SIGSTOP));
    }
    if old != 0 {
        put(old, &before.to_le_bytes())?;
    }
    Ok(0)
}

pub(super) fn sigpending(thread: &Thread, to: u32) -> Answer {
    let pending = thread.peer.pending.load(Ordering::Acquire) & thread.mask;
    put(to, &pending.to_le_bytes())
}

pub(super) fn sigsuspend(thread: &mut Thread, mask: u32) -> Answer {
    /// How often to look, in milliseconds: a signal may come just before the call that waits.
    const PERIOD: u32 = 10;
    let wanted = double(mask)?;
    thread.suspended = Some(thread.mask);
    thread.mask = wanted & !(signals::bit(SIGKILL) | signals::bit(SIGSTOP));
    while !thread.has_pending() {
        sys::sleep(PERIOD);
    }
    Err(Errno::EINTR)
}

/// Waits until no other thread of the guest is left.
pub(crate) fn wait_for_others(machine: &Machine) {
    loop {
        let mut count = 0;
        machine.each_peer(|_| count += 1);
        if count == 0 {
            return;
        }
        sys::sleep(1);
    }
}
