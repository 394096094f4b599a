//! Regions of addresses: what is claimed, mapped, tracked, forked, and the names of the root.
#![cfg(all(target_os = "linux", feature = "linux"))]

#[path = "../common/mod.rs"]
mod common;

mod allocator;
mod claim;
mod exact;
mod fork;
mod guest_tracker;
mod host;
mod limits;
#[cfg(feature = "std")]
mod root_names;
mod space;
#[cfg(target_arch = "x86_64")]
mod steps;
