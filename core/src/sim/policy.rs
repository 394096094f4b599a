//! What a simulated host is like, and what it remembers of a wrong call.

use super::SimState;
use crate::{
    page::PageSize,
    provider::{Capabilities, Purged},
};
use core::fmt;

/// What the simulated host is like.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Its page size; not less than the base's.
    pub page: PageSize,
    /// The bytes of its address space.
    pub space: usize,
    /// What it can do; limited to what the base can.
    pub capabilities: Capabilities,
    /// What its pages show after a purge: nothing it gives back is taken where that is not zero.
    pub purged: Purged,
}

impl Policy {
    /// A host with pages of `page`, 1 GiB of addresses, and all that the base can do.
    #[must_use]
    pub const fn new(page: PageSize) -> Self {
        Self {
            page,
            space: 1 << 30,
            capabilities: Capabilities::all(),
            purged: Purged::Zero,
        }
    }

    /// Sets what pages show after a purge.
    #[must_use]
    pub const fn purged(mut self, shown: Purged) -> Self {
        self.purged = shown;
        self
    }

    /// Takes capabilities away.
    #[must_use]
    pub const fn without(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = self.capabilities.difference(capabilities);
        self
    }

    /// Sets the bytes of the address space.
    #[must_use]
    pub const fn space(mut self, bytes: usize) -> Self {
        self.space = bytes;
        self
    }
}

/// A call that started from the wrong state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// The call.
    pub call: &'static str,
    /// The first page that was in the wrong state.
    pub addr: usize,
    /// The state it was in.
    pub found: SimState,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {:#x}, which is {:?}",
            self.call, self.addr, self.found
        )
    }
}
