//! Limits: what is left of them.
//!
//! A limit that is not set costs one system call; one that is, a look at the process by
//! `sysctl(3)`.

#[cfg(target_os = "dragonfly")]
mod dragonfly;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "dragonfly")]
use dragonfly as host;
#[cfg(target_os = "freebsd")]
use freebsd as host;
#[cfg(target_os = "openbsd")]
use openbsd as host;

use crate::{BsdProvider, errno::check};
use core::{
    ffi::{c_int, c_uint},
    mem::MaybeUninit,
    ptr::null_mut,
};
use hostmem_core::{
    page::PageSize,
    provider::{Error, ErrorKind, Resource},
};
use rustix::io::Errno;

impl BsdProvider {
    pub(crate) fn resource_left(&self, of: Resource) -> Option<usize> {
        match of {
            Resource::FileSize => limit(libc::RLIMIT_FSIZE),
            of if of == host::LIMITED => {
                let limit = limit(host::LIMIT)?;
                Some(limit.saturating_sub(host::used().unwrap_or(0)))
            }
            // How much is locked is not told, nor is there a limit of mappings that is.
            _ => None,
        }
    }
}

/// Asks the system for a record, which is zero where it has nothing to tell; `None` where it tells
/// nothing, or has a record of another size.
fn record<R>(name: &[c_int]) -> Option<MaybeUninit<R>> {
    let mut record = MaybeUninit::<R>::zeroed();
    let mut len = size_of::<R>();
    let parts = c_uint::try_from(name.len()).ok()?;
    let (to, size) = (record.as_mut_ptr().cast(), &raw mut len);
    // SAFETY: the name has that many parts, and the record as many bytes as its size says.
    check(unsafe { libc::sysctl(name.as_ptr(), parts, to, size, null_mut(), 0) }).ok()?;
    (len == size_of::<R>()).then_some(record)
}

/// Returns a limit in bytes; `None` where there is none.
fn limit(of: c_int) -> Option<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: getrlimit(2) writes a structure of this type, for which there is room.
    check(unsafe { libc::getrlimit(of, &raw mut limit) }).ok()?;
    let limit = Some(limit.rlim_cur).filter(|&limit| limit != libc::RLIM_INFINITY)?;
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Asks whether a file may be `len` bytes long: the system answers one that grows beyond the limit
/// by `SIGXFSZ`. Asked each time, since a process may lower it as it runs.
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] where a shorter file may be made, [`ErrorKind::Denied`] where not even
/// one page may.
pub(crate) fn ask_file_size(len: u64, page: PageSize) -> Result<(), Error> {
    let Some(limit) = limit(libc::RLIMIT_FSIZE).filter(|&limit| (limit as u64) < len) else {
        return Ok(());
    };
    let kind = if limit < page.bytes() {
        ErrorKind::Denied
    } else {
        ErrorKind::Exhausted
    };
    Err(Error::os(kind, Errno::FBIG.raw_os_error()))
}
