//! `noexec` directories, in a mount namespace of the command.

use core::ffi::CStr;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{c_path, enter_mount_namespace, mount, probe};
use crate::Unavailable;
use crate::sys::check;

/// `OPEN_TREE_CLONE` of linux/mount.h.
const OPEN_TREE_CLONE: libc::c_uint = 1;
/// `MOVE_MOUNT_F_EMPTY_PATH` of linux/mount.h.
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// Runs `command` where each of `dirs` is an empty tmpfs mounted `noexec`.
///
/// Directories that the host lacks are left out. If the program of the command lies below one of
/// them, its directory stays visible, and executable, at its path; nothing else below does, not
/// even the current directory by its path.
///
/// # Errors
///
/// The user may not mount, or the kernel is older than 5.2 (`open_tree(2)`).
pub fn noexec_mounts(command: &mut Command, dirs: &[&str]) -> Result<(), Unavailable> {
    let program = fs::canonicalize(command.get_program()).ok();
    let program_dir = program.as_deref().and_then(Path::parent);
    let mut dirs: Vec<PathBuf> = dirs
        .iter()
        .filter_map(|d| fs::canonicalize(d).ok())
        .collect();
    // One may be a link to another; parents come before what they hold.
    dirs.sort();
    dirs.dedup();
    let plans: Vec<Plan> = dirs.iter().map(|dir| Plan::new(dir, program_dir)).collect();
    let enter = move || {
        enter_mount_namespace()?;
        plans.iter().try_for_each(Plan::carry_out)
    };
    // SAFETY: `enter` makes system calls only; its strings were made above.
    unsafe { probe("mounting noexec directories in a new namespace", &enter) }?;
    // SAFETY: `enter` makes system calls only, so it is async-signal-safe.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Holds all paths that a mount needs: its process must not allocate.
struct Plan {
    target: CString,
    kept: Option<Kept>,
}

/// Names a directory below the mount that stays visible.
struct Kept {
    dir: CString,
    /// `dir` and those of its ancestors that lie below the mount, outermost first.
    chain: Vec<CString>,
}

impl Plan {
    fn new(target: &Path, program_dir: Option<&Path>) -> Self {
        let kept = program_dir
            .filter(|dir| dir.starts_with(target))
            .map(|dir| {
                let below = dir.ancestors().take_while(|a| *a != target);
                let mut chain: Vec<CString> = below.map(c_path).collect();
                chain.reverse();
                Kept {
                    dir: c_path(dir),
                    chain,
                }
            });
        Self {
            target: c_path(target),
            kept,
        }
    }

    fn carry_out(&self) -> io::Result<()> {
        let tree = self
            .kept
            .as_ref()
            .map(|kept| clone_mount(&kept.dir))
            .transpose()?;
        let flags = libc::MS_NOEXEC | libc::MS_NOSUID | libc::MS_NODEV;
        mount(c"tmpfs", &self.target, c"tmpfs", flags, c"mode=1777")?;
        if let (Some(kept), Some(tree)) = (&self.kept, tree) {
            kept.chain.iter().try_for_each(|dir| make_dir(dir))?;
            attach_mount(&tree, &kept.dir)?;
        }
        Ok(())
    }
}

/// Makes a directory.
fn make_dir(path: &CStr) -> io::Result<()> {
    // SAFETY: `path` is a C string, borrowed for the length of the call.
    check(unsafe { libc::mkdir(path.as_ptr(), 0o755) })?;
    Ok(())
}

/// Makes a detached bind mount of `dir` (`open_tree(2)`).
fn clone_mount(dir: &CStr) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    let (call, at) = (libc::SYS_open_tree, libc::AT_FDCWD);
    // SAFETY: `dir` is a C string, borrowed for the length of the call.
    let fd = check(unsafe { libc::syscall(call, at, dir.as_ptr(), flags) })?;
    let fd = i32::try_from(fd).expect("a file descriptor is an int");
    // SAFETY: the call has just returned this descriptor to this code alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a detached mount at `dir` (`move_mount(2)`).
fn attach_mount(tree: &OwnedFd, dir: &CStr) -> io::Result<()> {
    let (call, at) = (libc::SYS_move_mount, libc::AT_FDCWD);
    let (from, flags) = (tree.as_raw_fd(), MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: both paths are C strings, borrowed for the length of the call.
    check(unsafe { libc::syscall(call, from, c"".as_ptr(), at, dir.as_ptr(), flags) })?;
    Ok(())
}
