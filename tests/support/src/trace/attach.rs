//! How the command comes under the tracer before its exec.
//!
//! ```text
//! caller's thread:   spawn ─────────────────────────────────────────────────> returns
//! child:                 └─ namespaces … ─ "here" ─ waits ─────────── filter ─ exec
//! tracer's thread:         receives, with the sender's pid ─ seizes ─ "go" ─ runs the engine
//! ```
//!
//! The kernel attaches the pid to the message, so it is right even if the child is in a pid
//! namespace and does not know its own (`SCM_CREDENTIALS`, unix(7)).

use core::mem::MaybeUninit;
use core::ptr;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::SeccompAction;

use super::plan::Plan;
use super::ptrace;
use crate::seccomp::compile;
use crate::sys::check;

/// One end of the gate.
///
/// Dropped, it ends the connection and not just its own descriptor: forks hold copies of that, the
/// child's copy of the tracer's end among them, so the other end would wait forever.
pub(super) struct End(UnixStream);

impl Drop for End {
    fn drop(&mut self) {
        // Fails if the other end is gone, which is as well.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Adds the gate to the command, after what it already does before its exec, and returns the
/// tracer's side.
pub(super) fn gate(command: &mut Command, plan: &Plan) -> io::Result<End> {
    let (outside, inside) = UnixStream::pair()?;
    let (outside, inside) = (End(outside), End(inside));
    pass_credentials(&outside.0)?;
    let calls = plan.observed().map(|call| (call, Vec::new())).collect();
    let filter = compile(calls, SeccompAction::Trace(0));
    let enter = move || {
        (&inside.0).write_all(&[1])?;
        // The end of file: the tracer could not attach.
        (&inside.0).read_exact(&mut [0])?;
        seccompiler::apply_filter(&filter).map_err(|_| io::Error::last_os_error())
    };
    // SAFETY: `enter` is async-signal-safe: it sends, receives and makes the two system calls that
    // install a filter compiled above.
    unsafe { command.pre_exec(enter) };
    Ok(outside)
}

/// Attaches to the process that comes to the gate and lets it pass; none if it never comes.
pub(super) fn admit(gate: End) -> io::Result<Option<libc::pid_t>> {
    let Some(pid) = receive_pid(&gate.0)? else {
        return Ok(None);
    };
    ptrace::seize(pid)?;
    (&gate.0).write_all(&[1])?;
    Ok(Some(pid))
}

/// Has the kernel attach the sender's credentials to what arrives at `socket`.
fn pass_credentials(socket: &UnixStream) -> io::Result<()> {
    let (fd, yes) = (socket.as_raw_fd(), 1_i32);
    let len = libc::socklen_t::try_from(size_of_val(&yes)).expect("an int is short");
    let (level, name, value) = (libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const yes).cast());
    // SAFETY: the call reads `len` bytes of `yes`, which is live.
    check(unsafe { libc::setsockopt(fd, level, name, value, len) })?;
    Ok(())
}

/// A control message that holds credentials.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    credentials: libc::ucred,
}

/// Receives a byte and returns the pid of its sender; none at the end of file.
fn receive_pid(socket: &UnixStream) -> io::Result<Option<libc::pid_t>> {
    let mut byte = 0_u8;
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: both structs hold integers only, for which zero is a value.
    let mut control: Control = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: all of msghdr may be zero: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = ptr::from_mut(&mut data);
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // An integer of another width in musl.
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the message points to a byte and to a control buffer, both live, writable and of the
    // lengths given; Control is laid out as cmsg(3) says for one message, with its alignment.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    match received {
        0 => Ok(None),
        1.. => {
            let kind = (control.header.cmsg_level, control.header.cmsg_type);
            assert_eq!(
                kind,
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS),
                "SO_PASSCRED is set"
            );
            Ok(Some(control.credentials.pid))
        }
        _ => Err(io::Error::last_os_error()),
    }
}
