//! Errors of the seam: a portable kind, and the system's errno beside it.

use core::{fmt, num::NonZeroI32};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Error {
    kind: ErrorKind,
    errno: Option<NonZeroI32>,
}

impl Error {
    /// Makes an error that no system call reported.
    #[must_use]
    pub const fn of(kind: ErrorKind) -> Self {
        Self { kind, errno: None }
    }

    /// Makes an error that the system reported as `errno`.
    #[must_use]
    pub const fn os(kind: ErrorKind, errno: i32) -> Self {
        Self {
            kind,
            errno: NonZeroI32::new(errno),
        }
    }

    /// Returns the same system error as another kind.
    #[must_use]
    pub(super) const fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// Returns what went wrong.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        self.kind
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
