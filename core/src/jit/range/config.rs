//! What a code range can be told.

use crate::{
    config::{ConfigError, Step, check},
    jit::Mapping,
    page::AddressRange,
    provider::{Fork, PageWish, Placement},
};
use core::{ffi::CStr, ops::RangeInclusive};

/// The configuration of a [`CodeRange`](super::CodeRange).
///
/// ```
/// use hostmem_core::jit::{CodeRangeConfig, Mapping};
/// let config = CodeRangeConfig::new(64 << 20).mapping(Mapping::Auto).guard(4096);
/// assert!(config.check().is_ok());
/// assert!(CodeRangeConfig::new(3 << 30).check().is_err());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CodeRangeConfig {
    pub(super) len: usize,
    pub(super) mapping: Mapping,
    pub(super) rx: Placement,
    pub(super) guard: usize,
    pub(super) pages: PageWish,
    pub(super) fork: Fork,
    pub(super) name: &'static CStr,
}

impl CodeRangeConfig {
    /// Bytes that a range may have: up to 2 GiB, so that a relative call reaches from one end to
    /// the other on x86-64.
    pub const LEN: RangeInclusive<usize> = 1..=1 << 31;

    /// Bytes that may stay inaccessible at each end.
    pub const GUARD: RangeInclusive<usize> = 0..=1 << 31;

    /// Asks for `len` bytes of code, rounded up to pages: mapped twice, anywhere, without guards.
    #[must_use]
    pub const fn new(len: usize) -> Self {
        Self {
            len,
            mapping: Mapping::Dual,
            rx: Placement::ANYWHERE,
            guard: 0,
            pages: PageWish::Base,
            fork: Fork::ChildLosesRw,
            name: c"hostmem: code",
        }
    }

    /// Sets how the range is mapped; default [`Mapping::Dual`].
    #[must_use]
    pub const fn mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// Sets where the executable view lies, guards included; default anywhere.
    #[must_use]
    pub const fn within(mut self, range: AddressRange) -> Self {
        self.rx.within = range;
        self
    }

    /// Sets the placement of the executable view: [`Placement::near`] for relative branches to
    /// functions of the program.
    #[must_use]
    pub const fn placement(mut self, placement: Placement) -> Self {
        self.rx = placement;
        self
    }

    /// Sets how many bytes before and behind the executable view stay inaccessible, rounded up to
    /// pages; default none.
    #[must_use]
    pub const fn guard(mut self, bytes: usize) -> Self {
        self.guard = bytes;
        self
    }

    /// Sets the pages wanted; default the host's. Where the range is mapped once and toggled,
    /// [`PageWish::Large`] is taken for [`PageWish::Transparent`].
    #[must_use]
    pub const fn pages(mut self, pages: PageWish) -> Self {
        self.pages = pages;
        self
    }

    /// Sets what a forked child sees of a range that is mapped twice; default
    /// [`Fork::ChildLosesRw`]. [`Fork::Detach`] is not to be had: code ranges are long, and a child
    /// that wants to translate makes a range of its own.
    #[must_use]
    pub const fn fork(mut self, fork: Fork) -> Self {
        self.fork = fork;
        self
    }

    /// Sets the name in the process map, where the host keeps names.
    #[must_use]
    pub const fn name(mut self, name: &'static CStr) -> Self {
        self.name = name;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first setting that has a value out of its range. `fork` has no range: it has the value 1
    /// where it is [`Fork::Detach`].
    pub fn check(&self) -> Result<(), ConfigError> {
        check("len", self.len, Self::LEN, Step::One)?;
        check("guard", self.guard, Self::GUARD, Step::One)?;
        let most = 1..=isize::MAX.unsigned_abs();
        check("align", self.rx.align, most, Step::Power)?;
        if let PageWish::Large { bytes, .. } = self.pages {
            check("pages", bytes, Self::LEN, Step::Power)?;
        }
        let detaches = usize::from(self.fork == Fork::Detach);
        check("fork", detaches, 0..=0, Step::One)
    }
}
