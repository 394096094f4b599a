//! Calls on files. Paths lead into one folder, the guest's root, and cannot leave it
//! (`RESOLVE_IN_ROOT`); descriptors are the host's, and only those that the guest was given.
//!
//! Here is which descriptors and paths there are, `io` has what is done with descriptors, and
//! `paths` what is done by paths.

mod io;
mod paths;

use super::{Answer, host, put, string, within};
use crate::{
    machine::{Mutex, lock},
    sys::Fd,
};
use alloc::{collections::BTreeSet, ffi::CString, vec::Vec};
use linux_raw_sys::general::{
    F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETLK, F_SETFD, F_SETFL, F_SETLK, F_SETLKW,
    O_CLOEXEC, O_CREAT, O_DIRECT, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_TMPFILE, open_how,
};
use syscalls::{Errno, Sysno, syscall};

const AT_FDCWD: u32 = 0xffff_ff9c;
const AT_EMPTY_PATH: u32 = 0x1000;
const RESOLVE_NO_MAGICLINKS: u32 = 2;
const RESOLVE_BENEATH: u32 = 8;
const RESOLVE_IN_ROOT: u32 = 0x10;

/// Descriptors that a guest may have, until it says less; the host may allow it fewer.
const MOST: u64 = 1 << 16;

/// The length of what describes a lock.
const FLOCK: u32 = 32;

/// The files of the guest.
pub(crate) struct Files {
    root: Fd,
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
    pub(crate) fn new(root: &[u8]) -> Result<Self, Errno> {
        Ok(Self {
            root: Fd::open(root, O_PATH)?.raised()?,
            folder: Mutex::new(b"/".to_vec()),
            open: Mutex::new([0, 1, 2].into()),
            limit: Mutex::new([MOST; 2]),
        })
    }

    /// Says whether the guest has a descriptor.
    pub(crate) fn is_open(&self, fd: u32) -> bool {
        lock(&self.open).contains(&fd)
    }

    fn fd(&self, fd: u32) -> Result<u32, Errno> {
        if self.is_open(fd) {
            Ok(fd)
        } else {
            Err(Errno::EBADF)
        }
    }

    fn opened(&self, answer: Answer) -> Answer {
        let fd = answer?;
        lock(&self.open).insert(fd);
        if u64::from(fd) >= lock(&self.limit)[0] {
            self.close(fd)?;
            return Err(Errno::EMFILE);
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
            return Err(Errno::EINVAL);
        }
        if hard > limit[1] {
            return Err(Errno::EPERM);
        }
        *limit = [soft, hard];
        Ok(0)
    }

    /// Returns the descriptor and the path that a call means.
    fn place(&self, folder: u32, path: &[u8]) -> Result<(u32, CString, u32), Errno> {
        let absolute = path.first() == Some(&b'/');
        if !absolute && folder != AT_FDCWD {
            let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
            return Ok((self.fd(folder)?, path, RESOLVE_BENEATH));
        }
        let mut whole = Vec::new();
        if !absolute {
            whole.extend_from_slice(&lock(&self.folder));
            whole.push(b'/');
        }
        whole.extend_from_slice(path);
        let path = CString::new(whole).map_err(|_| Errno::ENAMETOOLONG)?;
        Ok((self.root.number().cast_unsigned(), path, RESOLVE_IN_ROOT))
    }

    fn open_path(&self, folder: u32, path: &[u8], flags: u32, mode: u32) -> Result<Fd, Errno> {
        let (fd, path, resolve) = self.place(folder, path)?;
        let how = open_how {
            flags: u64::from(flags | O_CLOEXEC),
            mode: if flags & (O_CREAT | O_TMPFILE) == 0 {
                0
            } else {
                u64::from(mode & 0o7777)
            },
            resolve: u64::from(resolve | RESOLVE_NO_MAGICLINKS),
        };
        let (path, how, len) = (path.as_ptr(), &raw const how, size_of::<open_how>());
        // SAFETY: the path ends with zero, and the structure is as long as said.
        let fd = unsafe { syscall!(Sysno::openat2, fd, path, how, len) }?;
        // SAFETY: opened just now, for this alone.
        Ok(unsafe { Fd::of(fd) })
    }

