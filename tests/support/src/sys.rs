//! Process calls that several modules need, each safe to use between `fork` and `exec`.

use core::ops::Deref;
use core::ptr::{self, NonNull};
use std::io;

/// Turns the `-1` convention of libc into a `Result`.
pub(crate) fn check<T: Into<i64> + Copy>(returned: T) -> io::Result<T> {
    if returned.into() == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

/// Says on which side of a [`fork`] the caller is.
pub(crate) enum Side {
    /// In the parent, with the pid of the child.
    Parent(libc::pid_t),
    /// In the child.
    Child,
}

/// Forks the process.
///
/// # Safety
///
/// Until it execs or exits, the child only does what is async-signal-safe, unless the caller knows
/// that the process has a single thread: the locks of other threads stay taken in the child.
pub(crate) unsafe fn fork() -> io::Result<Side> {
    // SAFETY: the caller keeps the child to async-signal-safe calls, which is all fork asks.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Side::Child),
        child => Ok(Side::Parent(child)),
    }
}

/// Waits for the end of `pid` (or of any child, for -1) and returns who ended and its raw status.
pub(crate) fn wait(pid: libc::pid_t) -> io::Result<(libc::pid_t, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live, writable int for the length of the call.
        match check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }) {
            Ok(ended) => return Ok((ended, status)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Ends the process at once, without destructors and exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition; it never returns.
    unsafe { libc::_exit(code) }
}

/// A value that stays shared with the processes forked after its making.
pub(crate) struct Shared<T: Sync>(NonNull<T>);

impl<T: Sync> Shared<T> {
    /// Maps a shared page that holds `value`.
    pub(crate) fn new(value: T) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= 4096, "mmap aligns to pages only") };
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let page = unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), prot, flags, -1, 0) };
        let page = NonNull::new(page).filter(|p| p.as_ptr() != libc::MAP_FAILED);
        let place = page.ok_or_else(io::Error::last_os_error)?.cast();
        // SAFETY: the mapping is writable, new, of the size of T, and aligned to a page.
        unsafe { place.write(value) };
        Ok(Self(place))
    }
}

impl<T: Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a reference needs a live, aligned, initialised value.
        // - live: self owns the mapping, and only Drop unmaps it;
        // - aligned, initialised: by `new`; other processes use it through `&T`, and T is Sync.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the page came from mmap in `new`, with this length, and borrows of self ended.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}
