//! The token of a dual mapping.

use super::{DualStep, Fork};
use crate::page::{PageRange, PageSize};

/// Two views of the same pages: the token of their ownership.
///
/// ```text
///   rw ─► ┌────────────┐      ┌────────────┐ ◄─ rx
///         │ read/write │ ═══► │ read/exec  │
///         └────────────┘ same └────────────┘
///                        pages
/// ```
#[derive(Debug)]
#[must_use = "dropping the token leaks both views"]
pub struct DualMapping {
    rw: PageRange,
    rx: PageRange,
    step: DualStep,
    page: PageSize,
    fork: Fork,
    purges: bool,
}

impl DualMapping {
    /// Makes the token of a mapping that `step` made with pages of `page`. It
    /// [purges](DualMapping::purges) unless [`DualMapping::without_purge`] says otherwise.
    ///
    /// # Safety
    ///
    /// `rw` and `rx` are equally long, do not overlap, show the same pages, and belong to no
    /// other owner; no other token for them exists.
    pub unsafe fn from_parts(
        rw: PageRange,
        rx: PageRange,
        step: DualStep,
        page: PageSize,
        fork: Fork,
    ) -> Self {
        debug_assert!(rw.len_bytes() == rx.len_bytes(), "views are equally long");
        debug_assert!(!rw.overlaps(rx), "views do not overlap");
        Self {
            rw,
            rx,
            step,
            page,
            fork,
            purges: true,
        }
    }

    /// Says that the pages of this mapping cannot be given back before it is unmapped.
    pub const fn without_purge(self) -> Self {
        Self {
            purges: false,
            ..self
        }
    }

    /// Returns the writable view.
    #[must_use]
    pub const fn rw(&self) -> PageRange {
        self.rw
    }

    /// Returns the executable view.
    #[must_use]
    pub const fn rx(&self) -> PageRange {
        self.rx
    }

    /// Returns the length of each view in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.rw.len_bytes()
    }

    /// Returns the strategy that made the mapping.
    #[must_use]
    pub const fn step(&self) -> DualStep {
        self.step
    }

    /// Returns the size of the pages got.
    #[must_use]
    pub const fn page_size(&self) -> PageSize {
        self.page
    }

    /// Returns what a forked child sees.
    #[must_use]
    pub const fn fork(&self) -> Fork {
        self.fork
    }

    /// Says whether [`DualMapProvider::purge_dual`](super::DualMapProvider::purge_dual) serves this
    /// mapping. A provider without
    /// [`Capabilities::PURGE_DUAL`](crate::provider::Capabilities) makes none that it serves; one
    /// that has the capability may make some that it does not, where the host leaves no other way
    /// to keep the executable view from becoming writable.
    #[must_use]
    pub const fn purges(&self) -> bool {
        self.purges
    }
}
