//! Skips a system call on `AArch64`.

use super::ptrace::{alive, request};

const GETREGSET: i64 = 0x4204;
const SETREGSET: i64 = 0x4205;
/// The general registers: x0 to x30, sp, pc, pstate.
const NT_PRSTATUS: usize = 1;
/// The number of the system call, an int.
const NT_ARM_SYSTEM_CALL: usize = 0x404;

/// Makes the system call at whose entry the process is stopped return `-errno`, undone.
pub(super) fn skip(pid: libc::pid_t, errno: i32) -> Option<()> {
    // The kernel skips number -1 and leaves the result as it is (seccomp(2), SECCOMP_RET_TRACE).
    transfer(SETREGSET, pid, NT_ARM_SYSTEM_CALL, &mut [-1_i32])?;
    let mut registers = [0_i64; 34];
    transfer(GETREGSET, pid, NT_PRSTATUS, &mut registers)?;
    registers[0] = -i64::from(errno);
    transfer(SETREGSET, pid, NT_PRSTATUS, &mut registers)
}

/// Reads or writes a set of registers.
fn transfer<T: Into<i64>>(
    kind: i64,
    pid: libc::pid_t,
    set: usize,
    registers: &mut [T],
) -> Option<()> {
    let base = registers.as_mut_ptr().cast();
    let mut io = libc::iovec {
        iov_base: base,
        iov_len: size_of_val(registers),
    };
    // SAFETY: the request transfers at most iov_len bytes from or to the slice, which is borrowed
    // mutably for the call; every bit pattern is a value of the integers that it holds.
    alive(unsafe { request(kind, pid, set, (&raw mut io).cast()) })
}
