//! What depends on the host's CPU beside the code generator: instructions that access the guest's
//! memory for the emulator, and the registers of a thread that a signal interrupted.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{Context, signal_return};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Context, signal_return};
