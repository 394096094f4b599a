//! What the map says of the guest's mappings.

use crate::elf::Protection;
use hostmem::{page::Access, range_map::Value};

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Content {
    Image,
    Break,
    Stack,
    Anonymous,
    /// A copy of a file's pages.
    File,
    /// A file's pages themselves.
    Shared,
    /// Code of the emulator's for the guest: the return from signal handlers.
    Trampoline,
    /// The host's: the low heap, and what lay there before the guest came.
    Host,
}

impl Content {
    /// Says whether a file has more of it.
    pub(super) const fn is_of_file(self) -> bool {
        matches!(self, Self::File | Self::Shared)
    }
}

/// What the map says of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) content: Content,
    pub(crate) protection: Protection,
}

impl Value for Mapping {
    fn to_bits(self) -> u32 {
        let Protection {
            read,
            write,
            execute,
        } = self.protection;
        (self.content as u32) << 3
            | u32::from(read)
            | u32::from(write) << 1
            | u32::from(execute) << 2
    }

    fn from_bits(bits: u32) -> Self {
        let content = match bits >> 3 {
            0 => Content::Image,
            1 => Content::Break,
            2 => Content::Stack,
            3 => Content::Anonymous,
            4 => Content::File,
            5 => Content::Shared,
            6 => Content::Trampoline,
            _ => Content::Host,
        };
        let protection = Protection {
            read: bits & 1 != 0,
            write: bits & 2 != 0,
            execute: bits & 4 != 0,
        };
        Self {
            content,
            protection,
        }
    }
}

impl Protection {
    pub(crate) const NONE: Self = Self::of(false, false, false);
    pub(crate) const READ_WRITE: Self = Self::of(true, true, false);
    pub(crate) const READ_EXECUTE: Self = Self::of(true, false, true);

    const fn of(read: bool, write: bool, execute: bool) -> Self {
        Self {
            read,
            write,
            execute,
        }
    }

    /// Returns what the host's pages are: readable where the guest may execute, since it is the
    /// emulator that reads.
    pub(super) const fn access(self) -> Access {
        match self {
            Self { write: true, .. } => Access::ReadWrite,
            Self { read: true, .. } | Self { execute: true, .. } => Access::Read,
            _ => Access::None,
        }
    }
}
