//! The part of hostmem that thinks: everything but the operating system's calls.
//!
//! `no_std`, no `alloc` crate, no global allocator, no `cfg(target_os)`. The operating system is
//! reached through the small traits of [`provider`]; a backend crate, or your own code, implements
//! them. Lower modules never name higher ones:
//!
//! ```text
//! page → provider → {arena, fork} → {counted, heap, jit, range_map → region}        arch and sync beside page
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`page`] | validated page sizes, ranges and access rights |
//! | [`provider`] | the seam: memory states, requests, errors, decorators |
//! | [`sync`] | locks |
//! | [`fork`] | hooks around a fork |
//! | [`arch`] | instruction-cache maintenance |
//! | [`arena`] | memory for metadata |
//! | [`counted`] | a provider that counts, remembers high-water marks and keeps limits |
//! | [`heap`] | blocks of memory of any size, for any number of threads |
//! | [`region`] | address space that the host claims for itself |
//! | [`jit`] | executable memory for many small pieces of code |
//! | [`range_map`] | what lies where in a range of addresses, and where there is room |
//! | [`probe`] | the report of what a host allows |
//! | `sim` (feature `sim`) | a simulated provider that checks its caller, and a fault injector |

#![no_std]

// Without the module whose bit vectors are of 64-bit words, so that this is the only error.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("hostmem is for targets with 64-bit addresses");

pub mod arch;
pub mod arena;
mod atomic;
mod config;
pub mod counted;
pub mod fork;
pub mod heap;
mod intervals;
#[cfg(target_pointer_width = "64")]
pub mod jit;
pub mod page;
pub mod probe;
pub mod provider;
pub mod range_map;
pub mod region;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(not(all(test, loom)))]
pub mod sync;
#[cfg(all(test, loom))]
#[path = "sync/model.rs"]
pub mod sync;

pub use config::ConfigError;
