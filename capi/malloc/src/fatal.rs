//! The end of a program that frees what is not allocated, without a call of the heap on the way.

use core::fmt::{self, Write};
use hostmem::heap::HeapError;

/// A line of text on the stack; what is too long for it is left out.
struct Line {
    bytes: [u8; 200],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let place = self.bytes.get_mut(self.len).ok_or(fmt::Error)?;
            *place = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Says on standard error why, and aborts.
#[cold]
pub(crate) fn end(call: &str, block: *mut u8, error: &HeapError) -> ! {
    let mut line = Line {
        bytes: [0; 200],
        len: 0,
    };
    // What does not fit is left out.
    let _ = writeln!(line, "hostmem: {call}({block:p}): {error}");
    // SAFETY: the bytes up to that length were written; the call may be made at any time.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
    // SAFETY: it ends the program.
    unsafe { libc::abort() }
}
