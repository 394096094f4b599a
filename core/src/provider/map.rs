//! The mappings of this process, and what a host tells of its address space.

use super::Error;
use crate::page::AddressRange;

bitflags::bitflags! {
    /// What the process map says of a mapping.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u8 {
        /// Readable.
        const READ = 1 << 0;
        /// Writable.
        const WRITE = 1 << 1;
        /// Executable.
        const EXEC = 1 << 2;
        /// Writes are seen by other mappings of the same object.
        const SHARED = 1 << 3;
        /// Backed by a file or another named object.
        const OBJECT = 1 << 4;
        /// Grows downwards into the addresses below it, which no mapping keeps for it: the main
        /// thread's stack on Linux. Hosts that map a stack at its full length do not set it.
        const GROWS = 1 << 5;
    }
}

/// One mapping of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Where it lies.
    pub range: AddressRange,
    /// What it is.
    pub flags: MapFlags,
}

/// What a host tells of the address space of this process, beside its mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressSpace {
    /// The addresses that a mapping can have.
    pub user: Option<AddressRange>,
    /// An address in the main thread's stack, where that [grows](MapFlags::GROWS): for whoever
    /// finds no map to see it in.
    pub stack: Option<usize>,
    /// How long a mapping that [grows](MapFlags::GROWS) may become, in bytes; `usize::MAX` where
    /// nothing limits it.
    pub stack_limit: Option<usize>,
    /// The address behind the memory that `brk` gives, which it would give next.
    pub program_break: Option<usize>,
}

/// Knows the mappings of this process.
pub trait ProcessMap: Send + Sync {
    /// Calls `visit` for every mapping in ascending order until it returns `false`, without
    /// allocating. Mappings that change meanwhile may be missed or seen twice.
    ///
    /// # Errors
    ///
    /// Where the host keeps no map or does not show it. Some entries may have been visited.
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error>;

    /// Returns what the host tells of the address space now. By default, nothing.
    fn address_space(&self) -> AddressSpace {
        AddressSpace::default()
    }
}
