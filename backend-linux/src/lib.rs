//! The Linux backend of hostmem: system calls, and nothing that thinks.
//!
//! Raw system calls by rustix's `linux_raw` backend: no libc, no `std`, so that it works in a
//! freestanding program. An empty crate on other systems.
//!
//! | file | what it has | man pages |
//! |---|---|---|
//! | `pages` | `PageProvider`: reserve to release | `mmap(2)`, `mprotect(2)`, `madvise(2)` |
//! | `dual` | dual mappings: the views | `mmap(2)`, `madvise(2)` |
//! | `object` | what they show | `memfd_create(2)`, `fallocate(2)`, `F_ADD_SEALS(2const)` |
//! | `map` | the process map | `proc_pid_maps(5)` |
//! | `limits` | what is left of limits | `prlimit(2)`, `proc_pid_status(5)` |
//! | `sync` | cores, clock, waiting for locks | `membarrier(2)`, `clock_gettime(2)`, `futex(2)` |
//! | `probe` | what this host allows | `proc_sys_vm(5)`, `PR_SET_MDWE(2const)` |
//! | `random` | numbers for keys | `getrandom(2)`, `random(4)` |
//! | `errno` | error numbers as kinds | `errno(3)` |
//! | `raw` | the calls that rustix lacks | `prctl(2)`, `brk(2)`, `prlimit(2)`, `personality(2)` |

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

pub use pages::Linux;
pub use sync::{OsFutex, OsLock};

use hostmem_core::provider::backend::SystemProvider;

/// Memory from Linux.
///
/// A handle without state of its own but for the directories that files for dual mappings may be
/// put into, where neither `memfd_create` nor `/dev/shm` gives executable memory; hence `Copy`.
///
/// ```
/// use hostmem_core::provider::{Commit, PageProvider, Request};
/// use hostmem_linux::LinuxProvider;
///
/// let linux = LinuxProvider::new();
/// let range = linux.reserve(&Request::bytes(1 << 20))?;
/// // SAFETY: reserved just now, and no other code has its address.
/// unsafe { linux.commit(range, Commit::READ_WRITE)? };
/// // SAFETY: committed just now, readable and writable.
/// unsafe { range.start().write(7) };
/// // SAFETY: the range came from reserve, and is not used any more.
/// unsafe { linux.release(range)? };
/// # Ok::<(), hostmem_core::provider::Error>(())
/// ```
pub type LinuxProvider = SystemProvider<Linux>;
