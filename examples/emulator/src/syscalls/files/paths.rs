//! What is done by a path: folders, links, and what is known of a file.

use super::{AT_EMPTY_PATH, AT_FDCWD, Files};
use crate::{
    machine::lock,
    syscalls::{Answer, host, put, string, system::identity, time, within, word},
};
use alloc::{ffi::CString, vec, vec::Vec};
use core::mem;
use linux_raw_sys::general::{AT_SYMLINK_NOFOLLOW, O_DIRECTORY, O_NOFOLLOW, O_PATH, statfs};
use syscalls::{Errno, Sysno, syscall};

impl Files {
    pub(crate) fn getcwd(&self, to: u32, len: u32) -> Answer {
        let folder = lock(&self.folder).clone();
        let whole = u32::try_from(folder.len() + 1).map_err(|_| Errno::ERANGE)?;
        if whole > len {
            return Err(Errno::ERANGE);
        }
        put(to, &folder)?;
        put(to.wrapping_add(whole - 1), &[0])?;
        Ok(whole)
    }

    pub(crate) fn chdir(&self, path: u32) -> Answer {
        let path = string(path)?;
        self.open_path(AT_FDCWD, &path, O_PATH | O_DIRECTORY, 0)?;
        let mut folder = lock(&self.folder);
        let joined = if path.first() == Some(&b'/') {
            path
        } else {
            [folder.as_slice(), b"/", &path].concat()
        };
        *folder = normal(&joined);
        Ok(0)
    }

    /// Makes or removes what a path names: `mkdirat` with a mode, `unlinkat` with flags.
    pub(crate) fn named(&self, number: Sysno, folder: u32, path: u32, how: u32) -> Answer {
        let (parent, name) = self.parent(folder, &string(path)?)?;
        let fd = parent.number();
        // SAFETY: the name ends with zero.
        host(unsafe { syscall!(number, fd, name.as_ptr(), how) })
    }

    pub(crate) fn renameat2(&self, a: u32, from: u32, b: u32, to: u32, flags: u32) -> Answer {
        let (old, from) = self.parent(a, &string(from)?)?;
        let (new, to) = self.parent(b, &string(to)?)?;
        let (old, new) = (old.number(), new.number());
        let (from, to) = (from.as_ptr(), to.as_ptr());
        // SAFETY: the names end with zero.
        host(unsafe { syscall!(Sysno::renameat2, old, from, new, to, flags) })
    }

    pub(crate) fn symlinkat(&self, target: u32, folder: u32, path: u32) -> Answer {
        let target = CString::new(string(target)?).map_err(|_| Errno::EINVAL)?;
        let (parent, name) = self.parent(folder, &string(path)?)?;
        let fd = parent.number();
        let (target, name) = (target.as_ptr(), name.as_ptr());
        // SAFETY: both end with zero. Where the link leads is looked at when it is followed.
        host(unsafe { syscall!(Sysno::symlinkat, target, fd, name) })
    }

    pub(crate) fn linkat(&self, a: u32, from: u32, b: u32, to: u32, flags: u32) -> Answer {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let (old, from) = self.parent(a, &string(from)?)?;
        let (new, to) = self.parent(b, &string(to)?)?;
        let (old, new) = (old.number(), new.number());
        let (from, to) = (from.as_ptr(), to.as_ptr());
        // SAFETY: the names end with zero; a link at the end of the first is not followed.
        host(unsafe { syscall!(Sysno::linkat, old, from, new, to, 0) })
    }

    /// Sets times of an open file, where there is no path, or of what a path names.
    pub(crate) fn utimensat(&self, folder: u32, path: u32, times: u32, flags: u32) -> Answer {
        if flags & !AT_SYMLINK_NOFOLLOW != 0 {
            return Err(Errno::EINVAL);
        }
        let times = within(times, 2 * time::TIMESPEC)?;
        if path == 0 {
            let fd = self.fd(folder)?;
            let none = core::ptr::null::<u8>();
            // SAFETY: the kernel reads the guest's memory, or says EFAULT.
            return host(unsafe { syscall!(Sysno::utimensat, fd, none, times, 0) });
        }
        let fd = self.open_path(folder, &string(path)?, O_PATH | no_follow(flags), 0)?;
        let (number, empty) = (fd.number(), c"".as_ptr());
        // SAFETY: the path ends with zero; the times as above.
        host(unsafe { syscall!(Sysno::utimensat, number, empty, times, AT_EMPTY_PATH) })
    }

