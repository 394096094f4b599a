//! Counts the instructions of a closure, and looks at what lies between two of them.
//!
//! The CPU traps after every instruction while its trap flag is set, and the kernel turns that into
//! `SIGTRAP`. A count does not depend on the load of the machine, so it can be held to a bound
//! where a time cannot; and what a handler sees between two instructions is every state that a
//! signal can find. Only for x86-64.

use crate::Unavailable;

#[cfg(not(target_arch = "x86_64"))]
#[path = "steps/other.rs"]
mod cpu;
#[cfg(target_arch = "x86_64")]
#[path = "steps/x86_64.rs"]
mod cpu;

/// Counts the instructions that `body` executes on this thread, those of a repeated string
/// instruction once for each repetition. What the count itself takes is taken off.
///
/// # Errors
///
/// This CPU, or what emulates it, does not trap after every instruction.
pub fn count(body: impl FnOnce()) -> Result<u64, Unavailable> {
    let nothing = cpu::trace(|| {}, &mut || {});
    if nothing == 0 {
        return Err(Unavailable::new(
            "stepping through instructions",
            "this CPU does not trap after each",
        ));
    }
    Ok(cpu::trace(body, &mut || {}).saturating_sub(nothing))
}

/// Calls `between` in a signal handler after every instruction that `body` executes on this thread;
/// returns how often. It must do only what a signal handler may.
///
/// # Errors
///
/// The errors of [`count`].
pub fn between_all(body: impl FnOnce(), between: &mut dyn FnMut()) -> Result<u64, Unavailable> {
    count(|| {})?;
    Ok(cpu::trace(body, between))
}
