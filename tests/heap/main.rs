//! Heaps on the system and on simulated hosts: calls, threads, forks, signal handlers, hardening.
#![cfg(all(target_os = "linux", feature = "linux"))]

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "std")]
mod bugs;
mod by_size;
#[cfg(feature = "std")]
mod close;
#[cfg(all(feature = "allocator-api2", feature = "std"))]
mod collections;
#[cfg(feature = "std")]
mod foreign;
mod fork;
mod general;
#[cfg(feature = "sim")]
mod growth;
#[cfg(feature = "std")]
mod hardening;
#[cfg(feature = "std")]
mod levels;
#[cfg(feature = "std")]
mod program_fork;
#[cfg(feature = "std")]
mod racing_frees;
#[cfg(feature = "std")]
mod signals;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod steps;
mod system;
