//! What each of the three systems has of its own, under the same names.

#[cfg(target_os = "dragonfly")]
mod dragonfly;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(not(target_os = "freebsd"))]
mod lacking;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "dragonfly")]
pub(crate) use dragonfly::*;
#[cfg(target_os = "freebsd")]
pub(crate) use freebsd::*;
#[cfg(target_os = "openbsd")]
pub(crate) use openbsd::*;
