//! What depends on the CPU.

#[cfg(all(target_os = "linux", feature = "linux"))]
#[path = "../common/mod.rs"]
mod common;

#[cfg(all(target_os = "linux", target_arch = "aarch64", feature = "linux"))]
mod aarch64;
mod cache;
