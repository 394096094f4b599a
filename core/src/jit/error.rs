//! Errors of the JIT allocator. Each of them means that nothing changed, except as it says.

use crate::{
    config::ConfigError,
    provider::{DualError, Error},
};
use core::fmt;

/// Why a call of the JIT allocator failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JitError {
    /// The configuration has a value out of its range.
    Config(ConfigError),
    /// The configuration asks for what the CPU or the provider does not have.
    Unsupported,
    /// The process has made 2^40 allocators, resets included, and there are no more numbers.
    TooManyAllocators,
    /// A size of zero, or one too large for any block.
    InvalidSize,
    /// An alignment that is no power of two, or a place that is neither anywhere nor near.
    InvalidPlacement,
    /// A write would leave its span.
    OutOfBounds,
    /// A span cannot grow by shrinking.
    Grow,
    /// The address, or the span, is not this allocator's.
    NotOwned,
    /// The address is this allocator's, but no live span is there: it was released, or never
    /// allocated, or it is padding.
    NotLive,
    /// The address lies inside a live span, not at its start.
    Interior,
    /// The span cannot be written in this forked child: its fork policy took the writable view.
    ReadOnly,
    /// The configuration gives spans no word, or no such long one, or no group.
    Untagged,
    /// A new block would take more than the configuration allows.
    Limit,
    /// As many retired spans wait as the configuration allows.
    QueueFull,
    /// As many executors are registered as the configuration allows.
    TooManyExecutors,
    /// No memory for metadata.
    Metadata(Error),
    /// No new block could be mapped; each strategy's error is inside.
    Map(DualError),
    /// The bytes are written, but other cores could not be made to see them.
    SyncCores(Error),
    /// Pages of a block that is mapped once could not be made writable, and nothing was written; or
    /// not executable again, and everything was.
    Protect(Error),
}

impl fmt::Display for JitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(e) => write!(f, "invalid configuration: {e}"),
            Self::Unsupported => {
                f.write_str("the CPU or the host lacks what the configuration asks for")
            }
            Self::TooManyAllocators => f.write_str("too many allocators were made already"),
            Self::InvalidSize => f.write_str("the size is zero or too large"),
            Self::InvalidPlacement => f.write_str("no such placement for a span"),
            Self::OutOfBounds => f.write_str("the write would leave its span"),
            Self::Grow => f.write_str("a span cannot grow by shrinking"),
            Self::NotOwned => f.write_str("the address is not this allocator's"),
            Self::NotLive => f.write_str("no live span is at the address"),
            Self::Interior => f.write_str("the address lies inside a span, not at its start"),
            Self::ReadOnly => f.write_str("the span cannot be written in this forked child"),
            Self::Untagged => f.write_str("spans carry no such word or group"),
            Self::Limit => f.write_str("the configured limit is reached"),
            Self::QueueFull => f.write_str("too many retired spans wait already"),
            Self::TooManyExecutors => f.write_str("too many executors are registered already"),
            Self::Protect(e) => write!(f, "pages could not be made writable, or executable: {e}"),
            Self::Metadata(e) => write!(f, "no memory for metadata: {e}"),
            Self::Map(e) => write!(f, "no block for code: {e}"),
            Self::SyncCores(e) => {
                write!(f, "written, but other cores could not be synchronized: {e}")
            }
        }
    }
}

impl core::error::Error for JitError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Metadata(e) | Self::SyncCores(e) | Self::Protect(e) => Some(e),
            Self::Map(e) => Some(e),
            Self::Config(e) => Some(e),
            _ => None,
        }
    }
}

impl From<DualError> for JitError {
    fn from(error: DualError) -> Self {
        Self::Map(error)
    }
}
