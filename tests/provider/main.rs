//! Pages of the system: their arithmetic, providers, views, and what hardened systems refuse.

#[cfg(all(target_os = "linux", feature = "linux"))]
#[path = "../common/mod.rs"]
mod common;

#[cfg(all(target_os = "linux", feature = "linux"))]
mod addresses;
#[cfg(all(target_os = "linux", feature = "linux", feature = "sim"))]
mod arena;
#[cfg(all(target_os = "linux", feature = "linux", feature = "sim"))]
mod counted_fork;
#[cfg(all(target_os = "linux", feature = "linux"))]
mod faults;
#[cfg(all(target_os = "linux", feature = "linux"))]
mod hardened;
#[cfg(all(target_os = "linux", feature = "linux"))]
mod locked_memory;
mod page;
#[cfg(all(target_os = "linux", feature = "linux"))]
mod replacing;
#[cfg(all(target_os = "linux", feature = "linux"))]
mod views;
