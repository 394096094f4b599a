//! Claims on the main thread of whole processes, in the layouts, under the limits and the tools
//! that emulators are run under. Each case runs or is skipped aloud.
//!
//! It has no harness, since that runs what it tests on threads of its own.
#[cfg(all(target_os = "linux", feature = "linux", target_pointer_width = "64"))]
mod child;

#[cfg(all(target_os = "linux", feature = "linux", target_pointer_width = "64"))]
mod parent;

#[cfg(all(target_os = "linux", feature = "linux", target_pointer_width = "64"))]
use parent::main;

#[cfg(not(all(target_os = "linux", feature = "linux", target_pointer_width = "64")))]
fn main() {}
