//! The requests of `ptrace(2)` that the tracer makes.
//!
//! They are made of a process that is stopped and traced by the calling thread. A process can be
//! killed at any time, even then; every request therefore answers "gone" by none.

use core::ptr;
use std::io;

use super::event::Arguments;
use crate::sys::check;

/// `PTRACE_GET_SYSCALL_INFO`, Linux 5.3.
const GET_SYSCALL_INFO: i64 = 0x420e;
const CONT: i64 = 7;
const SYSCALL: i64 = 24;
const GETEVENTMSG: i64 = 0x4201;
const SEIZE: i64 = 0x4206;
const LISTEN: i64 = 0x4208;
/// Values of `SyscallInfo::op`.
const OP_EXIT: u8 = 2;
const OP_SECCOMP: u8 = 3;

/// Attaches to a running process, whose descendants are attached to from their start.
///
/// Whatever becomes of the tracer, its tracees do not outlive it.
pub(super) fn seize(pid: libc::pid_t) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    let options = usize::try_from(options).expect("the options are positive");
    // SAFETY: the request reads no memory of this process.
    unsafe { request(SEIZE, pid, 0, ptr::without_provenance_mut(options)) }?;
    Ok(())
}

/// How to let a process run on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// To its next event.
    Event,
    /// To its next event, or to the entry or exit of a system call.
    Syscall,
    /// Not at all, since it is stopped as a job; but its continuation is an event.
    Continued,
}

/// Lets a process run on and gives it `signal`, if that is not 0.
pub(super) fn resume(pid: libc::pid_t, until: Until, signal: i32) -> Option<()> {
    let kind = match until {
        Until::Event => CONT,
        Until::Syscall => SYSCALL,
        Until::Continued => LISTEN,
    };
    let signal = usize::try_from(signal).expect("a signal is positive");
    // SAFETY: these requests read no memory of this process.
    alive(unsafe { request(kind, pid, 0, ptr::without_provenance_mut(signal)) }).map(drop)
}

/// Reads the message of an event: the pid of a new process, the former tid of an exec.
pub(super) fn event_message(pid: libc::pid_t) -> Option<libc::pid_t> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the request writes an unsigned long, which is live and writable.
    alive(unsafe { request(GETEVENTMSG, pid, 0, (&raw mut message).cast()) })?;
    i32::try_from(message).ok()
}

/// Reads the number and the arguments of the call at which the filter stopped the process.
pub(super) fn entered(pid: libc::pid_t) -> Option<(libc::c_long, Arguments)> {
    let info = syscall_info(pid)?;
    assert_eq!(info.op, OP_SECCOMP, "the process is stopped by the filter");
    let [number, args @ .., _] = info.words;
    Some((number.cast_signed(), args))
}

/// Reads the result of the call from which the process is about to return.
pub(super) fn returned(pid: libc::pid_t) -> Option<i64> {
    let info = syscall_info(pid)?;
    assert_eq!(
        info.op, OP_EXIT,
        "the process is stopped at the exit of a call"
    );
    Some(info.words[0].cast_signed())
}

/// `struct ptrace_syscall_info`, which musl's libc lacks; its union as plain words.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    /// Of an entry the number and six arguments, of an exit the result.
    words: [u64; 8],
}

fn syscall_info(pid: libc::pid_t) -> Option<SyscallInfo> {
    let mut info = SyscallInfo::default();
    // SAFETY: the request writes at most as many bytes as its third argument says, and `info` has
    // as many, live and writable; every bit pattern is a value of its type.
    let result = unsafe {
        request(
            GET_SYSCALL_INFO,
            pid,
            size_of::<SyscallInfo>(),
            (&raw mut info).cast(),
        )
    };
    alive(result)?;
    Some(info)
}

/// Makes a request.
///
/// # Safety
///
/// What the request reads or writes through `data`, and in the length that `address` says where it
/// is one, is live, and writable or initialised accordingly.
pub(super) unsafe fn request(
    kind: i64,
    pid: libc::pid_t,
    address: usize,
    data: *mut libc::c_void,
) -> io::Result<()> {
    // The bare call: libc's wrapper changes the arguments of some requests.
    // SAFETY: by the contract of this function.
    check(unsafe { libc::syscall(libc::SYS_ptrace, kind, i64::from(pid), address, data) })?;
    Ok(())
}

/// Returns none for a process that was killed while it was stopped: its end will be reported.
///
/// # Panics
///
/// For every other error: the tracer made a request that it may not make.
pub(super) fn alive<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => None,
        Err(e) => panic!("ptrace: {e}"),
    }
}
