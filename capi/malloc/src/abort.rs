//! What `core` asks of a program without the standard library: the end of one that panics. Nothing
//! unwinds in this profile.

use crate::line::say;
use core::panic::PanicInfo;

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    // SAFETY: it ends the program.
    unsafe { libc::abort() }
}
