//! Linux error numbers as portable kinds.

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
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV | Errno::NOENT | Errno::NOTDIR => {
            ErrorKind::Unsupported
        }
        Errno::INVAL => ErrorKind::InvalidArgument,
        _ => ErrorKind::Other,
    };
    Error::os(kind, errno.raw_os_error())
}
