//! Whose a range is after a call that replaces it failed.

use super::{At, System, map_at};
use crate::{
    page::PageRange,
    provider::{Commit, Error, ErrorKind, MapFlags, consists_of},
};

/// A call that replaces a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// A map of private anonymous memory of the host's pages.
    Map,
    /// A map of a file.
    MapFile,
    /// A map of a file of large pages, which takes them from a pool.
    MapLarge,
    /// A move of a mapping onto the range.
    Move,
}

/// What a range was before a replacing call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// Private anonymous memory: reserved or committed.
    Plain,
    /// A view of a dual mapping.
    View,
}

/// What became of a range after a replacing call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is as it was.
    Unchanged,
    /// There was a hole, which is reserved.
    Reserved,
    /// There was a hole, for all that is known, and somebody else has it.
    Lost,
}

impl Kept {
    /// Returns what to report of a call that failed by `error`.
    #[must_use]
    pub const fn report(self, error: Error) -> Error {
        match self {
            Self::Unchanged | Self::Reserved => error,
            Self::Lost => error.with_kind(ErrorKind::RangeLost),
        }
    }
}

/// Makes sure, after a replacing call failed, that a range is still the caller's. Returns what to
/// report; see [`keep_after`].
#[must_use]
pub fn keep(system: &impl System, call: Call, range: PageRange, was: Was, error: Error) -> Error {
    keep_after(system, call, range, was, error).report(error)
}

/// Makes sure that a range is still the caller's, after a call that replaces it failed.
///
/// Such a call may have unmapped the range before it failed, and another thread may have mapped
/// something there since. Nothing tells another's private anonymous mapping from ours, neither in
/// the process map nor by what can be done with it. So a range that is not a hole is kept only
/// where the call cannot have unmapped it; in doubt it is lost: what is given up by mistake is a
/// leak, what is kept by mistake is somebody else's.
///
/// A limit that the process is at is looked at before anything is unmapped, so that it tells why a
/// call failed. That the call failed for another reason, that another thread filled the very hole
/// with a mapping of the same kind, and that the limit was met only then, is not ruled out, but
/// takes all three at once.
pub fn keep_after(
    system: &impl System,
    call: Call,
    range: PageRange,
    was: Was,
    error: Error,
) -> Kept {
    if system.unmaps_nothing(call, error) {
        return Kept::Unchanged;
    }
    let len = range.len_bytes();
    match map_at(system, range.addr(), len) {
        Ok(_) => Kept::Reserved,
        Err(_) if system.is_at_limit(len, error) && is_still(system, range, was) => Kept::Unchanged,
        Err(_) => Kept::Lost,
    }
}

/// Says whether the range, without a hole, is what it was, as far as can be seen.
fn is_still<S: System>(system: &S, range: PageRange, was: Was) -> bool {
    let expected = match was {
        Was::Plain => MapFlags::empty(),
        Was::View => S::VIEW,
    };
    consists_of(system, range, expected).unwrap_or(false)
}

/// Replaces a range by a reservation.
///
/// # Errors
///
/// What the system says; [`ErrorKind::RangeLost`] where the range is no longer the caller's.
///
/// # Safety
///
/// The range is the caller's, and no other code uses it.
pub unsafe fn reserve_over(system: &impl System, range: PageRange, was: Was) -> Result<(), Error> {
    // SAFETY: the caller gives up what is in the range.
    match unsafe { system.map_reserved(range.len_bytes(), At::Over(range)) } {
        Ok(_) => Ok(()),
        Err(error) => match keep_after(system, Call::Map, range, was, error) {
            // That is what was wanted.
            Kept::Reserved => Ok(()),
            kept => Err(kept.report(error)),
        },
    }
}

/// Replaces a reservation by fresh private memory of the host's pages.
///
/// # Errors
///
/// What the system says; [`ErrorKind::RangeLost`] where the range is no longer the caller's.
///
/// # Safety
///
/// The range is reserved by the caller, and no other code uses it.
pub unsafe fn commit_over(
    system: &impl System,
    range: PageRange,
    how: Commit,
) -> Result<(), Error> {
    // SAFETY: the caller's range is reserved, and no other code uses it.
    unsafe { system.map_committed(range, how) }
        .map_err(|error| keep(system, Call::Map, range, Was::Plain, error))
}
