//! What each of the three systems has of its own, under the same names.

#[cfg(not(target_os = "freebsd"))]
mod lacking;
#[cfg_attr(target_os = "dragonfly", path = "dragonfly.rs")]
#[cfg_attr(target_os = "freebsd", path = "freebsd/mod.rs")]
#[cfg_attr(target_os = "openbsd", path = "openbsd.rs")]
mod system;

pub(crate) use system::*;
