//! The choices that a configuration makes.

use crate::{arch, page::RwxOptIn};

/// What memory that belongs to no span reads as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fill {
    /// Whatever it held: zero at first, old code later. Costs nothing.
    #[default]
    Keep,
    /// An instruction that traps: `int3`, `brk #0`. A stray jump ends at once. Every new block, and
    /// the memory of every release, shrink and soft reset, is written.
    Trap,
    /// This pattern, in the CPU's byte order, at every address that is a multiple of four.
    Pattern(u32),
}

impl Fill {
    /// Returns the pattern, if any.
    #[must_use]
    pub const fn pattern(self) -> Option<u32> {
        match self {
            Self::Keep => None,
            Self::Trap => Some(arch::TRAP),
            Self::Pattern(pattern) => Some(pattern),
        }
    }
}

/// How blocks are mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mapping {
    /// Twice: written through one view, executed through the other. Nothing is ever both.
    #[default]
    Dual,
    /// Once, executable, and writable instead for the time of a write. A thread that executes code
    /// in the same pages meanwhile faults: no thread may. Pages that several writers share become
    /// executable again when the last of them is done. For hosts that allow
    /// no dual mappings, and programs that do not write while they run; and for debugging, since
    /// a debugger can write breakpoints into this memory, but not into dual mappings.
    Toggle,
    /// As `Dual`; where the host refuses that, as `Toggle`, if it can. A want of memory, of
    /// descriptors or of a place is no refusal: it is an error, and a later call may succeed.
    Auto,
    /// Once, writable and executable at once.
    ReadWriteExec(RwxOptIn),
}

/// Whether blocks are made of large pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LargePages {
    /// The host's pages.
    #[default]
    Never,
    /// Pages of `bytes` for blocks that are a multiple of it; where there are none, and for other
    /// blocks, the host's pages with the advice that larger ones would be welcome.
    Wish {
        /// The page size in bytes, a power of two that the probe lists.
        bytes: usize,
    },
    /// As `Wish`, and every block is made a multiple of `bytes`.
    Align {
        /// The page size in bytes, a power of two that the probe lists.
        bytes: usize,
    },
}

impl LargePages {
    /// Returns the page size in bytes; 1 for the host's.
    pub(in crate::jit) const fn bytes(self) -> usize {
        match self {
            Self::Never => 1,
            Self::Wish { bytes } | Self::Align { bytes } => bytes,
        }
    }
}

/// When other cores are made to see new instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncCores {
    /// When bytes are published where code was published before, on hosts that can: those with
    /// [`Capabilities::CORE_SYNC`]. Memory that never held code needs no barrier, and costs no
    /// system call. On other hosts ([`JitAllocator::syncs_cores`] tells) a thread may run what it
    /// fetched before until it next returns from the kernel.
    ///
    /// [`Capabilities::CORE_SYNC`]: crate::provider::Capabilities::CORE_SYNC
    /// [`JitAllocator::syncs_cores`]: crate::jit::JitAllocator::syncs_cores
    #[default]
    WhenReused,
    /// As `WhenReused`, but a host that cannot is refused when the allocator is made.
    Required,
    /// As `WhenReused`, but a write leaves it to the next [`JitAllocator::publish`] or the end of a
    /// batch: the program publishes code by these. So recycled memory costs no system call for each
    /// write.
    ///
    /// [`JitAllocator::publish`]: crate::jit::JitAllocator::publish
    Deferred,
    /// Never: the program has one thread, or synchronizes its executors itself.
    Never,
}
