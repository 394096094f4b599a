//! Errors of the heap. Each of them means that nothing changed.

use crate::provider::Error;
use core::fmt;

/// Why a call of the heap failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeapError {
    /// The configuration has a value out of its range, or the provider's pages are larger than a
    /// granule.
    Config,
    /// No host has memory of such a size or alignment.
    InvalidSize,
    /// The address is not this heap's.
    NotOwned,
    /// The address is this heap's, but no live block is there: it was freed, or never allocated.
    NotLive,
    /// The address lies inside a live block, not at its start.
    Interior,
    /// A call that must not wait would have had to, or the thread is in a call of the heap already.
    Busy,
    /// No memory for metadata.
    Metadata(Error),
    /// No memory for blocks.
    Memory(Error),
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("invalid configuration, or pages larger than a granule"),
            Self::InvalidSize => f.write_str("no host has memory of that size or alignment"),
            Self::NotOwned => f.write_str("the address is not this heap's"),
            Self::NotLive => f.write_str("no live block is at the address"),
            Self::Interior => f.write_str("the address lies inside a block, not at its start"),
            Self::Busy => f.write_str("the heap is locked, and the call must not wait"),
            Self::Metadata(e) => write!(f, "no memory for metadata: {e}"),
            Self::Memory(e) => write!(f, "no memory for blocks: {e}"),
        }
    }
}

impl core::error::Error for HeapError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Metadata(e) | Self::Memory(e) => Some(e),
            _ => None,
        }
    }
}
