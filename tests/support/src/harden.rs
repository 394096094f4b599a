//! Puts a process under the restrictions of a hardened host.
//!
//! MDWE applies to the calling process and is for good; the other restrictions are put on a
//! [`Command`](std::process::Command), whose process gets namespaces of its own. The caller's
//! namespaces and settings stay as they are.

mod mdwe;
mod mounts;
mod pid;

pub use mdwe::{get_mdwe, mdwe_from_start, set_mdwe};
pub use mounts::noexec_mounts;
pub use pid::{memfd_noexec, pid_namespace};

use core::ffi::CStr;
use core::ptr;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::Unavailable;
use crate::sys::{self, Side, check};

/// Tries `enter` in a forked process and reports what it was refused.
///
/// A command's process has no way to tell more than an errno, and its failure to start would look
/// like a fault of the command.
///
/// # Safety
///
/// `enter` is async-signal-safe: it makes system calls only.
unsafe fn probe(attempt: &str, enter: impl Fn() -> io::Result<()>) -> Result<(), Unavailable> {
    let refused = |e| Unavailable::new(attempt, e);
    // SAFETY: the child calls `enter`, async-signal-safe by this function's contract, and exits.
    let side = unsafe { sys::fork() };
    match side.map_err(refused)? {
        Side::Child => sys::exit_now(match enter() {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().unwrap_or(libc::EINVAL),
        }),
        Side::Parent(child) => {
            let (_, status) = sys::wait(child).map_err(refused)?;
            match libc::WEXITSTATUS(status) {
                0 if libc::WIFEXITED(status) => Ok(()),
                errno if libc::WIFEXITED(status) => {
                    Err(refused(io::Error::from_raw_os_error(errno)))
                }
                _ => Err(Unavailable::new(
                    attempt,
                    format_args!("wait status {status:#x}"),
                )),
            }
        }
    }
}

/// Moves the process into a mount namespace from which no mount reaches its origin.
fn enter_mount_namespace() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)?;
    // A new namespace is a peer of its origin where that is shared, as under systemd.
    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE, c"")
}

/// Gives the process namespaces of its own (unshare(2)).
fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: unshare takes no pointer; namespaces do not concern memory.
    check(unsafe { libc::unshare(flags) })?;
    Ok(())
}

/// Mounts a file system, or changes a mount (mount(2)).
fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    let (source, target, kind) = (source.as_ptr(), target.as_ptr(), kind.as_ptr());
    let data = if data.is_empty() {
        ptr::null()
    } else {
        data.as_ptr().cast()
    };
    // SAFETY: the pointers are null or C strings that are borrowed for the length of the call.
    check(unsafe { libc::mount(source, target, kind, flags, data) })?;
    Ok(())
}

/// Makes a C string of a path.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path holds no NUL")
}
