//! What is asked of a provider of dual mappings.

use super::{DualError, DualView};
use crate::{
    page::{PageRange, PageSize},
    provider::{ErrorKind, PageWish, Placement, Request},
};
use core::ffi::CStr;

/// Where one view goes.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Onto a hole that the provider finds.
    Find(Placement),
    /// Onto this range, which the caller has reserved. Align and length are the caller's care.
    Into(PageRange),
}

impl Target {
    /// Anywhere at all.
    pub const ANYWHERE: Self = Self::Find(Placement::ANYWHERE);
}

/// What a forked child sees of a dual mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fork {
    /// A bare child has no writable view, and its executable view follows the parent. A child that
    /// runs the owner's `fork_child` gets a private copy of both views at the same addresses.
    #[default]
    Detach,
    /// The child has no writable view. Its executable view still shows the parent's later writes.
    ChildLosesRw,
    /// The child has neither view.
    ChildLosesBoth,
    /// Parent and child share both views; each can change the other's code.
    Share,
}

impl Fork {
    /// Returns which views a forked child loses at once: the writable and the executable one.
    #[must_use]
    pub const fn lost_views(self) -> (bool, bool) {
        match self {
            Self::Detach | Self::ChildLosesRw => (true, false),
            Self::ChildLosesBoth => (true, true),
            Self::Share => (false, false),
        }
    }
}

/// A request for a dual mapping.
#[derive(Clone, Copy, Debug)]
pub struct DualRequest<'a> {
    /// Bytes of each view, a multiple of the page size (of the large page where one is asked for).
    pub len: usize,
    /// The fewest bytes that will do where a view's place is searched for, a multiple of the same
    /// page size; `None` for no fewer than `len`. Both views are as long as the shorter of the two
    /// holes. A target range, and a place that the host chooses, is `len` bytes long or none.
    pub min_len: Option<usize>,
    /// Where the writable view goes.
    pub rw: Target,
    /// Where the executable view goes.
    pub rx: Target,
    /// The pages wanted.
    pub pages: PageWish,
    /// Whether indirect branches into the executable view must land on a landing pad. Not without
    /// [`Capabilities::LANDING_PADS`](crate::provider::Capabilities::LANDING_PADS).
    pub landing_pads: bool,
    /// What a forked child sees.
    pub fork: Fork,
    /// A name for the process map, where the host keeps names.
    pub name: Option<&'a CStr>,
}

impl<'a> DualRequest<'a> {
    /// Asks for two views of `len` bytes, each anywhere, with the default fork policy.
    #[must_use]
    pub const fn bytes(len: usize) -> Self {
        Self {
            len,
            min_len: None,
            rw: Target::ANYWHERE,
            rx: Target::ANYWHERE,
            pages: PageWish::Base,
            landing_pads: false,
            fork: Fork::Detach,
            name: None,
        }
    }

    /// Validates length and targets for a host with pages of `page`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a length that is zero or no multiple of the page size, a
    /// least length that is that too or above the length, a target range of another length, or two
    /// target ranges that overlap; and what [`Request::plan`](crate::provider::Request::plan) says
    /// of a placement. [`DualError::unplaced`] tells which view cannot lie where it was asked for.
    pub fn validate(&self, page: PageSize) -> Result<(), DualError> {
        let invalid = Err(DualError::of(ErrorKind::InvalidArgument));
        let whole = |len: usize| len != 0 && page.is_aligned(len);
        if !whole(self.len) || self.min_len.is_some_and(|n| !whole(n) || n > self.len) {
            return invalid;
        }
        for (view, target) in [(DualView::Rw, &self.rw), (DualView::Rx, &self.rx)] {
            match target {
                Target::Find(placement) => {
                    let request = Request {
                        min_len: self.min_len,
                        ..Request::bytes(self.len).placement(*placement)
                    };
                    let plan = request.plan(page);
                    plan.map_err(|error| match error.kind() {
                        ErrorKind::OutsideRange => DualError::unplaceable(view, error),
                        _ => error.into(),
                    })?;
                }
                Target::Into(range) if range.len_bytes() != self.len => return invalid,
                Target::Into(_) => {}
            }
        }
        match (self.rw, self.rx) {
            (Target::Into(rw), Target::Into(rx)) if rw.overlaps(rx) => invalid,
            _ => Ok(()),
        }
    }
}