    /// Opens the folder that a path lies in; returns the path's last part too.
    fn parent(&self, folder: u32, path: &[u8]) -> Result<(Fd, CString), Errno> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        let (parent, name): (&[u8], _) = match trimmed.iter().rposition(|byte| *byte == b'/') {
            Some(0) => (b"/", &trimmed[1..]),
            Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
            None => (b".", trimmed),
        };
        if name == b".." {
            return Err(Errno::EINVAL);
        }
        let fd = self.open_path(folder, parent, O_PATH | O_DIRECTORY, 0)?;
        Ok((fd, CString::new(name).map_err(|_| Errno::EINVAL)?))
    }

    pub(super) fn openat(&self, folder: u32, path: u32, flags: u32, mode: u32) -> Answer {
        /// Flags of the generic table, of which the host may have others.
        const NAMED: [(u32, u32); 4] = [
            (0o20_0000, O_DIRECTORY),
            (0o40_0000, O_NOFOLLOW),
            (0o4_0000, O_DIRECT),
            // O_LARGEFILE, which is no question on hosts of 64 bits.
            (0o10_0000, 0),
        ];
        let all = NAMED.iter().fold(0, |all, (guest, _)| all | guest);
        let set = NAMED.iter().filter(|(guest, _)| flags & guest != 0);
        let host_flags = set.fold(flags & !all, |all, (_, host)| all | host);
        let path = string(path)?;
        let fd = self.open_path(folder, &path, host_flags, mode)?;
        self.opened(Ok(fd.into_number()))
    }

    pub(super) fn close(&self, fd: u32) -> Answer {
        if !lock(&self.open).remove(&fd) {
            return Err(Errno::EBADF);
        }
        if fd == 2 {
            // The emulator's too, for what it has to tell.
            return Ok(0);
        }
        // SAFETY: a descriptor of the guest's.
        host(unsafe { syscall!(Sysno::close, fd) })
    }

    pub(super) fn dup(&self, fd: u32) -> Answer {
        let fd = self.fd(fd)?;
        // SAFETY: a descriptor of the guest's.
        self.opened(host(unsafe { syscall!(Sysno::dup, fd) }))
    }

    pub(super) fn dup3(&self, fd: u32, to: u32, flags: u32) -> Answer {
        let fd = self.fd(fd)?;
        // SAFETY: the call changes nothing.
        let is_used = unsafe { syscall!(Sysno::fcntl, to, F_GETFD) }.is_ok();
        if is_used && !self.is_open(to) {
            // The emulator's own.
            return Err(Errno::EBADF);
        }
        // SAFETY: both are the guest's, or free.
        self.opened(host(unsafe { syscall!(Sysno::dup3, fd, to, flags) }))
    }

    pub(super) fn fcntl(&self, fd: u32, op: u32, arg: u32) -> Answer {
        let number = self.fd(fd)?;
        match op {
            F_DUPFD | F_DUPFD_CLOEXEC => {
                // SAFETY: a descriptor of the guest's.
                self.opened(host(unsafe { syscall!(Sysno::fcntl, number, op, arg) }))
            }
            F_GETFD | F_SETFD | F_GETFL | F_SETFL => {
                // SAFETY: as above.
                host(unsafe { syscall!(Sysno::fcntl, number, op, arg) })
            }
            12..=14 => {
                let arg = within(arg, FLOCK)?;
                let host_op = [F_GETLK, F_SETLK, F_SETLKW][op as usize - 12];
                // SAFETY: the kernel uses the guest's memory, or says EFAULT. The structure is that
                // of the host, whose offsets have 64 bits too.
                host(unsafe { syscall!(Sysno::fcntl, number, host_op, arg) })
            }
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn ioctl(&self, fd: u32, request: u32, arg: u32) -> Answer {
        const TIOCGWINSZ: u32 = 0x5413;
        let fd = self.fd(fd)?;
        if request != TIOCGWINSZ {
            return Err(Errno::ENOTTY);
        }
        let arg = within(arg, 8)?;
        // SAFETY: the kernel writes eight bytes to the guest's memory, or says EFAULT.
        host(unsafe { syscall!(Sysno::ioctl, fd, request, arg) })
    }

    pub(super) fn pipe2(&self, to: u32, flags: u32) -> Answer {
        let mut pair = [0_u32; 2];
        // SAFETY: there is room for two.
        host(unsafe { syscall!(Sysno::pipe2, pair.as_mut_ptr(), flags) })?;
        let [first, second] = pair.map(|fd| self.opened(Ok(fd)));
        if let (Ok(first), Ok(second)) = (first, second) {
            put(to, &first.to_le_bytes())?;
            return put(to.wrapping_add(4), &second.to_le_bytes());
        }
        for fd in [first, second].into_iter().flatten() {
            self.close(fd)?;
        }
        Err(Errno::EMFILE)
    }
}
