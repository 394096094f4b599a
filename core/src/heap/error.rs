//! Errors of the heap. Each of them means that nothing changed, but that corrupt blocks are given
//! up.

use super::HeapConfig;
use crate::{config::ConfigError, provider::Error};
use core::{fmt, mem::size_of, ptr::NonNull};

/// Why a call of the heap failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeapError {
    /// The configuration has a value out of its range.
    Config(WrongSetting),
    /// The provider's pages are larger than a granule of 64 KiB.
    PagesTooLarge,
    /// A state that cannot be: a fault of this library. Nothing changed.
    Internal,
    /// No host has memory of such a size or alignment.
    InvalidSize,
    /// The address is not this heap's.
    NotOwned,
    /// The address is this heap's, but no live block is there: it was freed, or never allocated.
    NotLive,
    /// The address lies inside a live block, not at its start.
    Interior,
    /// The block was written beyond what was asked for: found when it was freed or resized, at
    /// [`Hardening::Full`](super::Hardening::Full). If it was freed it is not live any more, and
    /// its memory never serves again.
    Overflow(BlockAddr),
    /// The block was written after it was freed, or before it was ever handed out: found when it
    /// was to be handed out, at [`Hardening::Full`](super::Hardening::Full). Its memory never
    /// serves again; another call gets another block.
    WriteAfterFree(BlockAddr),
    /// The layout that a free or a resize was told is not that of the block: found at
    /// [`Hardening::Full`](super::Hardening::Full). The block stays as it is.
    WrongLayout(BlockAddr),
    /// A call that must not wait would have had to, or the thread is in a call of the heap already.
    Busy,
    /// The heap in a static was [closed](super::GlobalHeap::close), which is final.
    Closed,
    /// The provider has fewer addresses left than a heap needs to begin with: those of its window,
    /// or what a limit leaves.
    TooSmall {
        /// Bytes of addresses that are enough.
        needed: usize,
    },
    /// No memory for metadata.
    Metadata(Error),
    /// No memory for blocks.
    Memory(Error),
}

/// Panics, and cannot unwind, so that the program ends: one that frees what is not allocated cannot
/// be trusted further.
#[cold]
#[expect(clippy::panic, reason = "the only way to end from here")]
pub(super) extern "C" fn end(block: *mut u8, error: &HeapError) {
    match error {
        HeapError::WriteAfterFree(_) => panic!("{error}"),
        _ => panic!("{block:p} cannot be freed: {error}"),
    }
}

/// Where a corrupt block starts.
///
/// It is kept in halves, so that results of the heap still fit in two registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlockAddr([u32; 2]);

const _: () = assert!(size_of::<Result<NonNull<u8>, HeapError>>() <= 16);

impl BlockAddr {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub(super) const fn new(addr: usize) -> Self {
        let addr = addr as u64;
        Self([addr as u32, (addr >> 32) as u32])
    }

    /// Returns the address.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "it was an address")]
    pub const fn addr(self) -> usize {
        ((self.0[1] as u64) << 32 | self.0[0] as u64) as usize
    }
}

/// A setting of a [`HeapConfig`] that has a value out of its range; [`WrongSetting::error`] says
/// what is allowed.
///
/// It is kept short, so that results of the heap still fit in two registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WrongSetting {
    value: [u32; 2],
    setting: Setting,
}

/// Which setting it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    Metadata,
    Shards,
    Segment,
}

impl WrongSetting {
    /// Finds the first setting of a configuration that has a value out of its range.
    pub(super) fn of(config: &HeapConfig) -> Option<Self> {
        let error = config.check().err()?;
        let setting = match error.setting() {
            "metadata" => Setting::Metadata,
            "shards" => Setting::Shards,
            _ => Setting::Segment,
        };
        Some(Self {
            value: BlockAddr::new(error.value()).0,
            setting,
        })
    }

    /// Returns the setting's name, its value and what is allowed.
    #[must_use]
    pub fn error(self) -> ConfigError {
        let value = BlockAddr(self.value).addr();
        let config = HeapConfig::new();
        let config = match self.setting {
            Setting::Metadata => config.metadata(value),
            Setting::Shards => config.shards(value),
            Setting::Segment => config.segment(value),
        };
        // It is the value that was refused.
        let refused = config.check().err();
        refused.unwrap_or_else(|| ConfigError::of_value("a setting", value))
    }
}

impl fmt::Display for WrongSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl fmt::Debug for WrongSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl HeapError {
    /// Says whether the block that was given up is none that can be.
    pub(super) const fn is_invalid_free(self) -> bool {
        matches!(
            self,
            Self::NotOwned | Self::NotLive | Self::Interior | Self::WrongLayout(_)
        )
    }
}

impl fmt::Display for BlockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the block at {:#x}", self.addr())
    }
}

impl fmt::Debug for BlockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.addr())
    }
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(e) => write!(f, "invalid configuration: {e}"),
            Self::PagesTooLarge => f.write_str("the host's pages are longer than 64 KiB"),
            Self::Internal => f.write_str("a fault of the heap itself"),
            Self::InvalidSize => f.write_str("no host has memory of that size or alignment"),
            Self::NotOwned => f.write_str("the address is not this heap's"),
            Self::NotLive => f.write_str("no live block is at the address"),
            Self::Interior => f.write_str("the address lies inside a block, not at its start"),
            Self::Overflow(addr) => write!(f, "{addr} was written beyond its end"),
            Self::WriteAfterFree(addr) => write!(f, "{addr} was written while it was free"),
            Self::WrongLayout(addr) => write!(f, "{addr} was asked for by another layout"),
            Self::Busy => f.write_str("the heap is locked, and the call must not wait"),
            Self::Closed => f.write_str("the heap is closed"),
            Self::TooSmall { needed } => {
                write!(
                    f,
                    "fewer addresses are left than the {needed} bytes that a heap needs"
                )
            }
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
