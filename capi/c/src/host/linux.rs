//! Linux, by its backend.

use crate::{
    provider::Foreign,
    status::{Fault, HM_UNSUPPORTED},
};
use hostmem::{probe::Probe, provider::Clock};
pub(crate) use hostmem::{
    OsLock as HostLock, OsProvider as Host, RegionAllocator as Region, adopt_claim,
};

pub(crate) fn set(_: Foreign) -> Result<(), Fault> {
    Err(Fault::Plain(
        HM_UNSUPPORTED,
        c"this system has a host of its own",
    ))
}

pub(crate) fn now_ms() -> Option<u64> {
    Host::new().now_ms()
}

pub(crate) fn probe() -> Result<Probe, Fault> {
    Ok(Host::new().probe_now())
}

/// Prints on standard error. Not by `write`, in which a thread may be cancelled.
#[cfg(panic = "abort")]
pub(crate) fn print(line: &[u8]) {
    // SAFETY: that many bytes are there.
    unsafe {
        libc::syscall(
            libc::SYS_write,
            libc::STDERR_FILENO,
            line.as_ptr(),
            line.len(),
        )
    };
}