    pub(crate) fn faccessat(&self, folder: u32, path: u32, mode: u32) -> Answer {
        let fd = self.open_path(folder, &string(path)?, O_PATH, 0)?;
        let number = fd.number();
        let empty = c"".as_ptr();
        let flags = AT_EMPTY_PATH;
        // SAFETY: the path ends with zero.
        host(unsafe { syscall!(Sysno::faccessat2, number, empty, mode, flags) })
    }

    pub(crate) fn readlinkat(&self, folder: u32, path: u32, to: u32, len: u32) -> Answer {
        let (parent, name) = self.parent(folder, &string(path)?)?;
        let (fd, to) = (parent.number(), within(to, len)?);
        let name = name.as_ptr();
        // SAFETY: the name ends with zero; the kernel writes to the guest's memory, or says EFAULT.
        host(unsafe { syscall!(Sysno::readlinkat, fd, name, to, len) })
    }

    /// The structure is the same on all machines.
    pub(crate) fn statx(&self, folder: u32, path: u32, flags: u32, mask: u32, to: u32) -> Answer {
        const LEN: u32 = 256;
        let path = string(path)?;
        let out = within(to, LEN)?;
        let empty = c"".as_ptr();
        if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
            let fd = self.fd(folder)?;
            // SAFETY: the kernel writes to the guest's memory, or says EFAULT.
            host(unsafe { syscall!(Sysno::statx, fd, empty, AT_EMPTY_PATH, mask, out) })?;
            return owned(to);
        }
        let fd = self.open_path(folder, &path, O_PATH | no_follow(flags), 0)?;
        let number = fd.number();
        // SAFETY: as above.
        host(unsafe { syscall!(Sysno::statx, number, empty, AT_EMPTY_PATH, mask, out) })?;
        owned(to)
    }

    pub(crate) fn statfs(&self, path: u32, len: u32, to: u32) -> Answer {
        let fd = self.open_path(AT_FDCWD, &string(path)?, O_PATH, 0)?;
        describe(fd.number(), len, to)
    }

    pub(crate) fn fstatfs(&self, fd: u32, len: u32, to: u32) -> Answer {
        self.fd(fd)?;
        describe(fd.cast_signed(), len, to)
    }
}

/// Makes the files of the host's user, as `statx` told of them, the guest's own.
fn owned(to: u32) -> Answer {
    const OWNERS: u32 = 20;
    // SAFETY: the call has no arguments.
    let user = host(unsafe { syscall!(Sysno::geteuid) })?;
    // SAFETY: the call has no arguments.
    let group = host(unsafe { syscall!(Sysno::getegid) })?;
    for (at, own) in [(OWNERS, user), (OWNERS + 4, group)] {
        let at = to.wrapping_add(at);
        if word(at)? == own {
            put(at, &identity().to_le_bytes())?;
        }
    }
    Ok(0)
}

/// Tells of the file system that has a file, in the words of `struct statfs64` (asm-generic).
fn describe(fd: i32, len: u32, to: u32) -> Answer {
    const LEN: usize = 88;
    if len as usize != LEN {
        return Err(Errno::EINVAL);
    }
    // SAFETY: zero is a value of every field.
    let mut found: statfs = unsafe { mem::zeroed() };
    // SAFETY: the structure is valid.
    host(unsafe { syscall!(Sysno::fstatfs, fd, &raw mut found) })?;
    let mut bytes = Vec::with_capacity(LEN);
    let low = |number: i64| number.to_le_bytes().into_iter().take(4);
    bytes.extend([found.f_type, found.f_bsize].into_iter().flat_map(low));
    let wide = [
        found.f_blocks,
        found.f_bfree,
        found.f_bavail,
        found.f_files,
        found.f_ffree,
        // The file system's number, which is nobody's business.
        0,
    ];
    bytes.extend(wide.into_iter().flat_map(i64::to_le_bytes));
    // Flags and what is spare stay zero.
    let rest = [found.f_namelen, found.f_frsize];
    bytes.extend(rest.into_iter().flat_map(low));
    bytes.resize(LEN, 0);
    put(to, &bytes)
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

/// Returns the flag by which a link is opened itself, where these ask for that.
const fn no_follow(flags: u32) -> u32 {
    if flags & AT_SYMLINK_NOFOLLOW == 0 {
        0
    } else {
        O_NOFOLLOW
    }
}
