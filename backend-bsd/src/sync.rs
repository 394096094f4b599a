//! Other cores, time, and what a waiting thread does.

#[cfg(not(target_os = "freebsd"))]
mod absent;
#[cfg(target_os = "freebsd")]
mod freebsd;

#[cfg(not(target_os = "freebsd"))]
use absent as host;
#[cfg(target_os = "freebsd")]
use freebsd as host;

pub(crate) use host::core_sync;

use crate::BsdProvider;
use hostmem_core::{
    provider::{Clock, CoreSync, Error},
    sync::RelaxStrategy,
};
use rustix::time::{ClockId, clock_gettime};

// SAFETY: FreeBSD: membarrier(2), PRIVATE_EXPEDITED_SYNC_CORE: every running thread of the process
// executes a core-serializing instruction before the call returns, and every other thread executes
// one before it runs again. Elsewhere the call always fails.
unsafe impl CoreSync for BsdProvider {
    fn sync_cores(&self) -> Result<(), Error> {
        host::sync_cores()
    }
}

impl Clock for BsdProvider {
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
