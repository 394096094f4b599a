//! Memory for code: allocators, functions by type, retirement, forks and limits.
#![cfg(all(target_os = "linux", feature = "linux"))]

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "sim")]
mod allocator;
mod calls;
mod code;
mod code_range;
mod defects;
mod faults;
mod fork;
mod func_cell;
mod host;
#[cfg(feature = "sim")]
mod limits_addresses;
mod limits_file;
mod near;
mod order;
mod patch;
#[cfg(feature = "sim")]
mod recycle;
mod retire;
#[cfg(feature = "sim")]
mod runtime;
mod spans;
mod steps;
#[cfg(feature = "sim")]
mod threads;
