//! The Linux backend of hostmem: system calls, and nothing that thinks.
//!
//! Raw system calls by rustix's `linux_raw` backend: no libc, no `std`, so that it works in a
//! freestanding program. An empty crate on other systems.
//!
//! | file | what it has | man pages |
//! |---|---|---|
//! | `pages` | [`PageProvider`](hostmem_core::provider::PageProvider): reserve to release | `mmap(2)`, `mprotect(2)`, `madvise(2)` |
//! | `dual` | dual mappings: the views | `mmap(2)`, `madvise(2)` |
//! | `object` | dual mappings: what the views show | `memfd_create(2)`, `open(2)`, `fallocate(2)`, `F_ADD_SEALS(2const)` |
//! | `map` | the process map | `proc_pid_maps(5)` |
//! | `limits` | what is left of limits | `prlimit(2)`, `proc_pid_status(5)` |
//! | `sync` | cores, clock, waiting for locks | `membarrier(2)`, `clock_gettime(2)`, `futex(2)` |
//! | `probe` | what this host allows | `proc_sys_vm(5)`, `PR_SET_MDWE(2const)` |
//! | `random` | numbers for keys | `getrandom(2)`, `random(4)` |
//! | `errno` | error numbers as kinds | `errno(3)` |
//! | `raw` | the system calls that rustix lacks | `prctl(2)`, `brk(2)`, `prlimit(2)`, `personality(2)` |

#![no_std]
#![cfg(target_os = "linux")]

mod dual;
mod errno;
mod limits;
mod map;
mod object;
mod pages;
mod probe;
mod random;
mod raw;
mod sync;

pub use sync::{OsFutex, OsLock};

use core::ffi::CStr;
use hostmem_core::provider::order::MAX_DIRECTORIES;

/// Memory from Linux.
///
/// A handle without state of its own, hence `Copy`.
///
/// ```
/// use hostmem_core::provider::{Commit, PageProvider, Request};
/// use hostmem_linux::LinuxProvider;
///
/// let linux = LinuxProvider::new();
/// let range = linux.reserve(&Request::bytes(1 << 20))?;
/// // SAFETY: reserved just now, and nobody else knows of it.
/// unsafe { linux.commit(range, Commit::READ_WRITE)? };
/// // SAFETY: committed just now, readable and writable.
/// unsafe { range.start().write(7) };
/// // SAFETY: the range came from reserve, and is not used any more.
/// unsafe { linux.release(range)? };
/// # Ok::<(), hostmem_core::provider::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LinuxProvider {
    directories: &'static [&'static CStr],
}

impl LinuxProvider {
    /// Makes a handle that may put files for dual mappings into `/tmp` and `/var/tmp`, where
    /// neither `memfd_create` nor `/dev/shm` gives executable memory.
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

impl Default for LinuxProvider {
    fn default() -> Self {
        Self::new()
    }
}
