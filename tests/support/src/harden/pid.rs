//! Pid namespaces, and the setting `vm.memfd_noexec` that each has of its own since Linux 6.3.
//!
//! ```text
//! caller ── spawns ──> relay (old namespace) ──> init (pid 1) ──> command (pid 2)
//!        <── status ──       <──────────── status ─────────────
//! ```
//!
//! `unshare(CLONE_NEWPID)` moves only the later children of its caller, hence the relay. The
//! command is not made pid 1: the kernel keeps from that process every signal it has no handler
//! for.

use core::sync::atomic::{AtomicI32, Ordering};
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{enter_mount_namespace, mount, probe, unshare};
use crate::Unavailable;
use crate::sys::{self, Shared, Side, check};

/// Holds the setting of the pid namespace of whoever reads or writes it.
const MEMFD_NOEXEC: &str = "/proc/sys/vm/memfd_noexec";
/// Refuses every `memfd_create` with `MFD_EXEC`.
const NOEXEC_ENFORCED: &[u8] = b"2";
/// No wait status: the command has not ended.
const RUNNING: i32 = -1;

/// Runs `command` in a pid namespace of its own, with a `/proc` that shows it.
///
/// The process that the caller sees relays the exit status, the fatal signal included; when it is
/// killed, so is all of the namespace.
///
/// # Errors
///
/// The user may not make namespaces or mount.
pub fn pid_namespace(command: &mut Command) -> Result<(), Unavailable> {
    restrict(command, "entering a new pid namespace", false)
}

/// Runs `command` in a [pid namespace](pid_namespace) with `vm.memfd_noexec=2`.
///
/// There `memfd_create` with `MFD_EXEC` fails with `EACCES`, and without flags it acts as if given
/// `MFD_NOEXEC_SEAL` (`memfd_create(2)`).
///
/// # Errors
///
/// As [`pid_namespace`], or the kernel is older than 6.3.
pub fn memfd_noexec(command: &mut Command) -> Result<(), Unavailable> {
    let attempt = "setting vm.memfd_noexec=2 in a new pid namespace (Linux 6.3)";
    fs::metadata(MEMFD_NOEXEC).map_err(|e| Unavailable::new(attempt, e))?;
    restrict(command, attempt, true)
}

/// Checks that the namespace can be had and adds it to the command.
fn restrict(command: &mut Command, attempt: &str, noexec: bool) -> Result<(), Unavailable> {
    let enter = move || enter_pid_namespace(noexec);
    // SAFETY: `enter` makes system calls only.
    unsafe { probe(attempt, enter) }?;
    // SAFETY: `enter` makes system calls only, so it is async-signal-safe.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Returns in a process of a new namespace; its forbears stay behind to relay its status.
fn enter_pid_namespace(noexec: bool) -> io::Result<()> {
    let status = Shared::new(AtomicI32::new(RUNNING))?;
    unshare(libc::CLONE_NEWPID)?;
    // SAFETY: this process has a single thread, being between fork and exec itself.
    if let Side::Parent(init) = unsafe { sys::fork() }? {
        relay(init, &status);
    }
    die_with_parent()?;
    enter_mount_namespace()?;
    mount(
        c"proc",
        c"/proc",
        c"proc",
        libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        c"",
    )?;
    if noexec {
        // Of std::fs, opening by a short path does not allocate.
        fs::OpenOptions::new()
            .write(true)
            .open(MEMFD_NOEXEC)?
            .write_all(NOEXEC_ENFORCED)?;
    }
    // SAFETY: this process has a single thread, being between fork and exec itself.
    if let Side::Parent(command) = unsafe { sys::fork() }? {
        init(command, &status);
    }
    Ok(())
}

/// Reaps the orphans of the namespace until the command ends, and leaves its status behind.
fn init(command: libc::pid_t, status: &AtomicI32) -> ! {
    close_all();
    loop {
        match sys::wait(-1) {
            Ok((ended, raw)) if ended == command => {
                status.store(raw, Ordering::SeqCst);
                sys::exit_now(0)
            }
            Ok(_) => {}
            Err(_) => sys::exit_now(1),
        }
    }
}

/// Ends as the command ended, or as init did if that came first.
fn relay(init: libc::pid_t, status: &AtomicI32) -> ! {
    close_all();
    let Ok((_, of_init)) = sys::wait(init) else {
        sys::exit_now(1)
    };
    let raw = match status.load(Ordering::SeqCst) {
        RUNNING => of_init,
        of_command => of_command,
    };
    if libc::WIFEXITED(raw) {
        sys::exit_now(libc::WEXITSTATUS(raw));
    }
    die_of(libc::WTERMSIG(raw))
}

/// Kills the process by `signal`, without a core file: the command has left one if it was to.
fn die_of(signal: i32) -> ! {
    // SAFETY: this option takes no pointer.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0 as libc::c_ulong, 0, 0, 0) };
    // SAFETY: the default action runs no code of this process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: raise takes no pointer.
    unsafe { libc::raise(signal) };
    // A signal that does not kill by default cannot have killed the command.
    sys::exit_now(128 + signal)
}

/// Has the process killed when its parent dies, so that killing the relay kills the namespace.
fn die_with_parent() -> io::Result<()> {
    // SAFETY: this option takes no pointer.
    check(unsafe {
        libc::prctl(
            libc::PR_SET_PDEATHSIG,
            libc::SIGKILL as libc::c_ulong,
            0,
            0,
            0,
        )
    })?;
    Ok(())
}

/// Closes every descriptor: one that stays open keeps its reader from seeing the end of file.
fn close_all() {
    // SAFETY: this process uses no descriptor any more, and returns to no code that might. Kernels
    // before 5.9 refuse the call; namespaces with their own memfd_noexec need 6.3.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
}
