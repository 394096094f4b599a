//! What the cases are written with: pages that know their state, so that a case is safe code.

mod bytes;
mod region;
mod snapshot;
mod views;

pub(crate) use bytes::{fill, first_difference, first_nonzero};
pub(crate) use region::Region;
pub(crate) use snapshot::Snapshot;
pub(crate) use views::Views;

use hostmem_core::provider::{DualError, Error, ErrorKind};

/// How often a case starts over because another thread mapped something in the hole that it was
/// about to use. That takes bad luck once; this many times in a row, it is a broken provider.
const TRIES: usize = 16;

/// Runs `attempt` until it answers; `None` means that another thread seems to have interfered.
///
/// # Panics
///
/// When it never answers: then it was not another thread.
pub(crate) fn undisturbed<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(answer) = attempt() {
            return answer;
        }
    }
    panic!("{what}: failed {TRIES} times in a row, so no other thread is to blame");
}

/// An error with a kind.
pub(crate) trait Kind: core::fmt::Debug {
    fn kind(&self) -> ErrorKind;
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        Self::kind(*self)
    }
}

impl Kind for DualError {
    fn kind(&self) -> ErrorKind {
        Self::kind(self)
    }
}

/// Asserts that a call failed with one of `kinds`.
#[track_caller]
pub(crate) fn expect_refused<T, E: Kind>(result: Result<T, E>, kinds: &[ErrorKind], what: &str) {
    match result {
        Ok(_) => panic!("{what}: succeeded, but must fail with one of {kinds:?}"),
        Err(e) if kinds.contains(&e.kind()) => {}
        Err(e) => panic!("{what}: failed with {e:?}, but must fail with one of {kinds:?}"),
    }
}
