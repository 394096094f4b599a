//! Why there is no dual mapping.

use super::{DualStep, MAX_DUAL_STEPS};
use crate::{
    page::PageRange,
    provider::{Error, ErrorKind},
};
use core::fmt;

/// One of the two views of a dual mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DualView {
    /// The writable view.
    Rw,
    /// The executable view.
    Rx,
}

impl fmt::Display for DualView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rw => "writable view",
            Self::Rx => "executable view",
        })
    }
}

/// Why no dual mapping could be made: a view that has no place, or each strategy tried, with its
/// error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DualError {
    pub(super) cause: Error,
    pub(super) reason: Reason,
    pub(super) steps: [Option<(DualStep, Error)>; MAX_DUAL_STEPS],
}

/// What else there is to say; one field, so that errors stay short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A target range was lost.
    Lost(PageRange),
    /// A view has no place, if there is one.
    Unplaced(Option<DualView>),
}

impl DualError {
    /// Makes an error that came before any strategy was tried.
    #[must_use]
    pub const fn of(kind: ErrorKind) -> Self {
        Self::before_any_step(Error::of(kind))
    }

    /// Makes the error of a view that has no place where it was asked for.
    #[must_use]
    pub const fn unplaceable(view: DualView, cause: Error) -> Self {
        Self {
            reason: Reason::Unplaced(Some(view)),
            ..Self::before_any_step(cause)
        }
    }

    const fn before_any_step(cause: Error) -> Self {
        Self {
            cause,
            reason: Reason::Unplaced(None),
            steps: [None; MAX_DUAL_STEPS],
        }
    }

    /// Returns why a view has no place, if one has none; else the first strategy's error, the one
    /// that a better-equipped host would not have had; the error of the last where that lost a
    /// target range; what was wrong where none was tried.
    #[must_use]
    pub const fn cause(&self) -> Error {
        self.cause
    }

    /// Returns the kind of [`DualError::cause`].
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.cause.kind()
    }

    /// Returns the system's error number in [`DualError::cause`].
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        self.cause.errno()
    }

    /// Returns the view that has no place where it was asked for, if that is the reason: the place
    /// is in use ([`ErrorKind::Taken`]), lies outside the range asked for
    /// ([`ErrorKind::OutsideRange`]), or the range has no hole of the least length that will do
    /// ([`ErrorKind::Exhausted`]). No strategy could change that, and a shorter mapping of at least
    /// [`DualRequest::min_len`](super::DualRequest::min_len) bytes neither.
    #[must_use]
    pub const fn unplaced(&self) -> Option<DualView> {
        match self.reason {
            Reason::Unplaced(view) => view,
            Reason::Lost(_) => None,
        }
    }

    /// Says whether memory, descriptors or room in a file system was short, for the call as a whole
    /// or for any strategy, so that fewer bytes may be had. Not where a view has no place.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        let short = |error: Error| error.kind() == ErrorKind::Exhausted;
        self.unplaced().is_none()
            && (short(self.cause) || self.steps().any(|(_, error)| short(error)))
    }

    /// Returns the target range that now belongs to somebody else, if one was lost.
    #[must_use]
    pub const fn lost(&self) -> Option<PageRange> {
        match self.reason {
            Reason::Lost(range) => Some(range),
            Reason::Unplaced(_) => None,
        }
    }

    /// Returns each strategy that was tried, in order, and why it failed.
    pub fn steps(&self) -> impl Iterator<Item = (DualStep, Error)> + '_ {
        self.steps.iter().flatten().copied()
    }
}

impl From<Error> for DualError {
    fn from(error: Error) -> Self {
        Self::before_any_step(error)
    }
}

impl fmt::Display for DualError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no dual mapping: ")?;
        if let Some(view) = self.unplaced() {
            write!(f, "no place for the {view}: ")?;
        }
        write!(f, "{}", self.cause)?;
        for (n, (step, error)) in self.steps().enumerate() {
            write!(f, "{} {step}: {error}", if n == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl core::error::Error for DualError {}
