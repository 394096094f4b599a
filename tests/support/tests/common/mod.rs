//! System calls that several tests make on purpose.
#![expect(dead_code, reason = "each test binary uses some of these")]

use core::ptr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

pub(crate) const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
pub(crate) const RX: i32 = libc::PROT_READ | libc::PROT_EXEC;
pub(crate) const RWX: i32 = RW | libc::PROT_EXEC;
pub(crate) const PAGE: usize = 4096;

/// Holds a mapping until the process ends, for what is tested is not who unmaps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    pub(crate) start: *mut u8,
    pub(crate) len: usize,
}

impl Map {
    pub(crate) fn anonymous(len: usize, prot: i32) -> io::Result<Self> {
        Self::new(len, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    pub(crate) fn of_file(file: &File, len: usize, prot: i32) -> io::Result<Self> {
        Self::new(len, prot, libc::MAP_SHARED, file.as_raw_fd())
    }

    pub(crate) fn new(len: usize, prot: i32, flags: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self {
                start: start.cast(),
                len,
            })
        }
    }

    pub(crate) fn protect(self, prot: i32) -> io::Result<()> {
        // SAFETY: the range is a mapping of this test, to which no reference exists.
        let ok = unsafe { libc::mprotect(self.start.cast(), self.len, prot) } == 0;
        if ok {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    pub(crate) fn unmap(self) {
        // SAFETY: the range is a mapping of this test, which uses it no more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }

    pub(crate) fn advise(self, advice: i32) {
        // SAFETY: the range is a mapping of this test, and none of the advices used drops its data.
        let ok = unsafe { libc::madvise(self.start.cast(), self.len, advice) };
        assert_eq!(ok, 0, "madvise: {}", io::Error::last_os_error());
    }

    /// Writes the first byte; may fault.
    pub(crate) fn write(self, byte: u8) {
        // SAFETY: a raw, volatile access to this test's mapping; if it faults, that is the test.
        unsafe { self.start.write_volatile(byte) };
    }

    /// Reads the first byte; may fault.
    pub(crate) fn read(self) -> u8 {
        // SAFETY: as in write.
        unsafe { self.start.read_volatile() }
    }

    /// Calls the first byte as a function; may fault.
    pub(crate) fn call(self) {
        // SAFETY: the address is not null; the tests call it only where it faults or returns.
        let function: extern "C" fn() = unsafe { core::mem::transmute(self.start) };
        function();
    }
}

/// Makes a memfd.
pub(crate) fn memfd(flags: u32) -> io::Result<File> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"test".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just returned this descriptor to this code alone.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Returns the errno of a result.
pub(crate) fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}
