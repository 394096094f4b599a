//! The strategies that make dual mappings, and in which order hosts try them.

use core::fmt;

/// A way to make a dual mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DualStep {
    /// `memfd_create`.
    Memfd,
    /// `memfd_create` with large pages.
    MemfdLarge,
    /// An anonymous shared-memory object: `shm_open(SHM_ANON)`, `shm_mkstemp`.
    AnonShm,
    /// An anonymous shared-memory object of large pages: `shm_create_largepage(SHM_ANON)`.
    AnonShmLarge,
    /// A duplicate of an existing mapping: `mremap(MAP_REMAPDUP)`.
    RemapDup,
    /// A named shared-memory object, unlinked at once.
    PosixShm,
    /// An unlinked file in `/dev/shm`.
    DevShm,
    /// An unlinked file in the provider's nth directory.
    Directory(u8),
    /// Two views of memory that a simulated or user-supplied provider makes in its own way.
    Provider,
}

impl DualStep {
    /// Says whether the strategy makes large pages, or nothing.
    #[must_use]
    pub const fn has_large_pages(self) -> bool {
        matches!(self, Self::MemfdLarge | Self::AnonShmLarge)
    }
}

impl fmt::Display for DualStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memfd => f.write_str("memfd_create"),
            Self::MemfdLarge => f.write_str("memfd_create with large pages"),
            Self::AnonShm => f.write_str("anonymous shared memory"),
            Self::AnonShmLarge => f.write_str("anonymous shared memory of large pages"),
            Self::RemapDup => f.write_str("mremap duplicate"),
            Self::PosixShm => f.write_str("shm_open"),
            Self::DevShm => f.write_str("file in /dev/shm"),
            Self::Directory(n) => write!(f, "file in directory {n}"),
            Self::Provider => f.write_str("provider's own"),
        }
    }
}

/// The orders in which strategies are tried: data, so that they can be read, tested and changed in
/// one place. Best first: what needs no file system, then what needs the least of one.
pub mod order {
    use super::DualStep::{
        self, AnonShm, AnonShmLarge, DevShm, Directory, Memfd, MemfdLarge, PosixShm, RemapDup,
    };

    /// Directories that a provider can be given.
    pub const MAX_DIRECTORIES: usize = 4;

    /// Linux.
    pub const LINUX: &[DualStep] = &[
        Memfd,
        DevShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// Linux, where large pages are asked for and the host's pages will do.
    pub const LINUX_LARGE: &[DualStep] = &[
        MemfdLarge,
        Memfd,
        DevShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// Linux, where only large pages will do.
    pub const LINUX_ONLY_LARGE: &[DualStep] = &[MemfdLarge];

    /// FreeBSD.
    pub const FREEBSD: &[DualStep] = &[
        AnonShm,
        Memfd,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// FreeBSD, where large pages are asked for and the host's pages will do.
    pub const FREEBSD_LARGE: &[DualStep] = &[
        AnonShmLarge,
        AnonShm,
        Memfd,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// FreeBSD, where only large pages will do.
    pub const FREEBSD_ONLY_LARGE: &[DualStep] = &[AnonShmLarge];

    /// DragonFly.
    pub const DRAGONFLY: &[DualStep] = &[
        PosixShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];

    /// OpenBSD.
    pub const OPENBSD: &[DualStep] = &[
        AnonShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];

    /// NetBSD, where the system finds a hole for the executable view.
    pub const NETBSD: &[DualStep] = &[
        RemapDup,
        Memfd,
        PosixShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// NetBSD, where the executable view replaces a reservation. A descriptor's mapping does that
    /// in one step. A duplicate cannot: the reservation goes first, and another thread's mapping
    /// may get in between, so the last resort is the only step that can lose the range.
    pub const NETBSD_INTO: &[DualStep] = &[
        Memfd,
        PosixShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
        RemapDup,
    ];
}

/// The most strategies that one call tries: the longest of [`order`], and one to spare.
pub const MAX_DUAL_STEPS: usize = 8;
