//! The report of what a host allows: made by a backend, the same shape on every system.

#[cfg(not(all(test, loom)))]
mod system;

#[cfg(not(all(test, loom)))]
pub use system::ProbeSystem;

use crate::{
    page::PageSize,
    provider::{DualStep, Error, MAX_DUAL_STEPS},
};

/// The most sizes of large pages that a report has room for.
pub const MAX_LARGE_SIZES: usize = 8;

/// A size of large pages that the host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LargePageSize {
    /// Bytes of one page.
    pub size: PageSize,
    /// Pages set aside for this size; `None` where the host does not say.
    pub total: Option<usize>,
    /// Pages of them that are free; `None` where the host does not say.
    pub free: Option<usize>,
}

impl LargePageSize {
    /// Describes a size of which the host says no more.
    #[must_use]
    pub const fn of_size(size: PageSize) -> Self {
        Self {
            size,
            total: None,
            free: None,
        }
    }
}

/// A setting of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The host does not have it.
    Absent,
    /// It is there and off.
    Off,
    /// It is there and on.
    On,
}

/// What a host allows, found by trying. Trying left nothing behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// The page size.
    pub page_size: PageSize,
    /// The sizes of large pages that the host knows.
    pub large_pages: [Option<LargePageSize>; MAX_LARGE_SIZES],
    /// Bits of a user-space address; `None` where it could not be found out.
    pub address_bits: Option<u32>,
    /// Whether memory can be writable and executable at once.
    pub rwx: Result<(), Error>,
    /// Whether a page can go from writable to executable by protection.
    pub toggle_exec: Result<(), Error>,
    /// Each strategy for dual mappings, and whether it works. No debugger can write breakpoints
    /// into the executable view of one (`PTRACE_POKETEXT` fails, on Linux with `EIO`): it is a
    /// shared view that can never become writable. In code that is mapped once it can.
    pub dual: [Option<(DualStep, Result<(), Error>)>; MAX_DUAL_STEPS],
    /// Whether pages can refuse indirect branches that do not land on a landing pad.
    pub landing_pads: Result<(), Error>,
    /// Whether other cores can be made to see new instructions.
    pub core_sync: Result<(), Error>,
    /// Linux: memory-deny-write-execute. NetBSD: PaX MPROTECT. FreeBSD: W^X, `kern.elf64.allow_wx`.
    pub deny_write_execute: Setting,
    /// Linux: `personality(READ_IMPLIES_EXEC)` of the thread that asked: whatever is readable is
    /// executable too, so that no writable memory is without execution. Absent where the host does
    /// not have it, or a filter keeps it from being asked.
    pub read_implies_exec: Setting,
    /// Linux: `vm.memfd_noexec`, 0 to 2.
    pub memfd_noexec: Option<u8>,
    /// Linux: `vm.max_map_count`, how many mappings a process may have.
    pub max_map_count: Option<usize>,
    /// Whether the process map can be read.
    pub process_map: Result<(), Error>,
}

impl Probe {
    /// Returns the sizes of large pages that the host knows.
    pub fn large_pages(&self) -> impl Iterator<Item = LargePageSize> + '_ {
        self.large_pages.iter().flatten().copied()
    }

    /// Returns each strategy for dual mappings, in the order of preference.
    pub fn dual(&self) -> impl Iterator<Item = (DualStep, Result<(), Error>)> + '_ {
        self.dual.iter().flatten().copied()
    }

    /// Returns the strategy that dual mappings will use, if any works.
    #[must_use]
    pub fn best_dual(&self) -> Option<DualStep> {
        self.dual()
            .find(|(_, works)| works.is_ok())
            .map(|(step, _)| step)
    }
}
