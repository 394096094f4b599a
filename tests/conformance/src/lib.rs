//! The suite that every memory provider of hostmem must pass.
//!
//! Generic over the provider, `no_std` and `alloc` only, so that it runs in an ordinary test
//! program, in a self-contained binary for another system, and in a program without any. A
//! violation panics with a message that says what was promised and what came; everything else is
//! an [`Outcome`].
//!
//! ```
//! use hostmem_conformance::{Outcome, run};
//! # fn example<P: hostmem_core::provider::Provider + Copy>(provider: P) {
//! let summary = run(provider, hostmem_conformance::cases(), &mut |name: &str, outcome| {
//!     if let Outcome::Skipped(reason) = outcome {
//!         // Print name and reason.
//!         # let _ = (name, reason);
//!     }
//! });
//! assert_ne!(summary.passed, 0);
//! # }
//! ```
//!
//! | module | what it holds to its promises |
//! |---|---|
//! | [`pages`] | reserving, committing and placing pages |
//! | [`dual`] | dual mappings |
//! | [`decorators`] | `Within`, `Counted`, `Faulty`, and stacks of them |
//! | [`arena`] | memory for metadata |
//! | [`range_map`] | the range map |
//! | [`region`] | the region allocator |
//! | [`heap`] | the general heap |
//! | [`jit`] | the JIT allocator |
//!
//! The cases share a process, so they keep what they know of it to ranges that they reserved
//! themselves, and try again where another thread took a hole between two calls.

#![no_std]

extern crate alloc;

pub mod arena;
pub mod code;
pub mod decorators;
pub mod dual;
mod harness;
pub mod heap;
pub mod jit;
pub mod pages;
pub mod range_map;
pub mod region;
mod report;
mod rng;

pub use report::{Case, Outcome, Report, Summary, run};
pub use rng::SplitMix64;

use hostmem_core::provider::Provider;

/// Yields every case, in the order of the layers: what fails first is closest to the fault.
pub fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    pages::cases()
        .chain(pages::map_cases())
        .chain(dual::cases())
        .chain(dual::map_cases())
        .chain(arena::cases())
        .chain(decorators::cases())
        .chain(range_map::cases())
        .chain(region::cases())
        .chain(heap::cases())
        .chain(jit::cases())
}
