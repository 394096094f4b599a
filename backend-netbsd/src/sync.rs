//! Other cores, time, and what a waiting thread does.

use crate::NetBsdProvider;
use hostmem_core::{
    provider::{Clock, CoreSync, Error, ErrorKind},
    sync::RelaxStrategy,
};
use rustix::time::{ClockId, clock_gettime};

/// Says whether other cores can be made to see new instructions: there is no call for it.
pub(crate) fn core_sync() -> Result<(), Error> {
    Err(ErrorKind::Unsupported.into())
}

// SAFETY: the call always fails.
unsafe impl CoreSync for NetBsdProvider {
    fn sync_cores(&self) -> Result<(), Error> {
        core_sync()
    }
}

impl Clock for NetBsdProvider {
    fn now_ms(&self) -> Option<u64> {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).ok()?;
        let milliseconds = u64::try_from(now.tv_nsec / 1_000_000).ok()?;
        seconds.checked_mul(1000)?.checked_add(milliseconds)
    }
}

/// Waits for a lock by spinning shortly, and then by giving the processor away: right where
/// threads outnumber cores.
#[derive(Clone, Copy, Debug)]
pub struct Yield;

impl RelaxStrategy for Yield {
    fn relax() {
        /// Spins between two yields: about as long as a short critical section takes.
        const SPINS: u32 = 64;
        for _ in 0..SPINS {
            core::hint::spin_loop();
        }
        rustix::thread::sched_yield();
    }
}
