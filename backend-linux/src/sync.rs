//! Other cores, time, and what a waiting thread does.

use crate::{LinuxProvider, errno::error};
use core::sync::atomic::{AtomicBool, Ordering};
use hostmem_core::{
    provider::{Clock, CoreSync, Error},
    sync::RelaxStrategy,
};
use rustix::{
    io::Errno,
    thread::{MembarrierCommand, membarrier},
    time::{ClockId, clock_gettime},
};

/// Whether this process has registered for the barrier. A fork keeps the registration; should a
/// kernel not, the barrier says so and is registered again.
static REGISTERED: AtomicBool = AtomicBool::new(false);

// SAFETY: membarrier(2): PRIVATE_EXPEDITED_SYNC_CORE makes every running thread of the process
// execute a core-serializing instruction before the call returns, and every other thread executes
// one on its way back from the kernel.
unsafe impl CoreSync for LinuxProvider {
    fn sync_cores(&self) -> Result<(), Error> {
        if REGISTERED.load(Ordering::Relaxed) {
            match membarrier(MembarrierCommand::PrivateExpeditedSyncCore) {
                Err(Errno::PERM) => {}
                result => return result.map_err(error),
            }
        }
        membarrier(MembarrierCommand::RegisterPrivateExpeditedSyncCore).map_err(error)?;
        REGISTERED.store(true, Ordering::Relaxed);
        membarrier(MembarrierCommand::PrivateExpeditedSyncCore).map_err(error)
    }
}

impl Clock for LinuxProvider {
    fn now_ms(&self) -> Option<u64> {
        // Exact to a tick of the kernel, 10 ms at most, and cheaper to read.
        let now = clock_gettime(ClockId::MonotonicCoarse);
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
