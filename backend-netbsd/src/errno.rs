//! NetBSD error numbers as portable kinds.

use core::ffi::c_int;
use hostmem_core::provider::{Error, ErrorKind};
use rustix::io::Errno;

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
        Errno::NOSYS
        | Errno::OPNOTSUPP
        | Errno::NOTSUP
        | Errno::NODEV
        | Errno::NOENT
        | Errno::NOTDIR => ErrorKind::Unsupported,
        Errno::INVAL => ErrorKind::InvalidArgument,
        _ => ErrorKind::Other,
    };
    Error::os(kind, errno.raw_os_error())
}

/// Returns the error of the call of libc that just failed.
pub(crate) fn last() -> Errno {
    // SAFETY: returns the address of this thread's error number.
    let location = unsafe { libc::__errno() };
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
