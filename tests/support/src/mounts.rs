//! Changes what the calling thread sees mounted, and nothing else.
//!
//! A thread that entered a mount namespace cannot go back: use it in a thread of its own, or in an
//! [isolated](crate::isolate::isolated()) test. What it opens under `/proc` is what it sees there.

use core::ptr;
use std::ffi::CString;
use std::io;

use crate::Unavailable;
use crate::sys::check;

/// Moves the calling thread into a mount namespace from which no mount reaches its origin.
///
/// # Errors
///
/// The user may not.
pub fn enter_namespace() -> Result<(), Unavailable> {
    let refused = |e: io::Error| Unavailable::new("entering a mount namespace", e);
    // SAFETY: unshare takes no pointer; namespaces do not concern memory.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map_err(refused)?;
    // A new namespace is a peer of its origin where that is shared.
    mount("none", "/", libc::MS_REC | libc::MS_PRIVATE, "").map_err(refused)
}

/// Mounts a new file system of `kind` over a directory.
///
/// # Errors
///
/// The user may not, or the kernel has no such file system.
pub fn cover(directory: &str, kind: &str, options: &str) -> Result<(), Unavailable> {
    let (flags, options) = match options.strip_prefix("noexec,") {
        Some(rest) => (libc::MS_NOEXEC, rest),
        None => (0, options),
    };
    mount(kind, directory, flags, options).map_err(|e| Unavailable::new("mounting", e))
}

/// Takes a mount out of sight.
///
/// # Errors
///
/// The user may not, or nothing is mounted there.
pub fn detach(directory: &str) -> Result<(), Unavailable> {
    let path = CString::new(directory).expect("a path holds no NUL");
    // SAFETY: the path is a C string that is borrowed for the length of the call.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })
        .map(drop)
        .map_err(|e| Unavailable::new("unmounting", e))
}

fn mount(kind: &str, target: &str, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let text = |s: &str| CString::new(s).expect("a mount has no NUL");
    let (kind, target, options) = (text(kind), text(target), text(options));
    let source = kind.as_ptr();
    let data = if options.is_empty() {
        ptr::null()
    } else {
        options.as_ptr().cast()
    };
    // SAFETY: the pointers are null or C strings that are borrowed for the length of the call.
    check(unsafe { libc::mount(source, target.as_ptr(), kind.as_ptr(), flags, data) })?;
    Ok(())
}
