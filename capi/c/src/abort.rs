//! What `core` asks of a program without the standard library: the end of one that panics. Nothing
//! unwinds in this profile.

use crate::host;
use core::{
    fmt::{self, Write},
    panic::PanicInfo,
};

/// Bytes of a line: what is too long for it is left out.
const MOST: usize = 500;

/// A line of text on the stack.
struct Line {
    bytes: [u8; MOST],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Room for the end of the line is left.
        let room = self.bytes.get_mut(self.len..MOST - 1).unwrap_or_default();
        let fits = text.len().min(room.len());
        for (place, byte) in room.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        self.len += fits;
        Ok(())
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    let mut line = Line {
        bytes: [0; MOST],
        len: 0,
    };
    // Text that does not fit is left out.
    let _ = write!(line, "hostmem: {info}");
    if let Some(end) = line.bytes.get_mut(line.len) {
        *end = b'\n';
        line.len += 1;
    }
    host::print(line.bytes.get(..line.len).unwrap_or_default());
    // SAFETY: it ends the program.
    unsafe { libc::abort() }
}

/// What Rust's own library, which is built for programs that unwind, asks for where it is not
/// optimized as a whole with this one. What passes its frames, a thread that is cancelled in a
/// callback for instance, is told to go on: `_URC_CONTINUE_UNWIND`. A program in Rust has its own.
#[cfg(target_os = "linux")]
macro_rules! personality {
    ($($instruction:literal),+) => {
        core::arch::global_asm!(
            ".pushsection .text.rust_eh_personality, \"ax\", %progbits",
            ".weak rust_eh_personality",
            ".hidden rust_eh_personality",
            ".type rust_eh_personality, %function",
            "rust_eh_personality:",
            $($instruction,)+
            ".size rust_eh_personality, . - rust_eh_personality",
            ".popsection",
        );
    };
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
personality!("mov eax, 8", "ret");
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
personality!("mov w0, #8", "ret");

/// What Rust's own library asks for. An exception of Windows that passes, a `longjmp` for instance,
/// is told to go on: `ExceptionContinueSearch`.
#[cfg(windows)]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> core::ffi::c_int {
    1
}
