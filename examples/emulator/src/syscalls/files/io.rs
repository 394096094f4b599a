//! What is done with an open descriptor: reading, writing, lengths, and waiting.

use super::Files;
use crate::syscalls::{Answer, host, put, time::timespec, within, word};
use alloc::vec::Vec;
use core::ptr::{from_mut, null_mut};
use syscalls::{Errno, Sysno, syscall};

/// The most pieces that a call may gather.
const IOV_MAX: u32 = 1024;

/// Returns a number whose halves come in two registers, the low one first.
fn whole((low, high): (u32, u32)) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

impl Files {
    pub(crate) fn read(&self, fd: u32, to: u32, len: u32) -> Answer {
        let (fd, to) = (self.fd(fd)?, within(to, len)?);
        // SAFETY: the kernel writes to the guest's memory, or says EFAULT.
        host(unsafe { syscall!(Sysno::read, fd, to, len) })
    }

    pub(crate) fn write(&self, fd: u32, from: u32, len: u32) -> Answer {
        let (fd, from) = (self.fd(fd)?, within(from, len)?);
        // SAFETY: the kernel reads the guest's memory, or says EFAULT.
        host(unsafe { syscall!(Sysno::write, fd, from, len) })
    }

    /// Reads or writes at an offset, whose halves come in two registers.
    pub(crate) fn positioned(
        &self,
        number: Sysno,
        fd: u32,
        at: u32,
        len: u32,
        offset: (u32, u32),
    ) -> Answer {
        let (fd, at) = (self.fd(fd)?, within(at, len)?);
        let offset = whole(offset);
        // SAFETY: the kernel reads or writes the guest's memory, or says EFAULT.
        host(unsafe { syscall!(number, fd, at, len, offset) })
    }

    /// Reads or writes several pieces.
    pub(crate) fn vector(
        &self,
        number: Sysno,
        fd: u32,
        pieces: u32,
        count: u32,
        offset: Option<(u32, u32)>,
    ) -> Answer {
        let fd = self.fd(fd)?;
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let mut list = Vec::new();
        for index in 0..count {
            let at = pieces.wrapping_add(index * 8);
            let (addr, len) = (word(at)?, word(at.wrapping_add(4))?);
            list.push([within(addr, len)?, len as usize]);
        }
        let offset = whole(offset.unwrap_or_default());
        // SAFETY: the list is valid; the kernel uses the guest's memory, or says EFAULT.
        host(unsafe { syscall!(number, fd, list.as_ptr(), count, offset, 0) })
    }

    pub(crate) fn llseek(&self, fd: u32, high: u32, low: u32, to: u32, whence: u32) -> Answer {
        let fd = self.fd(fd)?;
        let offset = whole((low, high));
        // SAFETY: a descriptor of the guest's.
        let result = unsafe { syscall!(Sysno::lseek, fd, offset, whence) }?;
        put(to, &result.to_le_bytes())
    }

    pub(crate) fn ftruncate(&self, fd: u32, low: u32, high: u32) -> Answer {
        let fd = self.fd(fd)?;
        let len = whole((low, high));
        // SAFETY: a descriptor of the guest's.
        host(unsafe { syscall!(Sysno::ftruncate, fd, len) })
    }

    pub(crate) fn fallocate(
        &self,
        fd: u32,
        mode: u32,
        offset: (u32, u32),
        len: (u32, u32),
    ) -> Answer {
        let fd = self.fd(fd)?;
        let (offset, len) = (whole(offset), whole(len));
        // SAFETY: a descriptor of the guest's.
        host(unsafe { syscall!(Sysno::fallocate, fd, mode, offset, len) })
    }

    pub(crate) fn fchmod(&self, fd: u32, mode: u32) -> Answer {
        let fd = self.fd(fd)?;
        // SAFETY: a descriptor of the guest's.
        host(unsafe { syscall!(Sysno::fchmod, fd, mode & 0o777) })
    }

    pub(crate) fn sync(&self, fd: u32) -> Answer {
        let fd = self.fd(fd)?;
        // SAFETY: a descriptor of the guest's.
        host(unsafe { syscall!(Sysno::fsync, fd) })
    }

    pub(crate) fn getdents(&self, fd: u32, to: u32, len: u32) -> Answer {
        let (fd, to) = (self.fd(fd)?, within(to, len)?);
        // SAFETY: the kernel writes to the guest's memory, or says EFAULT.
        host(unsafe { syscall!(Sysno::getdents64, fd, to, len) })
    }

    /// Sets of descriptors are bits, which lie alike in words of any length.
    pub(crate) fn pselect(&self, count: u32, sets: [u32; 3], time: u32) -> Answer {
        /// The length of a set in C.
        const SET: u32 = 128;
        if count > SET * 8 {
            return Err(Errno::EINVAL);
        }
        let [read, write, except] = sets.map(|set| within(set, SET));
        let (read, write, except) = (read?, write?, except?);
        let mut limit = timespec(time)?;
        let limit = limit.as_mut().map_or(null_mut(), from_mut);
        // SAFETY: the kernel uses the guest's memory, or says EFAULT; the time is valid or null.
        host(unsafe { syscall!(Sysno::pselect6, count, read, write, except, limit, 0) })
    }

    pub(crate) fn ppoll(&self, list: u32, count: u32, time: u32) -> Answer {
        let list = within(list, count.checked_mul(8).ok_or(Errno::EINVAL)?)?;
        let mut limit = timespec(time)?;
        let limit = limit.as_mut().map_or(null_mut(), from_mut);
        // SAFETY: the kernel uses the guest's memory, or says EFAULT; the time is valid or null.
        host(unsafe { syscall!(Sysno::ppoll, list, count, limit, 0, 0) })
    }
}
