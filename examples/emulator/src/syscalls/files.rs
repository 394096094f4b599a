//! Calls on files. Paths lead into one folder, the guest's root, and cannot leave it
//! (`RESOLVE_IN_ROOT`); descriptors are the host's, and only those that the guest was given.

use super::{Answer, errno, host, put, string, within, word};
use crate::machine::lock;
use libc::{EBADF, EINVAL, ENAMETOOLONG, ENOTTY, ERANGE, c_long};
use std::{
    collections::BTreeSet,
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    sync::Mutex,
};

const AT_FDCWD: u32 = 0xffff_ff9c;
const AT_EMPTY_PATH: u32 = 0x1000;
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_BENEATH: u64 = 8;
const RESOLVE_IN_ROOT: u64 = 0x10;
/// The most pieces that a call may gather.
const IOV_MAX: u32 = 1024;

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
}

impl Files {
    /// Opens the guest's root.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        /// Above those that the guest gets, which expects the lowest ones.
        const LOWEST: libc::c_int = 500;
        let opened = std::fs::File::open(root)?;
        // SAFETY: the call makes another descriptor of a valid one.
        let fd = unsafe { libc::fcntl(opened.as_raw_fd(), libc::F_DUPFD_CLOEXEC, LOWEST) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: made just now, for this alone.
            root: unsafe { OwnedFd::from_raw_fd(fd) },
            folder: Mutex::new(b"/".to_vec()),
            open: Mutex::new([0, 1, 2].into()),
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
        Ok(fd)
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

    fn open_path(
        &self,
        folder: u32,
        path: &[u8],
        flags: i32,
        mode: u32,
    ) -> Result<libc::c_int, i32> {
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
        host(result).and_then(|fd| i32::try_from(fd).map_err(|_| EBADF))
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
        // SAFETY: opened just now, for this alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
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
        let mut host_flags = flags;
        for (guest, _) in named {
            host_flags &= !guest;
        }
        let mut host_flags = host_flags.cast_signed();
        for (guest, host) in named {
            if flags & guest != 0 {
                host_flags |= host;
            }
        }
        let path = string(path)?;
        let fd = self.open_path(folder, &path, host_flags, mode)?;
        self.opened(Ok(fd.cast_unsigned()))
    }

    pub(super) fn close(&self, fd: u32) -> Answer {
        if !lock(&self.open).remove(&fd) {
            return Err(EBADF);
        }
        if fd <= 2 {
            // The emulator's too.
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
        if !self.is_open(to) && host(i64::from(fcntl_get(to))).is_ok() {
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

    pub(super) fn read(&self, fd: u32, to: u32, len: u32) -> Answer {
        let (fd, to) = (self.fd(fd)?, within(to, len)?);
        // SAFETY: the kernel writes to the guest's memory, or says EFAULT.
        host(unsafe { libc::syscall(libc::SYS_read, fd, u64::from(to), u64::from(len)) })
    }

    pub(super) fn write(&self, fd: u32, from: u32, len: u32) -> Answer {
        let (fd, from) = (self.fd(fd)?, within(from, len)?);
        // SAFETY: the kernel reads the guest's memory, or says EFAULT.
        host(unsafe { libc::syscall(libc::SYS_write, fd, u64::from(from), u64::from(len)) })
    }

    /// Reads or writes at an offset, whose halves come in two registers.
    pub(super) fn positioned(
        &self,
        number: c_long,
        fd: u32,
        at: u32,
        len: u32,
        offset: (u32, u32),
    ) -> Answer {
        let (fd, at) = (self.fd(fd)?, within(at, len)?);
        let offset = u64::from(offset.0) | u64::from(offset.1) << 32;
        // SAFETY: the kernel reads or writes the guest's memory, or says EFAULT.
        host(unsafe { libc::syscall(number, fd, u64::from(at), u64::from(len), offset) })
    }

    /// Reads or writes several pieces.
    pub(super) fn vector(
        &self,
        number: c_long,
        fd: u32,
        pieces: u32,
        count: u32,
        offset: Option<(u32, u32)>,
    ) -> Answer {
        let fd = self.fd(fd)?;
        if count > IOV_MAX {
            return Err(EINVAL);
        }
        let mut list = Vec::new();
        for index in 0..count {
            let at = pieces.wrapping_add(index * 8);
            let (addr, len) = (word(at)?, word(at.wrapping_add(4))?);
            list.push([u64::from(within(addr, len)?), u64::from(len)]);
        }
        let (low, high) = offset.unwrap_or_default();
        let offset = u64::from(low) | u64::from(high) << 32;
        // SAFETY: the list is valid; the kernel uses the guest's memory, or says EFAULT.
        host(unsafe { libc::syscall(number, fd, list.as_ptr(), u64::from(count), offset, 0) })
    }

    pub(super) fn llseek(&self, fd: u32, high: u32, low: u32, to: u32, whence: u32) -> Answer {
        let fd = self.fd(fd)?;
        let offset = u64::from(low) | u64::from(high) << 32;
        // SAFETY: a descriptor of the guest's.
        let result = unsafe { libc::syscall(libc::SYS_lseek, fd, offset, whence) };
        if result == -1 {
            return Err(errno());
        }
        put(to, &result.to_le_bytes())
    }

    pub(super) fn ftruncate(&self, fd: u32, low: u32, high: u32) -> Answer {
        let fd = self.fd(fd)?;
        let len = u64::from(low) | u64::from(high) << 32;
        // SAFETY: a descriptor of the guest's.
        host(unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) })
    }

    pub(super) fn fallocate(
        &self,
        fd: u32,
        mode: u32,
        offset: (u32, u32),
        len: (u32, u32),
    ) -> Answer {
        let fd = self.fd(fd)?;
        let whole = |(low, high): (u32, u32)| u64::from(low) | u64::from(high) << 32;
        let (offset, len) = (whole(offset), whole(len));
        // SAFETY: a descriptor of the guest's.
        host(unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, len) })
    }

