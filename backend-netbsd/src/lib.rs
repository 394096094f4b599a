//! The NetBSD backend of hostmem: **a skeleton**.
//!
//! The files mirror those of `hostmem-linux`, and each says what it will hold and which behaviour
//! of the system it has to meet. There is no code yet: the crate is empty on every target, and the
//! facade has no `OsProvider` there.
//!
//! | file | what it will have |
//! |---|---|
//! | `pages` | `PageProvider`: reserve to release |
//! | `dual` | dual mappings: the views |
//! | `object` | dual mappings: what the views show |
//! | `map` | the process map |
//! | `sync` | cores, clock, waiting |
//! | `probe` | what this host allows |
//! | `errno` | error numbers as kinds |

#![no_std]
#![cfg(target_os = "netbsd")]

mod dual;
mod errno;
mod map;
mod object;
mod pages;
mod probe;
mod sync;
