//! Linux error numbers as portable kinds.

use hostmem_core::provider::{Error, backend::errno_kind};
use rustix::io::Errno;

/// Makes an error of the seam; the number is kept.
pub(crate) fn error(errno: Errno) -> Error {
    Error::os(errno_kind!(Errno, errno), errno.raw_os_error())
}

/// Returns the number that the kernel said.
pub(crate) fn number(error: Error) -> Option<Errno> {
    error.errno().map(Errno::from_raw_os_error)
}
