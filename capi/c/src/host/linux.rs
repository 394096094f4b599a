//! Linux, by its backend.

use crate::{
    provider::Foreign,
    region::Region,
    status::{Fault, HM_UNSUPPORTED},
};
use hostmem::{
    adopt_claim_into,
    probe::Probe,
    provider::{Clock, Error},
    region::{ClaimReport, ClaimRequest},
};
pub(crate) use hostmem::{OsLock as HostLock, OsProvider as Host};

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

/// Claims addresses of the host for a region.
///
/// # Safety
///
/// The region is on the host itself.
pub(crate) unsafe fn adopt_claim(
    region: &Region,
    request: &ClaimRequest,
) -> Result<ClaimReport, Error> {
    // SAFETY: the region is on the host itself, by this function's condition.
    unsafe { adopt_claim_into(region, request) }
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
