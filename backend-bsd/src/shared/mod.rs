//! What the BSDs have in common: calls of libc and of rustix that are the same on all of them, for
//! their backends alone, `hostmem-netbsd` among them. Programs have no use for it.

pub mod errno;
pub mod limits;
pub mod object;
pub mod pages;
pub mod sysctl;
pub mod time;
#[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
pub mod vmentry;
