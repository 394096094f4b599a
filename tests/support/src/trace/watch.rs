//! Waits for tracees, and kills them when their time is up.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sys::check;

/// Only the tracees of the calling thread: a test binary has other children, awaited by others.
const MINE: i32 = libc::__WALL | libc::__WNOTHREAD;

/// The threads that are traced and not yet reaped.
///
/// A tid is reaped and taken out under one lock, so that a kill never hits a tid used again.
#[derive(Clone, Default)]
pub(super) struct Tracees(Arc<Mutex<HashSet<libc::pid_t>>>);

impl Tracees {
    /// Waits for the next stop or end of a tracee; none when there is no tracee left.
    ///
    /// The end of `unborn`, the command before its exec, also is the last, and is left to its
    /// parent: `Command::spawn` itself awaits a child whose exec failed, and insists on finding it.
    pub(super) fn next(
        &self,
        unborn: Option<libc::pid_t>,
    ) -> io::Result<Option<(libc::pid_t, i32)>> {
        loop {
            let Some((tid, ended)) = peek()? else {
                return Ok(None);
            };
            if ended && unborn == Some(tid) {
                return Ok(None);
            }
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // None if an exec of another thread took it away since.
            let Some(status) = take(tid)? else { continue };
            if libc::WIFSTOPPED(status) {
                known.insert(tid);
            } else {
                known.remove(&tid);
            }
            return Ok(Some((tid, status)));
        }
    }

    /// Forgets a tid that ended unreported: an exec does that to threads.
    pub(super) fn forget(&self, tid: libc::pid_t) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&tid);
    }

    /// Kills all that are known; their ends are still to be awaited.
    pub(super) fn kill_all(&self) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &tid in known.iter() {
            // SAFETY: kill touches no memory of this process. The tid is one of a tracee, since
            // none is reaped while the lock is held.
            unsafe { libc::kill(tid, libc::SIGKILL) };
        }
    }
}

/// Waits until a tracee stops or ends, without reaping it, and says whether it ended.
fn peek() -> io::Result<Option<(libc::pid_t, bool)>> {
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | MINE;
    let mut info = core::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: `info` is live and writable for the length of the call.
        let result = check(unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) });
        match result {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    // SAFETY: it was zeroed, which is a value of this struct of integers, and then written.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills in the fields of a SIGCHLD.
    let tid = unsafe { info.si_pid() };
    let ended = matches!(
        info.si_code,
        libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED
    );
    Ok(Some((tid, ended)))
}

/// Reaps what can be reaped of `tid` at once.
fn take(tid: libc::pid_t) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: `status` is a live, writable int for the length of the call.
    match check(unsafe { libc::waitpid(tid, &raw mut status, libc::WNOHANG | MINE) }) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(status)),
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(e) => Err(e),
    }
}
