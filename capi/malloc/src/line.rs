//! Lines on standard error, written without a call of the heap and without a cancellation point.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

/// The most bytes of a line: what is too long for it is left out.
const MOST: usize = 500;

/// A line of text on the stack.
pub(crate) struct Line {
    bytes: [u8; MOST],
    len: usize,
}

impl Line {
    /// Begins a line with the name of the library.
    pub(crate) fn new() -> Self {
        let mut line = Self::empty();
        line.push(b"hostmem: ");
        line
    }

    /// Begins a line with nothing.
    pub(crate) const fn empty() -> Self {
        Self {
            bytes: [0; MOST],
            len: 0,
        }
    }

    /// Adds what fits; room for the end of the line is left.
    fn push(&mut self, text: &[u8]) {
        let room = self.bytes.get_mut(self.len..MOST - 1).unwrap_or_default();
        let fits = text.len().min(room.len());
        for (place, byte) in room.iter_mut().zip(text) {
            *place = *byte;
        }
        self.len += fits;
    }

    /// Returns the text.
    pub(crate) fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Ends the line, and writes it unless standard error is closed.
    pub(crate) fn write_out(mut self) {
        if let Some(end) = self.bytes.get_mut(self.len) {
            *end = b'\n';
            self.len += 1;
        }
        if may_write() {
            write_all(self.text());
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Writes one line of text on standard error, after the name of the library.
macro_rules! say {
    ($($text:tt)*) => {{
        let mut line = $crate::line::Line::new();
        // Text that does not fit is left out.
        let _ = core::fmt::Write::write_fmt(&mut line, format_args!($($text)*));
        line.write_out();
    }};
}
pub(crate) use say;

/// Whether standard error was closed when the heap was opened: unknown, no, or yes.
static WAS_CLOSED: AtomicU8 = AtomicU8::new(0);

/// Notes whether standard error is open. Where it is not, the next file that the program opens gets
/// its number, and is not for lines like these.
pub(crate) fn look_at_stderr() {
    let state = if is_open() { 1 } else { 2 };
    // The first look counts.
    let _ = WAS_CLOSED.compare_exchange(0, state, Relaxed, Relaxed);
}

fn may_write() -> bool {
    look_at_stderr();
    WAS_CLOSED.load(Relaxed) == 1 && is_open()
}

fn is_open() -> bool {
    keeping_errno(|| {
        // SAFETY: it changes nothing.
        unsafe { libc::syscall(libc::SYS_fcntl, libc::STDERR_FILENO, libc::F_GETFD) >= 0 }
    })
}

/// Calls `f`, and sets `errno` to what it was.
pub(crate) fn keeping_errno<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: the C library's own place for the number, which each thread has.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the place is the calling thread's alone, aligned, and always has a number.
    let before = unsafe { errno.read() };
    let result = f();
    // SAFETY: the place is the calling thread's alone, aligned, and stays as long as the thread.
    unsafe { errno.write(before) };
    result
}

fn write_all(mut bytes: &[u8]) {
    keeping_errno(|| {
        while !bytes.is_empty() {
            // Not by `write`, in which a thread may be cancelled.
            // SAFETY: `bytes` has as many bytes as are written; the call may be made at any time.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_write,
                    libc::STDERR_FILENO,
                    bytes.as_ptr(),
                    bytes.len(),
                )
            };
            match usize::try_from(done) {
                Ok(done) if done > 0 => bytes = bytes.get(done..).unwrap_or_default(),
                // There is no other place to report it to.
                _ => return,
            }
        }
    });
}
