//! Limits of a process, and what it has of them.

use super::{
    errno::check,
    sysctl::{process, sysctl_bytes},
};
use core::ffi::c_int;
use hostmem_core::{
    page::PageSize,
    provider::{Error, backend::check_file_limit},
};
use rustix::io::Errno;

/// Returns a limit in bytes; `None` where there is none.
#[must_use]
pub fn limit(of: c_int) -> Option<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: getrlimit(2) writes a structure of this type, for which there is room.
    check(unsafe { libc::getrlimit(of, &raw mut limit) }).ok()?;
    let limit = Some(limit.rlim_cur).filter(|&limit| limit != libc::RLIM_INFINITY)?;
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Returns what a limit leaves beside what is used, in bytes; `None` where there is no limit. What
/// the system does not tell counts as unused.
#[must_use]
pub fn left(of: c_int, used: impl FnOnce() -> Option<usize>) -> Option<usize> {
    let limit = limit(of)?;
    Some(limit.saturating_sub(used().unwrap_or(0)))
}

/// Asks whether a file may be `len` bytes long. Asked each time, since a process may lower the
/// limit as it runs.
///
/// # Errors
///
/// The errors of [`check_file_limit`].
pub fn ask_file_size(len: u64, page: PageSize) -> Result<(), Error> {
    let limit = limit(libc::RLIMIT_FSIZE);
    check_file_limit(limit, len, page, Errno::FBIG.raw_os_error())
}

/// Returns the record of this process that `kern.proc` has under the name `kind`, `N` bytes long;
/// `None` where the system has one of another length, or tells nothing. Some are asked for by
/// length and number.
#[must_use]
pub fn process_record<const N: usize>(kind: c_int, by_length: bool) -> Option<[u8; N]> {
    let mut record = [0; N];
    let (process, len) = (process(), c_int::try_from(N).ok()?);
    let name = [libc::CTL_KERN, kind, libc::KERN_PROC_PID, process, len, 1];
    let name = if by_length { &name[..] } else { &name[..4] };
    let got = sysctl_bytes(name, &mut record).ok()?;
    (got == N).then_some(record)
}
