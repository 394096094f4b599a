//! Skips a system call on x86-64.

use core::ptr;

use super::ptrace::{alive, request};

const POKEUSER: i64 = 6;
/// Offsets in `struct user_regs_struct` of sys/user.h.
const RAX: usize = 10 * 8;
const ORIG_RAX: usize = 15 * 8;

/// Makes the system call at whose entry the process is stopped return `-errno`, undone.
pub(super) fn skip(pid: libc::pid_t, errno: i32) -> Option<()> {
    // The kernel skips number -1 and leaves the result as it is (seccomp(2), SECCOMP_RET_TRACE).
    poke(pid, ORIG_RAX, -1)?;
    poke(pid, RAX, -isize::try_from(errno).ok()?)
}

/// Writes a register.
fn poke(pid: libc::pid_t, offset: usize, value: isize) -> Option<()> {
    let word = ptr::without_provenance_mut(value.cast_unsigned());
    // SAFETY: the request takes the word itself, and touches no memory of this process.
    alive(unsafe { request(POKEUSER, pid, offset, word) })
}
