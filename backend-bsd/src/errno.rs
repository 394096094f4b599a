//! BSD error numbers as portable kinds.

#[cfg(target_os = "openbsd")]
use libc::__errno as location;
#[cfg(target_os = "dragonfly")]
use libc::__errno_location as location;
#[cfg(target_os = "freebsd")]
use libc::__error as location;

use core::ffi::c_int;
use hostmem_core::provider::{Error, ErrorKind};
use rustix::io::Errno;

/// `ENOTCAPABLE` and `ECAPMODE` of FreeBSD's sandbox; the other systems have no such numbers.
const SANDBOX: [c_int; 2] = [93, 94];

/// Makes an error of the seam; the number is kept.
pub(crate) fn error(errno: Errno) -> Error {
    let kind = match errno {
        Errno::NOMEM
        | Errno::NOSPC
        | Errno::MFILE
        | Errno::NFILE
        | Errno::AGAIN
        | Errno::DQUOT
        | Errno::FBIG => ErrorKind::Exhausted,
        Errno::EXIST => ErrorKind::Taken,
        Errno::PERM | Errno::ACCESS | Errno::ROFS => ErrorKind::Denied,
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV | Errno::NOENT | Errno::NOTDIR => {
            ErrorKind::Unsupported
        }
        Errno::INVAL => ErrorKind::InvalidArgument,
        // The same as EOPNOTSUPP on FreeBSD, not on OpenBSD.
        _ if errno == Errno::NOTSUP => ErrorKind::Unsupported,
        _ if cfg!(target_os = "freebsd") && SANDBOX.contains(&errno.raw_os_error()) => {
            ErrorKind::Denied
        }
        _ => ErrorKind::Other,
    };
    Error::os(kind, errno.raw_os_error())
}

/// Returns the error of the call of libc that just failed.
pub(crate) fn last() -> Errno {
    // SAFETY: returns the address of this thread's error number.
    let location = unsafe { location() };
    // SAFETY: valid and aligned for as long as the thread lives, and no other code writes it.
    Errno::from_raw_os_error(unsafe { location.read() })
}

/// Makes a result of what a call of libc returned that says -1 for failure.
pub(crate) fn check(returned: c_int) -> Result<c_int, Errno> {
    if returned == -1 {
        Err(last())
    } else {
        Ok(returned)
    }
}
