//! Errors of the seam: a portable kind, and the system's errno beside it.

use core::{
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroI32,
};

/// What went wrong, in terms that mean the same on every host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No memory, addresses, descriptors or mappings are left, or a limit was met.
    Exhausted,
    /// The place asked for is in use.
    Taken,
    /// The place asked for lies outside the range asked for.
    OutsideRange,
    /// The host's policy refuses.
    Denied,
    /// The host, or this provider, cannot do it.
    Unsupported,
    /// No host could do it: zero, overflowing or misaligned.
    InvalidArgument,
    /// The call failed, and the caller's range now belongs to somebody else.
    RangeLost,
    /// None of the above; the errno says more.
    Other,
}

/// An error of a provider.
#[derive(Clone, Copy, Debug)]
pub struct Error {
    kind: ErrorKind,
    errno: Option<NonZeroI32>,
    /// What Linux says in this case, where that is not what it says of others of the kind; 0 for
    /// none. Errors are equal whatever this is.
    like: u8,
}

impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.errno) == (other.kind, other.errno)
    }
}

impl Eq for Error {}

impl Hash for Error {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, self.errno).hash(state);
    }
}

/// Error numbers of Linux, on all CPUs (`asm-generic/errno-base.h`).
pub(crate) mod linux {
    pub(crate) const EPERM: u8 = 1;
    pub(crate) const EAGAIN: u8 = 11;
    pub(crate) const ENOMEM: u8 = 12;
    pub(crate) const EACCES: u8 = 13;
    pub(crate) const EFAULT: u8 = 14;
    pub(crate) const EEXIST: u8 = 17;
    pub(crate) const EINVAL: u8 = 22;
    pub(crate) const ERANGE: u8 = 34;
}

impl Error {
    /// Makes an error that no system call reported.
    #[must_use]
    pub const fn of(kind: ErrorKind) -> Self {
        Self {
            kind,
            errno: None,
            like: 0,
        }
    }

    /// Makes an error that the system reported as `errno`.
    #[must_use]
    pub const fn os(kind: ErrorKind, errno: i32) -> Self {
        Self {
            kind,
            errno: NonZeroI32::new(errno),
            like: 0,
        }
    }

    /// Returns the same system error as another kind.
    #[must_use]
    pub(crate) const fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// Returns the same error, of which Linux would say `like`.
    #[must_use]
    pub(crate) const fn with_like(self, like: u8) -> Self {
        Self { like, ..self }
    }

    /// Returns what went wrong.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        self.kind
    }

    /// Returns the number that `mmap`, `munmap`, `mremap` or `mprotect` of Linux would have given
    /// for the same mistake, on any host: what an emulator answers a Linux guest whose call it made
    /// by a [region](crate::region::RegionAllocator).
    ///
    /// | kind | number |
    /// |---|---|
    /// | [`Exhausted`](ErrorKind::Exhausted), [`RangeLost`](ErrorKind::RangeLost) | `ENOMEM` |
    /// | [`Taken`](ErrorKind::Taken) | `EEXIST`, as `MAP_FIXED_NOREPLACE` says |
    /// | [`OutsideRange`](ErrorKind::OutsideRange) | `ENOMEM` |
    /// | [`Denied`](ErrorKind::Denied) | `EACCES`, or `EPERM` where the host said that |
    /// | [`InvalidArgument`](ErrorKind::InvalidArgument) | `EINVAL` |
    /// | [`Unsupported`](ErrorKind::Unsupported) | `EINVAL` |
    /// | [`Other`](ErrorKind::Other) | the host's, if all systems have that number, else `EINVAL` |
    ///
    /// Some cases differ: a request that overflows is `ENOMEM`; to resize what is not mapped, or
    /// not one mapping, is `EFAULT`, and what cannot grow where it lies is `ENOMEM`.
    ///
    /// ```
    /// use hostmem_core::provider::{Error, ErrorKind};
    /// assert_eq!(Error::of(ErrorKind::Taken).errno_like(), 17);
    /// ```
    #[must_use]
    pub const fn errno_like(self) -> i32 {
        if self.like != 0 {
            return self.like as i32;
        }
        let errno = match self.errno {
            Some(errno) => errno.get(),
            None => 0,
        };
        let like = match self.kind {
            ErrorKind::Taken => linux::EEXIST,
            ErrorKind::Exhausted | ErrorKind::RangeLost | ErrorKind::OutsideRange => linux::ENOMEM,
            ErrorKind::Denied if errno == linux::EPERM as i32 => linux::EPERM,
            ErrorKind::Denied => linux::EACCES,
            // Numbers up to that one are those of V7 Unix, but for one.
            ErrorKind::Other
                if errno > 0 && errno <= linux::ERANGE as i32 && errno != linux::EAGAIN as i32 =>
            {
                return errno;
            }
            ErrorKind::InvalidArgument | ErrorKind::Unsupported | ErrorKind::Other => linux::EINVAL,
        };
        like as i32
    }

    /// Returns the system's error number, where the system reported the error.
    #[must_use]
    pub const fn errno(self) -> Option<i32> {
        match self.errno {
            Some(n) => Some(n.get()),
            None => None,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted => "out of memory, addresses or descriptors",
            Self::Taken => "the place is in use",
            Self::OutsideRange => "the place is outside the allowed range",
            Self::Denied => "refused by the host's policy",
            Self::Unsupported => "not supported by the host",
            Self::InvalidArgument => "invalid argument",
            Self::RangeLost => "the range was lost to another mapping",
            Self::Other => "unexpected system error",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Some(n) => write!(f, "{} (errno {n})", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl core::error::Error for Error {}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::of(kind)
    }
}