    pub(super) fn fchmod(&self, fd: u32, mode: u32) -> Answer {
        let fd = self.fd(fd)?;
        // SAFETY: a descriptor of the guest's.
        host(unsafe { libc::syscall(libc::SYS_fchmod, fd, mode & 0o777) })
    }

    pub(super) fn sync(&self, fd: u32) -> Answer {
        let fd = self.fd(fd)?;
        // SAFETY: a descriptor of the guest's.
        host(unsafe { libc::syscall(libc::SYS_fsync, fd) })
    }

    pub(super) fn pipe2(&self, to: u32, flags: u32) -> Answer {
        let mut pair = [0; 2];
        // SAFETY: there is room for two.
        host(unsafe { libc::syscall(libc::SYS_pipe2, pair.as_mut_ptr(), flags) })?;
        for (at, fd) in [0, 4].into_iter().zip(pair) {
            let fd: i32 = fd;
            lock(&self.open).insert(fd.cast_unsigned());
            put(to.wrapping_add(at), &fd.to_le_bytes())?;
        }
        Ok(0)
    }

    pub(super) fn getdents(&self, fd: u32, to: u32, len: u32) -> Answer {
        let (fd, to) = (self.fd(fd)?, within(to, len)?);
        // SAFETY: the kernel writes to the guest's memory, or says EFAULT.
        host(unsafe { libc::syscall(libc::SYS_getdents64, fd, u64::from(to), u64::from(len)) })
    }

    pub(super) fn getcwd(&self, to: u32, len: u32) -> Answer {
        let folder = lock(&self.folder).clone();
        let whole = u32::try_from(folder.len() + 1).map_err(|_| ERANGE)?;
        if whole > len {
            return Err(ERANGE);
        }
        put(to, &folder)?;
        put(to.wrapping_add(whole - 1), &[0])?;
        Ok(whole)
    }

