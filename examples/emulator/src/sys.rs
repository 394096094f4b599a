//! What the emulator asks of the host's kernel for itself: by system calls, so that it needs no C
//! library.

use alloc::{ffi::CString, vec::Vec};
use core::{
    fmt::{self, Write},
    mem,
    sync::atomic::{AtomicU32, Ordering},
};
use linux_raw_sys::general::{
    F_DUPFD_CLOEXEC, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAKE, O_CLOEXEC, SA_ONSTACK,
    SA_RESTORER, SA_SIGINFO, kernel_sigaction, kernel_sigset_t,
};
use syscalls::{Errno, Sysno, syscall};

/// Standard error.
const STDERR: i32 = 2;

/// Prints to standard error, as `eprint!` does.
macro_rules! say {
    ($($arguments:tt)*) => { $crate::sys::print(format_args!($($arguments)*)) };
}

pub(crate) use say;

/// What is to be printed, on its way: without the heap, which may be what fails.
struct Out {
    bytes: [u8; 512],
    len: usize,
}

impl Out {
    fn flush(&mut self) {
        let mut rest = &self.bytes[..self.len];
        while !rest.is_empty() {
            // SAFETY: the kernel reads what is left of the slice.
            match unsafe { syscall!(Sysno::write, STDERR, rest.as_ptr(), rest.len()) } {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                // It cannot be told.
                Err(_) => break,
            }
        }
        self.len = 0;
    }
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.len == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Prints, a line at once, so that what threads say is not mixed.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    let mut out = Out {
        bytes: [0; 512],
        len: 0,
    };
    // It takes all that is written.
    let _ = out.write_fmt(text);
    out.flush();
}

/// Says of an error what the C library would.
pub(crate) fn description(error: Errno) -> &'static str {
    error.description().unwrap_or("unknown error")
}

/// Ends the program.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: the call does not return, and what it ends is this program.
        let _ = unsafe { syscall!(Sysno::exit_group, status) };
    }
}

/// Returns the number of the process.
pub(crate) fn process() -> u32 {
    // SAFETY: the call has no arguments.
    number(unsafe { syscall!(Sysno::getpid) })
}

/// Returns the number of the calling thread.
pub(crate) fn thread() -> u32 {
    // SAFETY: the call has no arguments.
    number(unsafe { syscall!(Sysno::gettid) })
}

/// Returns what a call that cannot fail returned.
fn number(answer: Result<usize, Errno>) -> u32 {
    let number = answer.ok().and_then(|number| u32::try_from(number).ok());
    number.unwrap_or(0)
}

/// Sleeps for this time at most; a signal ends it sooner.
pub(crate) fn sleep(milliseconds: u32) {
    let nothing = core::ptr::null::<u8>();
    let milliseconds = i64::from(milliseconds);
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    // SAFETY: there are no descriptors to look at.
    let _ = unsafe { syscall!(Sysno::ppoll, nothing, 0, time.as_ptr(), nothing, 0) };
}

/// Waits until `word` is not zero; returns it.
pub(crate) fn wait(word: &AtomicU32) -> u32 {
    loop {
        match word.load(Ordering::Acquire) {
            0 => {}
            value => return value,
        }
        let op = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
        // SAFETY: the kernel reads the word. Whatever it returns, the word is looked at again.
        let _ = unsafe { syscall!(Sysno::futex, word.as_ptr(), op, 0, 0) };
    }
}

/// Sets `word`, which is zero, and wakes whoever waits for it.
pub(crate) fn tell(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    let op = FUTEX_WAKE | FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel takes the address as a name only.
    let _ = unsafe { syscall!(Sysno::futex, word.as_ptr(), op, 1) };
}

/// What a handler of signals gets; the second is a `siginfo`.
pub(crate) type Handler = extern "C" fn(i32, *const u8, *mut crate::arch::Context);

/// Gives a signal a handler, which runs on the thread's stack for that; without one, the signal
/// does again what it does by default.
pub(crate) fn handle(signal: i32, handler: Option<Handler>) {
    // SAFETY: a handler of three arguments is what the kernel calls with SA_SIGINFO.
    let call =
        unsafe { mem::transmute::<Option<Handler>, Option<unsafe extern "C" fn(i32)>>(handler) };
    let action = kernel_sigaction {
        sa_handler_kernel: call,
        sa_flags: u64::from(SA_SIGINFO | SA_ONSTACK | SA_RESTORER),
        sa_restorer: Some(crate::arch::signal_return),
        sa_mask: kernel_sigset_t { sig: [0] },
    };
    let (new, old) = (&raw const action, core::ptr::null::<u8>());
    // SAFETY: the structure is valid, and handlers of this program may run at any time: they change
    // atomics, or what they return to.
    let _ = unsafe {
        syscall!(
            Sysno::rt_sigaction,
            signal,
            new,
            old,
            size_of::<kernel_sigset_t>()
        )
    };
}

/// An open file, closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Fd(i32);

impl Fd {
    /// Takes a descriptor over that a call returned.
    ///
    /// # Safety
    ///
    /// Nothing else closes it.
    pub(crate) unsafe fn of(number: usize) -> Self {
        Self(i32::try_from(number).unwrap_or(-1))
    }

    /// Opens a file of the host's for reading.
    pub(crate) fn open(path: &[u8], flags: u32) -> Result<Self, Errno> {
        const AT_FDCWD: isize = -100;
        let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        let (path, flags) = (path.as_ptr(), flags | O_CLOEXEC);
        // SAFETY: the path ends with zero.
        let number = unsafe { syscall!(Sysno::openat, AT_FDCWD, path, flags, 0) }?;
        // SAFETY: opened just now.
        Ok(unsafe { Self::of(number) })
    }

    /// Gives the file a high descriptor: the guest expects the lowest ones.
    pub(crate) fn raised(self) -> Result<Self, Errno> {
        const LOWEST: u32 = 500;
        // SAFETY: the call makes another descriptor of a valid one.
        let number = unsafe { syscall!(Sysno::fcntl, self.0, F_DUPFD_CLOEXEC, LOWEST) }?;
        // SAFETY: made just now, for this alone.
        Ok(unsafe { Self::of(number) })
    }

    pub(crate) const fn number(&self) -> i32 {
        self.0
    }

    /// Gives the descriptor away.
    pub(crate) const fn into_number(self) -> u32 {
        let number = self.0.cast_unsigned();
        mem::forget(self);
        number
    }

    /// Reads to the end.
    pub(crate) fn read(&self) -> Result<Vec<u8>, Errno> {
        const PIECE: usize = 64 << 10;
        let mut bytes = Vec::new();
        loop {
            let len = bytes.len();
            bytes.resize(len + PIECE, 0);
            let to = bytes[len..].as_mut_ptr();
            // SAFETY: `PIECE` bytes were added from `to` on.
            let count = unsafe { syscall!(Sysno::read, self.0, to, PIECE) };
            match count {
                Err(Errno::EINTR) => bytes.truncate(len),
                count => {
                    let count = count?;
                    bytes.truncate(len + count);
                    if count == 0 {
                        return Ok(bytes);
                    }
                }
            }
        }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: this value's alone.
        let _ = unsafe { syscall!(Sysno::close, self.0) };
    }
}

/// Fills a slice with random bytes, as far as the host has any.
pub(crate) fn random(bytes: &mut [u8]) {
    // SAFETY: the kernel fills the slice, as long as it is.
    let _ = unsafe { syscall!(Sysno::getrandom, bytes.as_mut_ptr(), bytes.len(), 0) };
}
