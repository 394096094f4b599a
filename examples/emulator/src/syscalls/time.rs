//! Clocks and sleeping. The guest's times have 64 bits in both fields, as the host's have.

use super::{Answer, double, host, put, within, word};
use core::mem;
use linux_raw_sys::general::{__kernel_old_itimerval, __kernel_old_timeval, __kernel_timespec};
use syscalls::{Errno, Sysno, syscall};

/// The length of a `timespec`.
pub(super) const TIMESPEC: u32 = 16;

/// Reads a `timespec`; `None` for a null pointer.
pub(super) fn timespec(addr: u32) -> Result<Option<__kernel_timespec>, Errno> {
    if addr == 0 {
        return Ok(None);
    }
    Ok(Some(__kernel_timespec {
        tv_sec: double(addr)?.cast_signed(),
        tv_nsec: double(addr.wrapping_add(8))?.cast_signed(),
    }))
}

pub(super) fn clock_gettime(clock: u32, to: u32) -> Answer {
    let to = within(to, TIMESPEC)?;
    // SAFETY: the kernel writes a timespec to the guest's memory, or says EFAULT.
    host(unsafe { syscall!(Sysno::clock_gettime, clock, to) })
}

pub(super) fn clock_getres(clock: u32, to: u32) -> Answer {
    let to = within(to, TIMESPEC)?;
    // SAFETY: as above.
    host(unsafe { syscall!(Sysno::clock_getres, clock, to) })
}

pub(super) fn clock_nanosleep(clock: u32, flags: u32, time: u32, rest: u32) -> Answer {
    let time = within(time, TIMESPEC)?;
    let rest = within(rest, TIMESPEC)?;
    // SAFETY: as above.
    host(unsafe { syscall!(Sysno::clock_nanosleep, clock, flags, time, rest) })
}

/// Four words of clock ticks; returns the ticks since some moment.
pub(super) fn times(to: u32) -> Answer {
    let mut spent = [0_i64; 4];
    // SAFETY: there is room for four numbers.
    let now = unsafe { syscall!(Sysno::times, spent.as_mut_ptr()) }?;
    let word = |ticks: i64| ticks.to_le_bytes().first_chunk::<4>().copied();
    if to != 0 {
        for (at, ticks) in (0u32..).step_by(4).zip(spent) {
            put(to.wrapping_add(at), &word(ticks).unwrap_or_default())?;
        }
    }
    Ok(u32::from_le_bytes(
        word(now.cast_signed() as i64).unwrap_or_default(),
    ))
}

/// The timer has times of 32 bits: seconds and microseconds, of the interval and of the first time.
pub(super) fn setitimer(which: u32, new: u32, old: u32) -> Answer {
    let field = |at: u32| {
        let number = word(new.wrapping_add(at))?;
        Ok::<_, Errno>(i64::from(number.cast_signed()))
    };
    let time = |at| {
        Ok::<_, Errno>(__kernel_old_timeval {
            tv_sec: field(at)?,
            tv_usec: field(at + 4)?,
        })
    };
    let wanted = __kernel_old_itimerval {
        it_interval: time(0)?,
        it_value: time(8)?,
    };
    // SAFETY: zero is a value of every field.
    let mut before: __kernel_old_itimerval = unsafe { mem::zeroed() };
    // SAFETY: both structures are valid.
    let result = unsafe { syscall!(Sysno::setitimer, which, &raw const wanted, &raw mut before) };
    let answer = host(result)?;
    if old != 0 {
        let times = [before.it_interval, before.it_value];
        for (at, time) in (0u32..).step_by(8).zip(times) {
            let low = |number: i64| number.to_le_bytes().first_chunk::<4>().copied();
            put(old.wrapping_add(at), &low(time.tv_sec).unwrap_or_default())?;
            put(
                old.wrapping_add(at + 4),
                &low(time.tv_usec).unwrap_or_default(),
            )?;
        }
    }
    Ok(answer)
}
