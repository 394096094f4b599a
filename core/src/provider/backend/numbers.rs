//! What numbers of a system mean.

use crate::page::Access;

/// Tells which kind of error an error number is: `errno_kind!(Errno, errno)`, where the constants
/// of the type `Errno` have the names that rustix gives them, which are those of POSIX without the
/// `E`.
#[macro_export]
macro_rules! errno_kind {
    ($Errno:ident, $errno:expr) => {
        match $errno {
            $Errno::NOMEM
            | $Errno::NOSPC
            | $Errno::MFILE
            | $Errno::NFILE
            | $Errno::AGAIN
            | $Errno::DQUOT
            | $Errno::FBIG => $crate::provider::ErrorKind::Exhausted,
            $Errno::EXIST => $crate::provider::ErrorKind::Taken,
            $Errno::PERM | $Errno::ACCESS | $Errno::ROFS => $crate::provider::ErrorKind::Denied,
            $Errno::NOSYS | $Errno::OPNOTSUPP | $Errno::NODEV | $Errno::NOENT | $Errno::NOTDIR => {
                $crate::provider::ErrorKind::Unsupported
            }
            $Errno::INVAL => $crate::provider::ErrorKind::InvalidArgument,
            _ => $crate::provider::ErrorKind::Other,
        }
    };
}

/// Returns the protection for an access, by the numbers that `PROT_READ`, `PROT_WRITE` and
/// `PROT_EXEC` have on every system with `mmap`.
#[must_use]
pub fn protection(access: Access) -> u32 {
    u32::from(access.readable())
        | u32::from(access.writable()) << 1
        | u32::from(access.executable()) << 2
}

/// Returns the milliseconds of a time in seconds and nanoseconds.
#[must_use]
pub fn milliseconds(seconds: i64, nanoseconds: i64) -> Option<u64> {
    let seconds = u64::try_from(seconds).ok()?;
    let milliseconds = u64::try_from(nanoseconds / 1_000_000).ok()?;
    seconds.checked_mul(1000)?.checked_add(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{page::RwxOptIn, provider::ErrorKind};

    struct Errno;

    /// Some numbers, no two alike.
    impl Errno {
        const NOMEM: u8 = 1;
        const NOSPC: u8 = 2;
        const MFILE: u8 = 3;
        const NFILE: u8 = 4;
        const AGAIN: u8 = 5;
        const DQUOT: u8 = 6;
        const FBIG: u8 = 7;
        const EXIST: u8 = 8;
        const PERM: u8 = 9;
        const ACCESS: u8 = 10;
        const ROFS: u8 = 11;
        const NOSYS: u8 = 12;
        const OPNOTSUPP: u8 = 13;
        const NODEV: u8 = 14;
        const NOENT: u8 = 15;
        const NOTDIR: u8 = 16;
        const INVAL: u8 = 17;
    }

    #[test]
    fn numbers_have_kinds() {
        let kind = |errno: u8| errno_kind!(Errno, errno);
        assert!((1..=7).all(|n| kind(n) == ErrorKind::Exhausted));
        assert_eq!(kind(Errno::EXIST), ErrorKind::Taken);
        assert!((9..=11).all(|n| kind(n) == ErrorKind::Denied));
        assert!((12..=16).all(|n| kind(n) == ErrorKind::Unsupported));
        assert_eq!(kind(Errno::INVAL), ErrorKind::InvalidArgument);
        assert_eq!(kind(18), ErrorKind::Other);
    }

    #[test]
    fn accesses_are_protections() {
        // SAFETY: consent to what is never mapped.
        let all = Access::ReadWriteExec(unsafe { RwxOptIn::accept() });
        let cases = [
            (Access::None, 0),
            (Access::Read, 1),
            (Access::ReadWrite, 3),
            (Access::ReadExec, 5),
            (all, 7),
        ];
        for (access, expected) in cases {
            assert_eq!(protection(access), expected, "{access:?}");
        }
    }

    #[test]
    fn times_are_milliseconds() {
        assert_eq!(milliseconds(3, 4_999_999), Some(3004));
        assert_eq!(milliseconds(-1, 0), None);
        assert_eq!(milliseconds(i64::MAX, 0), None, "too many");
    }
}