    pub(super) fn chdir(&self, path: u32) -> Answer {
        let path = string(path)?;
        let fd = self.open_path(AT_FDCWD, &path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        // SAFETY: opened just now, to be closed.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut folder = lock(&self.folder);
        let joined = if path.first() == Some(&b'/') {
            path
        } else {
            [folder.as_slice(), b"/", &path].concat()
        };
        *folder = normal(&joined);
        Ok(0)
    }

    pub(super) fn mkdirat(&self, folder: u32, path: u32, mode: u32) -> Answer {
        let (parent, name) = self.parent(folder, &string(path)?)?;
        let fd = c_long::from(parent.as_raw_fd());
        // SAFETY: the name ends with zero.
        host(unsafe { libc::syscall(libc::SYS_mkdirat, fd, name.as_ptr(), mode) })
    }

    pub(super) fn unlinkat(&self, folder: u32, path: u32, flags: u32) -> Answer {
        let (parent, name) = self.parent(folder, &string(path)?)?;
        let fd = c_long::from(parent.as_raw_fd());
        // SAFETY: the name ends with zero.
        host(unsafe { libc::syscall(libc::SYS_unlinkat, fd, name.as_ptr(), flags) })
    }

    pub(super) fn renameat2(&self, a: u32, from: u32, b: u32, to: u32, flags: u32) -> Answer {
        let (old, from) = self.parent(a, &string(from)?)?;
        let (new, to) = self.parent(b, &string(to)?)?;
        let (old, new) = (c_long::from(old.as_raw_fd()), c_long::from(new.as_raw_fd()));
        let (from, to) = (from.as_ptr(), to.as_ptr());
        // SAFETY: the names end with zero.
        host(unsafe { libc::syscall(libc::SYS_renameat2, old, from, new, to, flags) })
    }

    pub(super) fn symlinkat(&self, target: u32, folder: u32, path: u32) -> Answer {
        let target = CString::new(string(target)?).map_err(|_| EINVAL)?;
        let (parent, name) = self.parent(folder, &string(path)?)?;
        let fd = c_long::from(parent.as_raw_fd());
        let (target, name) = (target.as_ptr(), name.as_ptr());
        // SAFETY: both end with zero. Where the link leads is looked at when it is followed.
        host(unsafe { libc::syscall(libc::SYS_symlinkat, target, fd, name) })
    }

    pub(super) fn linkat(&self, a: u32, from: u32, b: u32, to: u32, flags: u32) -> Answer {
        if flags != 0 {
            return Err(EINVAL);
        }
        let (old, from) = self.parent(a, &string(from)?)?;
        let (new, to) = self.parent(b, &string(to)?)?;
        let (old, new) = (c_long::from(old.as_raw_fd()), c_long::from(new.as_raw_fd()));
        let (from, to) = (from.as_ptr(), to.as_ptr());
        // SAFETY: the names end with zero; a link at the end of the first is not followed.
        host(unsafe { libc::syscall(libc::SYS_linkat, old, from, new, to, 0) })
    }

    /// Sets times of an open file, where there is no path, or of what a path names: of a link
    /// itself, if it is one.
    pub(super) fn utimensat(&self, folder: u32, path: u32, times: u32, flags: u32) -> Answer {
        let _ = flags;
        let times = u64::from(within(times, 2 * super::time::TIMESPEC)?);
        if path == 0 {
            let fd = self.fd(folder)?;
            let none = std::ptr::null::<libc::c_char>();
            // SAFETY: the kernel reads the guest's memory, or says EFAULT.
            return host(unsafe { libc::syscall(libc::SYS_utimensat, fd, none, times, 0) });
        }
        let (parent, name) = self.parent(folder, &string(path)?)?;
        let (fd, name) = (c_long::from(parent.as_raw_fd()), name.as_ptr());
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        // SAFETY: the name ends with zero; the times as above.
        host(unsafe { libc::syscall(libc::SYS_utimensat, fd, name, times, flags) })
    }

    pub(super) fn faccessat(&self, folder: u32, path: u32, mode: u32) -> Answer {
        let fd = self.open_path(folder, &string(path)?, libc::O_PATH, 0)?;
        // SAFETY: opened just now, for this alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let number = c_long::from(fd.as_raw_fd());
        let empty = c"".as_ptr();
        let flags = AT_EMPTY_PATH;
        // SAFETY: the path ends with zero.
        host(unsafe { libc::syscall(libc::SYS_faccessat2, number, empty, mode, flags) })
    }

    pub(super) fn readlinkat(&self, folder: u32, path: u32, to: u32, len: u32) -> Answer {
        let (parent, name) = self.parent(folder, &string(path)?)?;
        let (fd, to) = (c_long::from(parent.as_raw_fd()), within(to, len)?);
        let name = name.as_ptr();
        // SAFETY: the name ends with zero; the kernel writes to the guest's memory, or says EFAULT.
        host(unsafe {
            libc::syscall(
                libc::SYS_readlinkat,
                fd,
                name,
                u64::from(to),
                u64::from(len),
            )
        })
    }

    /// The structure is the same on all machines.
    pub(super) fn statx(&self, folder: u32, path: u32, flags: u32, mask: u32, to: u32) -> Answer {
        const LEN: u32 = 256;
        const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
        let path = string(path)?;
        let to = u64::from(within(to, LEN)?);
        let empty = c"".as_ptr();
        if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
            let fd = self.fd(folder)?;
            // SAFETY: the kernel writes to the guest's memory, or says EFAULT.
            return host(unsafe {
                libc::syscall(libc::SYS_statx, fd, empty, AT_EMPTY_PATH, mask, to)
            });
        }
        let follow = if flags & AT_SYMLINK_NOFOLLOW == 0 {
            0
        } else {
            libc::O_NOFOLLOW
        };
        let fd = self.open_path(folder, &path, libc::O_PATH | follow, 0)?;
        // SAFETY: opened just now, for this alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let number = c_long::from(fd.as_raw_fd());
        // SAFETY: as above.
        host(unsafe { libc::syscall(libc::SYS_statx, number, empty, AT_EMPTY_PATH, mask, to) })
    }

