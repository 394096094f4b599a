//! Memory-deny-write-execute: `PR_SET_MDWE(2const)`, Linux 6.3.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::probe;
use crate::Unavailable;
use crate::sys::check;

const ATTEMPT: &str = "memory-deny-write-execute (PR_SET_MDWE, Linux 6.3)";

/// An unused argument: prctl reads each as unsigned long, and refuses stray bits in any.
const NONE: libc::c_ulong = 0;

/// Refuses this process, for good, every mapping that gains execution after its creation, or that
/// is writable and executable at once. Threads, children and executed programs inherit it.
///
/// # Errors
///
/// The kernel is older than 6.3, or the CPU has no such protection.
pub fn set_mdwe() -> Result<(), Unavailable> {
    set().map_err(|e| Unavailable::new(ATTEMPT, e))
}

/// Says whether this process is under MDWE.
///
/// # Errors
///
/// As [`set_mdwe`].
pub fn get_mdwe() -> Result<bool, Unavailable> {
    // SAFETY: this option takes no pointer.
    let flags = unsafe { libc::prctl(libc::PR_GET_MDWE, NONE, NONE, NONE, NONE) };
    let flags = check(flags).map_err(|e| Unavailable::new(ATTEMPT, e))?;
    Ok(flags.cast_unsigned() & libc::PR_MDWE_REFUSE_EXEC_GAIN != 0)
}

/// Runs `command` under MDWE from its first instruction on, the dynamic loader included.
///
/// # Errors
///
/// As [`set_mdwe`].
pub fn mdwe_from_start(command: &mut Command) -> Result<(), Unavailable> {
    // SAFETY: `set` makes one system call.
    unsafe { probe(ATTEMPT, set) }?;
    // SAFETY: `set` makes one system call, so it is async-signal-safe.
    unsafe { command.pre_exec(set) };
    Ok(())
}

/// Makes the system call.
fn set() -> io::Result<()> {
    let flags = libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);
    // SAFETY: this option takes no pointer. It takes no existing right from any mapping.
    check(unsafe { libc::prctl(libc::PR_SET_MDWE, flags, NONE, NONE, NONE) })?;
    Ok(())
}
