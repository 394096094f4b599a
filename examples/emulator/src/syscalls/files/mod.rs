//! Calls on files. Paths lead into one folder, the guest's root, and cannot leave it
//! (`RESOLVE_IN_ROOT`); descriptors are the host's, and only those that the guest was given.
//!
//! Here is which descriptors and paths there are, `io` has what is done with descriptors, and
//! `paths` what is done by paths.

mod io;
mod paths;

use super::{Answer, host, put, string, within};
use crate::machine::lock;
use libc::{EBADF, EINVAL, EMFILE, ENAMETOOLONG, ENOTTY, EPERM, c_long};
use std::{
    collections::BTreeSet,
    ffi::CString,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    path::Path,
    sync::Mutex,
};

const AT_FDCWD: u32 = 0xffff_ff9c;
const AT_EMPTY_PATH: u32 = 0x1000;
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_BENEATH: u64 = 8;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// Descriptors that a guest may have, until it says less; the host may allow it fewer.
const MOST: u64 = 1 << 16;

/// The length of what describes a lock.
const FLOCK: u32 = 32;

/// What `openat2` is told.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// The files of the guest.
pub(crate) struct Files {
    root: OwnedFd,
    /// The current folder, as a path in the root.
    folder: Mutex<Vec<u8>>,
    open: Mutex<BTreeSet<u32>>,
    limit: Mutex<[u64; 2]>,
}

