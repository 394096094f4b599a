//! Signals that interrupt a thread again and again, whatever it does.

use super::threads::{Patience, Stop};
use core::{
    ffi::c_int,
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use std::thread;

/// Installs a handler, which calls only what handlers may.
pub(crate) fn handle(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: all zero is a valid value of this type.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler calls what handlers may.
    let set = unsafe { libc::sigaction(signal, &raw const action, null_mut()) };
    assert_eq!(set, 0);
}

/// Sends this process SIGPROF each time that it has used so many microseconds of processor time: a
/// clock that stands still while others have the machine. Says whether that can be done.
pub(crate) fn tick_every(microseconds: u32) -> bool {
    let tick = libc::timeval {
        tv_sec: (microseconds / 1_000_000).into(),
        tv_usec: (microseconds % 1_000_000).into(),
    };
    let timer = libc::itimerval {
        it_interval: tick,
        it_value: tick,
    };
    // SAFETY: a valid timer.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, null_mut()) == 0 }
}

/// Repeats `work` until `done`, while another thread sends signals, one at a time: the next one
/// when `handled` has counted the last.
pub(crate) fn interrupted(
    signal: c_int,
    handled: &AtomicU64,
    done: impl Fn() -> bool,
    mut work: impl FnMut(),
) {
    let stop = &AtomicBool::new(false);
    // SAFETY: no argument, no effect.
    let me = unsafe { libc::pthread_self() };
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut sent = handled.load(Relaxed);
            while !stop.load(Relaxed) {
                if handled.load(Relaxed) >= sent {
                    // SAFETY: that thread waits for this one.
                    unsafe { libc::pthread_kill(me, signal) };
                    sent += 1;
                }
                (0..300).for_each(|_| core::hint::spin_loop());
            }
        });
        let _stop = Stop(stop);
        let mut patience = Patience::new();
        let mut seen = 0;
        while !done() {
            work();
            let now = handled.load(Relaxed);
            if now != seen {
                (patience, seen) = (Patience::new(), now);
            }
            patience.check("a signal");
        }
    });
}