    /// Sets of descriptors are bits, which lie alike in words of any length.
    pub(super) fn pselect(&self, count: u32, sets: [u32; 3], time: u32) -> Answer {
        /// The length of a set in C.
        const SET: u32 = 128;
        if count > SET * 8 {
            return Err(EINVAL);
        }
        let [read, write, except] = sets.map(|set| within(set, SET).map(u64::from));
        let (read, write, except) = (read?, write?, except?);
        let mut limit = super::time::timespec(time)?;
        let limit = limit
            .as_mut()
            .map_or(std::ptr::null_mut(), std::ptr::from_mut);
        let count = u64::from(count);
        // SAFETY: the kernel uses the guest's memory, or says EFAULT; the time is valid or null.
        host(unsafe { libc::syscall(libc::SYS_pselect6, count, read, write, except, limit, 0) })
    }

    pub(super) fn ppoll(&self, list: u32, count: u32, time: u32) -> Answer {
        let list = u64::from(within(list, count.checked_mul(8).ok_or(EINVAL)?)?);
        let mut limit = super::time::timespec(time)?;
        let limit = limit
            .as_mut()
            .map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: the kernel uses the guest's memory, or says EFAULT; the time is valid or null.
        host(unsafe { libc::syscall(libc::SYS_ppoll, list, u64::from(count), limit, 0, 0) })
    }
}

/// Asks for a descriptor's flags, which says whether it is open.
fn fcntl_get(fd: u32) -> i32 {
    // SAFETY: the call changes nothing.
    unsafe { libc::fcntl(fd.cast_signed(), libc::F_GETFD) }
}

/// Returns an absolute path without `.`, `..` and empty parts.
fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut whole = vec![b'/'];
    whole.extend(parts.join(&b'/'));
    whole
}
