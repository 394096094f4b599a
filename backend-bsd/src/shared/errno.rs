//! BSD error numbers as portable kinds.

#[cfg(any(target_os = "openbsd", target_os = "netbsd"))]
use libc::__errno as location;
#[cfg(target_os = "dragonfly")]
use libc::__errno_location as location;
#[cfg(target_os = "freebsd")]
use libc::__error as location;

use core::ffi::c_int;
use hostmem_core::provider::{Error, ErrorKind, backend::errno_kind};
use rustix::{
    fd::{FromRawFd, OwnedFd},
    io::Errno,
};

/// `ENOTCAPABLE` and `ECAPMODE` of FreeBSD's sandbox; the other systems have no such numbers.
const SANDBOX: [c_int; 2] = [93, 94];

/// Makes an error of the seam; the number is kept.
#[must_use]
pub fn error(errno: Errno) -> Error {
    let number = errno.raw_os_error();
    let kind = match errno {
        // The same as EOPNOTSUPP on FreeBSD, not on OpenBSD.
        Errno::NOTSUP => ErrorKind::Unsupported,
        _ if cfg!(target_os = "freebsd") && SANDBOX.contains(&number) => ErrorKind::Denied,
        _ => errno_kind!(Errno, errno),
    };
    Error::os(kind, number)
}

/// Returns the number that the system said.
#[must_use]
pub fn number(error: Error) -> Option<Errno> {
    error.errno().map(Errno::from_raw_os_error)
}

/// Returns the error of the call of libc that just failed.
#[must_use]
pub fn last() -> Errno {
    // SAFETY: returns the address of this thread's error number.
    let location = unsafe { location() };
    // SAFETY: valid and aligned for as long as the thread lives, and no other code writes it.
    Errno::from_raw_os_error(unsafe { location.read() })
}

/// Makes a result of what a call of libc returned that says -1 for failure.
///
/// # Errors
///
/// What the call said.
pub fn check(returned: c_int) -> Result<c_int, Errno> {
    if returned == -1 {
        Err(last())
    } else {
        Ok(returned)
    }
}

/// Owns the descriptor that a call of libc made and returned.
///
/// # Errors
///
/// What the call said.
///
/// # Safety
///
/// The call made the descriptor, and no other code knows of it.
pub unsafe fn owned(returned: c_int) -> Result<OwnedFd, Error> {
    let fd = check(returned).map_err(error)?;
    // SAFETY: the call made it, and no other code knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
