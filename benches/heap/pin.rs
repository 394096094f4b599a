//! Threads that stay on a CPU.
//!
//! The CPUs of a machine that others use are not equally fast, so lanes that ran on different ones
//! would not be measured alike.

#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;

/// Keeps the calling thread on one of the CPUs that it may use: the one with this number among
/// them, or again from the first where there are fewer. Where the system has no such call, or
/// refuses it, the thread runs as it did.
#[cfg(target_os = "linux")]
pub fn stay_on(number: usize) {
    // SAFETY: a set of CPUs is an array of integers, for which zeros are values.
    let mut allowed: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the call writes a set of that size at most.
    if unsafe { libc::sched_getaffinity(0, size, &mut allowed) } != 0 {
        return;
    }
    let highest = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: the numbers are below the size of the set.
    let is_allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &allowed) };
    let cpus: Vec<_> = (0..highest).filter(is_allowed).collect();
    let Some(cpu) = number.checked_rem(cpus.len()).map(|at| cpus[at]) else {
        return;
    };
    // SAFETY: as above.
    let mut only: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut only) };
    // SAFETY: the call reads a set of that size. That it may fail changes nothing.
    let _ = unsafe { libc::sched_setaffinity(0, size, &only) };
}

/// Does nothing: the system has no such call.
#[cfg(not(target_os = "linux"))]
pub const fn stay_on(_: usize) {}