impl Files {
    /// Opens the guest's root.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(crate) fn new(root: &Path) -> std::io::Result<Self> {
        /// Above those that the guest gets, which expects the lowest ones.
        const LOWEST: libc::c_int = 500;
        let opened = std::fs::File::open(root)?;
        // SAFETY: the call makes another descriptor of a valid one.
        let fd = unsafe { libc::fcntl(opened.as_raw_fd(), libc::F_DUPFD_CLOEXEC, LOWEST) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: made just now, for this alone.
            root: unsafe { OwnedFd::from_raw_fd(fd) },
            folder: Mutex::new(b"/".to_vec()),
            open: Mutex::new([0, 1, 2].into()),
            limit: Mutex::new([MOST; 2]),
        })
    }

    /// Says whether the guest has a descriptor.
    pub(crate) fn is_open(&self, fd: u32) -> bool {
        lock(&self.open).contains(&fd)
    }

    fn fd(&self, fd: u32) -> Result<c_long, i32> {
        if self.is_open(fd) {
            Ok(fd.into())
        } else {
            Err(EBADF)
        }
    }

    fn opened(&self, answer: Answer) -> Answer {
        let fd = answer?;
        lock(&self.open).insert(fd);
        if u64::from(fd) >= lock(&self.limit)[0] {
            self.close(fd)?;
            return Err(EMFILE);
        }
        Ok(fd)
    }

    /// Returns the limits of descriptors, which a guest may lower: what counts, and how far that
    /// can be raised again.
    pub(super) fn limit(&self) -> [u64; 2] {
        *lock(&self.limit)
    }

    pub(super) fn set_limit(&self, [soft, hard]: [u64; 2]) -> Answer {
        let mut limit = lock(&self.limit);
        if soft > hard {
            return Err(EINVAL);
        }
        if hard > limit[1] {
            return Err(EPERM);
        }
        *limit = [soft, hard];
        Ok(0)
    }

    /// Returns the descriptor and the path that a call means.
    fn place(&self, folder: u32, path: &[u8]) -> Result<(c_long, CString, u64), i32> {
        let absolute = path.first() == Some(&b'/');
        if !absolute && folder != AT_FDCWD {
            let path = CString::new(path).map_err(|_| EINVAL)?;
            return Ok((self.fd(folder)?, path, RESOLVE_BENEATH));
        }
        let mut whole = Vec::new();
        if !absolute {
            whole.extend_from_slice(&lock(&self.folder));
            whole.push(b'/');
        }
        whole.extend_from_slice(path);
        let path = CString::new(whole).map_err(|_| ENAMETOOLONG)?;
        Ok((self.root.as_raw_fd().into(), path, RESOLVE_IN_ROOT))
    }

    fn open_path(&self, folder: u32, path: &[u8], flags: i32, mode: u32) -> Result<OwnedFd, i32> {
        let (fd, path, resolve) = self.place(folder, path)?;
        let how = OpenHow {
            flags: u64::from((flags | libc::O_CLOEXEC).cast_unsigned()),
            mode: if flags & (libc::O_CREAT | libc::O_TMPFILE) == 0 {
                0
            } else {
                u64::from(mode & 0o7777)
            },
            resolve: resolve | RESOLVE_NO_MAGICLINKS,
        };
        let len = size_of::<OpenHow>();
        // SAFETY: the path ends with zero, and the structure is as long as said.
        let result =
            unsafe { libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), &raw const how, len) };
        let fd = host(result)?.cast_signed();
        // SAFETY: opened just now, for this alone.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Opens the folder that a path lies in; returns the path's last part too.
    fn parent(&self, folder: u32, path: &[u8]) -> Result<(OwnedFd, CString), i32> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        let (parent, name): (&[u8], _) = match trimmed.iter().rposition(|byte| *byte == b'/') {
            Some(0) => (b"/", &trimmed[1..]),
            Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
            None => (b".", trimmed),
        };
        if name == b".." {
            return Err(EINVAL);
        }
        let fd = self.open_path(folder, parent, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        Ok((fd, CString::new(name).map_err(|_| EINVAL)?))
    }

    pub(super) fn openat(&self, folder: u32, path: u32, flags: u32, mode: u32) -> Answer {
        // Flags of the generic table, of which the host may have others.
        const O_DIRECTORY: u32 = 0o20_0000;
        const O_NOFOLLOW: u32 = 0o40_0000;
        const O_DIRECT: u32 = 0o4_0000;
        const O_LARGEFILE: u32 = 0o10_0000;
        let named = [
            (O_DIRECTORY, libc::O_DIRECTORY),
            (O_NOFOLLOW, libc::O_NOFOLLOW),
            (O_DIRECT, libc::O_DIRECT),
            (O_LARGEFILE, 0),
        ];
        let all = named.iter().fold(0, |all, (guest, _)| all | guest);
        let set = named.iter().filter(|(guest, _)| flags & guest != 0);
        let host_flags = set.fold((flags & !all).cast_signed(), |all, (_, host)| all | host);
        let path = string(path)?;
        let fd = self.open_path(folder, &path, host_flags, mode)?;
        self.opened(Ok(fd.into_raw_fd().cast_unsigned()))
    }

    pub(super) fn close(&self, fd: u32) -> Answer {
        if !lock(&self.open).remove(&fd) {
            return Err(EBADF);
        }
        if fd == 2 {
            // The emulator's too, for what it has to tell.
            return Ok(0);
        }
        // SAFETY: a descriptor of the guest's.
        host(unsafe { libc::syscall(libc::SYS_close, c_long::from(fd)) })
    }

    pub(super) fn dup(&self, fd: u32) -> Answer {
        let fd = self.fd(fd)?;
        // SAFETY: a descriptor of the guest's.
        self.opened(host(unsafe { libc::syscall(libc::SYS_dup, fd) }))
    }

    pub(super) fn dup3(&self, fd: u32, to: u32, flags: u32) -> Answer {
        let fd = self.fd(fd)?;
        // SAFETY: the call changes nothing.
        let is_used = unsafe { libc::fcntl(to.cast_signed(), libc::F_GETFD) } != -1;
        if is_used && !self.is_open(to) {
            // The emulator's own.
            return Err(EBADF);
        }
        // SAFETY: both are the guest's, or free.
        self.opened(host(unsafe {
            libc::syscall(libc::SYS_dup3, fd, c_long::from(to), flags)
        }))
    }

    pub(super) fn fcntl(&self, fd: u32, op: u32, arg: u32) -> Answer {
        let number = self.fd(fd)?;
        match op.cast_signed() {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
                // SAFETY: a descriptor of the guest's.
                self.opened(host(unsafe {
                    libc::syscall(libc::SYS_fcntl, number, op, arg)
                }))
            }
            libc::F_GETFD | libc::F_SETFD | libc::F_GETFL | libc::F_SETFL => {
                // SAFETY: as above.
                host(unsafe { libc::syscall(libc::SYS_fcntl, number, op, arg) })
            }
            12..=14 => {
                let arg = within(arg, FLOCK)?;
                let host_op = [libc::F_GETLK, libc::F_SETLK, libc::F_SETLKW][op as usize - 12];
                // SAFETY: the kernel uses the guest's memory, or says EFAULT. The structure is that
                // of the host, whose offsets have 64 bits too.
                host(unsafe { libc::syscall(libc::SYS_fcntl, number, host_op, u64::from(arg)) })
            }
            _ => Err(EINVAL),
        }
    }

    pub(super) fn ioctl(&self, fd: u32, request: u32, arg: u32) -> Answer {
        const TIOCGWINSZ: u32 = 0x5413;
        let fd = self.fd(fd)?;
        if request != TIOCGWINSZ {
            return Err(ENOTTY);
        }
        let arg = within(arg, 8)?;
        // SAFETY: the kernel writes eight bytes to the guest's memory, or says EFAULT.
        host(unsafe { libc::syscall(libc::SYS_ioctl, fd, request, u64::from(arg)) })
    }

    pub(super) fn pipe2(&self, to: u32, flags: u32) -> Answer {
        let mut pair = [0; 2];
        // SAFETY: there is room for two.
        host(unsafe { libc::syscall(libc::SYS_pipe2, pair.as_mut_ptr(), flags) })?;
        let [first, second] = pair.map(|fd: i32| self.opened(Ok(fd.cast_unsigned())));
        if let (Ok(first), Ok(second)) = (first, second) {
            put(to, &first.to_le_bytes())?;
            return put(to.wrapping_add(4), &second.to_le_bytes());
        }
        for fd in [first, second].into_iter().flatten() {
            self.close(fd)?;
        }
        Err(EMFILE)
    }
}
