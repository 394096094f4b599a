//! The FreeBSD, DragonFly and OpenBSD backend of hostmem: system calls, and nothing that thinks.
//!
//! `no_std`; system calls through the system's libc, by rustix where it has them. An empty crate on
//! other systems. FreeBSD comes first; what differs on the other two is in files of their own,
//! `pages/openbsd.rs` and the like.
//!
//! | file | what it has | man pages |
//! |---|---|---|
//! | `pages` | `PageProvider`: reserve to release | `mmap(2)`, `mprotect(2)` |
//! | `dual` | dual mappings: the views | `mmap(2)`, `minherit(2)` |
//! | `object` | dual mappings: what the views show | `shm_open(2)`, `memfd_create(3)`, `shm_create_largepage(3)` |
//! | `map` | the process map | `sysctl(3)`, `kinfo_getvmmap(3)` |
//! | `limits` | what is left of limits | `getrlimit(2)`, `sysctl(3)` |
//! | `sync` | cores, clock, waiting for locks | `membarrier(2)`, `clock_gettime(2)`, `_umtx_op(2)`, `umtx(2)`, `futex(2)` |
//! | `probe` | what this host allows | `getpagesizes(3)`, `procctl(2)` |
//! | `random` | numbers for keys | `arc4random_buf(3)` |
//! | `errno` | error numbers as kinds | `intro(2)` |
//!
//! # What these systems lack
//!
//! - Nothing empties pages of a shared object through its mapping: `MADV_FREE` and `MADV_DONTNEED`
//!   leave the contents, and `fspacectl(2)` (FreeBSD 14) wants a descriptor, which no dual mapping
//!   keeps. `Capabilities::PURGE_DUAL` is absent.
//! - Other cores can be made to see new instructions by `membarrier(2)` only, which FreeBSD has since
//!   14.1. Elsewhere `Capabilities::CORE_SYNC` is absent.
//! - Pages do not demand landing pads on request. OpenBSD demands them of all code, on CPUs that can.
//!   `Capabilities::LANDING_PADS` is absent.
//! - Mappings have no names; those of requests reach `memfd_create(3)` only.
//! - Private memory has no large pages on request: FreeBSD promotes to superpages by itself. `commit`
//!   with large pages and without the leave to use others is `Unsupported`; dual mappings get them.
//! - Nothing moves pages: `Capabilities::MOVE_PAGES` is absent.
//! - `purge` is `MADV_FREE`, after which pages read zero or show old contents; on FreeBSD, where a
//!   forked process shares memory, contents from before the fork may come back. The system takes
//!   them when it needs memory, so that statistics of resident memory do not fall at once.
//! - `left` knows addresses (FreeBSD, DragonFly) or accessible memory (OpenBSD), and file sizes.
//!   How much is locked, and how many mappings there may be, is not told.
//! - DragonFly shows no process map, and replaces a mapping in two steps: `Capabilities::ATOMIC_INTO`
//!   is absent there.

#![no_std]
#![cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd"))]

mod dual;
mod errno;
mod limits;
mod map;
mod object;
mod pages;
mod probe;
mod random;
mod sync;

pub use sync::{OsFutex, OsLock};

use core::ffi::CStr;
use hostmem_core::provider::order::MAX_DIRECTORIES;

/// Memory from FreeBSD, DragonFly or OpenBSD.
///
/// A handle without state of its own, hence `Copy`.
///
/// ```
/// use hostmem_bsd::BsdProvider;
/// use hostmem_core::provider::{Commit, PageProvider, Request};
///
/// let bsd = BsdProvider::new();
/// let range = bsd.reserve(&Request::bytes(1 << 20))?;
/// // SAFETY: reserved just now, and nobody else knows of it.
/// unsafe { bsd.commit(range, Commit::READ_WRITE)? };
/// // SAFETY: committed just now, readable and writable.
/// unsafe { range.start().write(7) };
/// // SAFETY: the range came from reserve, and is not used any more.
/// unsafe { bsd.release(range)? };
/// # Ok::<(), hostmem_core::provider::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BsdProvider {
    directories: &'static [&'static CStr],
}

impl BsdProvider {
    /// Makes a handle that may put files for dual mappings into `/tmp` and `/var/tmp`, where
    /// shared memory objects do not give executable memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            directories: &[c"/tmp", c"/var/tmp"],
        }
    }

    /// Makes a handle that may put files for dual mappings into `directories`, tried in order.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_DIRECTORIES`] of them.
    #[must_use]
    pub const fn with_directories(directories: &'static [&'static CStr]) -> Self {
        assert!(
            directories.len() <= MAX_DIRECTORIES,
            "no more directories than the order names"
        );
        Self { directories }
    }

    /// Returns the directories.
    #[must_use]
    pub const fn directories(&self) -> &'static [&'static CStr] {
        self.directories
    }
}

impl Default for BsdProvider {
    fn default() -> Self {
        Self::new()
    }
}
