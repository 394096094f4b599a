//! Dual mappings: the same pages seen through a writable and through an executable view.

mod error;
mod mapping;
mod request;
mod run;
mod step;

pub use error::{DualError, DualView};
pub use mapping::DualMapping;
pub use request::{DualRequest, Fork, Target};
pub(super) use run::Host;
pub use run::{DualStepError, DualSteps, run_dual};
pub use step::{DualStep, MAX_DUAL_STEPS, order};

use super::Error;
#[cfg(doc)]
use super::{ErrorKind, PageProvider};

/// What [`DualMapProvider::unmap_dual`] leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leave {
    /// Holes.
    Hole,
    /// Reservations that the caller owns.
    Reserved,
}

/// Makes dual mappings.
///
/// # Safety
///
/// An implementation promises that
/// - both views show the same pages, which read zero at first and belong to the caller alone;
/// - those pages have memory, or the host has promised it: no access to them raises a signal;
/// - `rw` is never executable, and `rx` never writable, where reading does not imply executing
///   ([`Capabilities::EXEC_ONLY_WHERE_ASKED`](super::Capabilities));
/// - a call that fails changes nothing, except what it reports as lost.
///
/// No call of [`PageProvider`] may be made on a view, and none but
/// [`DualMapProvider::unmap_dual`] may be made on a part of one.
pub unsafe trait DualMapProvider: Send + Sync {
    /// Maps new pages twice. Places that are searched for are reserved before anything else is
    /// made: a place that is taken, or a range that is full, is not the fault of a strategy.
    ///
    /// # Errors
    ///
    /// [`DualError`] tells which view has no place, or lists every strategy tried and why it
    /// failed.
    ///
    /// # Safety
    ///
    /// A range in [`Target::Into`] is reserved by the caller from this provider, and no other code
    /// uses it.
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError>;

    /// Unmaps both views.
    ///
    /// # Errors
    ///
    /// What the host says, with the token: both views are then still mapped, or the writable one
    /// is reserved, and the call may be made again. After [`ErrorKind::RangeLost`] the token is
    /// only to be forgotten.
    ///
    /// # Safety
    ///
    /// `mapping` came from this provider, and no other code uses either view.
    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)>;

    /// Gives the pages of `len` bytes from `offset` back to the host. They have no memory until
    /// [`DualMapProvider::refill_dual`] asked for it, and read zero in both views then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a range that is misaligned or leaves the mapping,
    /// [`ErrorKind::Unsupported`] without [`Capabilities::PURGE_DUAL`](super::Capabilities), and
    /// for a mapping that does not [purge](DualMapping::purges).
    ///
    /// # Safety
    ///
    /// `mapping` came from this provider, and no other code uses those pages until they are
    /// refilled: an access before that may raise a signal, where the host has given their memory to
    /// others.
    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error>;

    /// Makes sure that the pages of `len` bytes from `offset` have memory, after they were purged.
    /// Pages that have memory keep it and their contents.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] where the host has no memory left; the pages are as purged as
    /// before, and the call may be made again. [`ErrorKind::InvalidArgument`] for a range that is
    /// misaligned or leaves the mapping.
    ///
    /// # Safety
    ///
    /// `mapping` came from this provider.
    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error>;

    /// Reserves again, in a forked child, the addresses of the views that the fork policy took
    /// away, so that nothing else can land there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RangeLost`] where something else already lies there.
    ///
    /// # Safety
    ///
    /// The caller is the only thread of a process forked since the mapping was made, and calls
    /// once for each mapping.
    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error>;
}
