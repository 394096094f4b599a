//! The NetBSD backend of hostmem: system calls, and nothing that thinks.
//!
//! `no_std`; system calls through the system's libc, by rustix where it has them. An empty crate on
//! other systems.
//!
//! | file | what it has | man pages |
//! |---|---|---|
//! | `pages` | `PageProvider`: reserve to release | `mmap(2)`, `mprotect(2)` |
//! | `dual` | dual mappings: the views | `mremap(2)`, `minherit(2)` |
//! | `object` | dual mappings: what the views show | `memfd_create(2)`, `shm_open(3)` |
//! | `map` | the process map | `sysctl(3)`, `kinfo_getvmmap(3)` |
//! | `limits` | what is left of limits | `getrlimit(2)`, `sysctl(3)` |
//! | `sync` | cores, clock, waiting for locks | `clock_gettime(2)`, `futex(2)` |
//! | `probe` | what this host allows | `security(7)`, `paxctl(8)` |
//!
//! What the other BSDs have, too, is in `hostmem_bsd::shared`: most calls, error numbers, `sysctl`,
//! files without a name, numbers for keys.
//!
//! # PaX MPROTECT
//!
//! It is on for ordinary programs: no page is writable and executable, and none may gain by
//! `mprotect(2)` what it was not mapped with. `PROT_MPROTECT` says at mapping what may be asked
//! later, so a commit passes its ceiling there, and code can be toggled where the ceiling says so.
//!
//! # What this system lacks
//!
//! - `Capabilities::ATOMIC_INTO`: a duplicate made by `mremap(2)` lands on holes only, so a target
//!   range is unmapped first. Whoever gets in between keeps the range, which is reported as lost.
//! - An end to what a duplicate may become: `mprotect(2)` can make an executable view writable, in
//!   a forked child too, though never both at once. It cannot with views of a descriptor.
//! - `Capabilities::PURGE_DUAL`: nothing empties pages of a shared object through its mapping
//!   (`MADV_FREE` and `MADV_DONTNEED` leave the contents).
//! - `Capabilities::CORE_SYNC`: no call makes other cores see new instructions.
//! - `Capabilities::MOVE_PAGES`: `mremap(2)` moves pages into a hole only, and a reservation is
//!   none.
//! - A promise that `purge` gives memory back: `MADV_FREE` frees some pages, which read zero then,
//!   and leaves others as they are, for instance those of a mapping that was split or forked.
//! - Limits that tell how much is left of them, but for addresses and file sizes.
//! - `Capabilities::LARGE_PAGES`, `Capabilities::LANDING_PADS`, and names of mappings.

#![no_std]
#![cfg(target_os = "netbsd")]

mod dual;
mod limits;
mod map;
mod object;
mod pages;
mod probe;
mod sync;

pub use pages::{NetBsd, NetBsdProvider};
pub use sync::{OsFutex, OsLock};
