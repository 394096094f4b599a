//! Limits: what is left of them.
//!
//! A limit that is not set costs one system call; one that is, a look at the process by
//! `sysctl(3)`. `RLIMIT_AS` counts reservations. `RLIMIT_DATA` is about the program break only.

use crate::{NetBsdProvider, errno::check, pages::page_size};
use core::{
    ffi::{c_int, c_uint},
    mem::MaybeUninit,
    ptr::null,
};
use hostmem_core::{
    page::PageSize,
    provider::{Error, ErrorKind, Resource},
};
use rustix::io::Errno;

impl NetBsdProvider {
    pub(crate) fn resource_left(&self, of: Resource) -> Option<usize> {
        match of {
            Resource::FileSize => limit(libc::RLIMIT_FSIZE),
            Resource::Addresses => {
                let limit = limit(libc::RLIMIT_AS)?;
                Some(limit.saturating_sub(mapped().unwrap_or(0)))
            }
            // How much is locked is not told, and there is no limit of mappings.
            _ => None,
        }
    }
}

/// Returns the bytes of addresses that are mapped; `None` where the system does not tell.
fn mapped() -> Option<usize> {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let size = c_int::try_from(size_of::<libc::kinfo_proc2>()).ok()?;
    let name = [
        libc::CTL_KERN,
        libc::KERN_PROC2,
        libc::KERN_PROC_PID,
        process,
        size,
        1,
    ];
    let mut record = MaybeUninit::<libc::kinfo_proc2>::zeroed();
    let mut len = size_of::<libc::kinfo_proc2>();
    let parts = c_uint::try_from(name.len()).ok()?;
    let (to, size) = (record.as_mut_ptr().cast(), &raw mut len);
    // SAFETY: the name has that many parts, and the record as many bytes as its size says.
    check(unsafe { libc::sysctl(name.as_ptr(), parts, to, size, null(), 0) }).ok()?;
    if len != size_of::<libc::kinfo_proc2>() {
        return None;
    }
    // SAFETY: inside the record.
    let pages = unsafe { &raw const (*record.as_ptr()).p_vm_vsize };
    // SAFETY: a number, which any bytes are; zeroed at first.
    let pages = usize::try_from(unsafe { pages.read() }).ok()?;
    pages.checked_mul(page_size().bytes())
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
