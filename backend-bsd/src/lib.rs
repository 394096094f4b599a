//! The FreeBSD, DragonFly and OpenBSD backend of hostmem: system calls, and nothing that thinks.
//!
//! `no_std`; system calls through the system's libc, by rustix where it has them. On NetBSD it has
//! `shared` alone, for that system's backend; an empty crate on other systems. FreeBSD comes first;
//! what each of the three has of its own is in `host`.
//!
//! | file | what it has | man pages |
//! |---|---|---|
//! | `pages` | `PageProvider`: reserve to release | `mmap(2)`, `mprotect(2)` |
//! | `dual` | dual mappings: the views | `mmap(2)`, `minherit(2)` |
//! | `object` | what they show | `shm_open(2)`, `memfd_create(3)`, `shm_create_largepage(3)` |
//! | `map` | the process map | `sysctl(3)`, `kinfo_getvmmap(3)` |
//! | `limits` | what is left of limits | `getrlimit(2)`, `sysctl(3)` |
//! | `sync` | cores, clock, locks | `membarrier(2)`, `_umtx_op(2)`, `umtx(2)`, `futex(2)` |
//! | `probe` | what this host allows | `getpagesizes(3)`, `procctl(2)` |
//! | `shared` | what the NetBSD backend has, too | `sysctl(3)`, `arc4random_buf(3)`, `intro(2)` |
//!
//! # What these systems lack
//!
//! - Nothing empties pages of a shared object through its mapping: `MADV_FREE` and `MADV_DONTNEED`
//!   leave the contents, and `fspacectl(2)` (FreeBSD 14) wants a descriptor, which no dual mapping
//!   keeps. `Capabilities::PURGE_DUAL` is absent.
//! - Other cores can be made to see new instructions by `membarrier(2)` only, which FreeBSD has
//!   since 14.1. Elsewhere `Capabilities::CORE_SYNC` is absent.
//! - Pages do not demand landing pads on request. OpenBSD demands them of all code, where the
//!   CPU can. `Capabilities::LANDING_PADS` is absent.
//! - Mappings have no names; those of requests reach `memfd_create(3)` only.
//! - Private memory has no large pages on request: FreeBSD promotes to superpages by itself.
//!   `commit` with large pages and no leave to use others is `Unsupported`; dual mappings get them.
//! - Nothing moves pages: `Capabilities::MOVE_PAGES` is absent.
//! - `purge` is `MADV_FREE`, after which pages read zero or show old contents; on FreeBSD, where a
//!   forked process shares memory, contents from before the fork may come back. The system takes
//!   them when it needs memory, so that statistics of resident memory do not fall at once.
//! - `left` knows addresses (FreeBSD, DragonFly) or accessible memory (OpenBSD), and file sizes.
//!   How much is locked, and how many mappings there may be, is not told.
//! - DragonFly shows no process map, and replaces a mapping in two steps:
//!   `Capabilities::ATOMIC_INTO` is absent there.

#![no_std]
#![cfg(any(
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "openbsd",
    target_os = "netbsd"
))]

#[cfg(not(target_os = "netbsd"))]
mod dual;
#[cfg(not(target_os = "netbsd"))]
mod host;
#[cfg(not(target_os = "netbsd"))]
mod limits;
#[cfg(not(target_os = "netbsd"))]
mod map;
#[cfg(not(target_os = "netbsd"))]
mod object;
#[cfg(not(target_os = "netbsd"))]
mod pages;
#[cfg(not(target_os = "netbsd"))]
mod probe;
#[doc(hidden)]
pub mod shared;
#[cfg(not(target_os = "netbsd"))]
mod sync;

#[cfg(not(target_os = "netbsd"))]
pub use pages::{Bsd, BsdProvider};
#[cfg(not(target_os = "netbsd"))]
pub use sync::{OsFutex, OsLock};
