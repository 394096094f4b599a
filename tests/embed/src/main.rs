//! The skeleton of an emulator's runtime without `std` and libc: it probes the host, maps
//! memory, generates, runs and releases code, also on a second thread and in a claim of all
//! addresses above 4 GiB, allocates from a heap in that claim and from one below, and prints a
//! report.
//!
//! That it links shows that nothing under it asks for a C library, and that all but the collections
//! come before there is an allocator shows that nothing else asks for one. Its image lies
//! above 4 GiB, as that of an emulator with a 32-bit guest must, and it looks itself up to see.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | all went well |
//! | 10 and more | the [`Step`](steps::Step) that failed |
//! | 101 | a panic |

#![no_builtins]
#![no_std]
#![no_main]

mod collections;
#[cfg_attr(target_arch = "x86_64", path = "cpu/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "cpu/aarch64.rs")]
mod cpu;
mod heap;
mod mem;
mod out;
mod region;
mod scenarios;
mod steps;
mod thread;

use core::panic::PanicInfo;
use out::say;

/// The exit code of a panic, as `std`'s.
const PANICKED: i32 = 101;

/// Where `_start` comes to, with an aligned stack.
extern "C" fn program() -> ! {
    let code = match steps::run() {
        Ok(()) => {
            say!("all well");
            0
        }
        Err(step) => {
            say!("failed: {step:?}");
            step as i32
        }
    };
    cpu::exit(code)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    cpu::exit(PANICKED)
}

/// Named by unwinding tables in the precompiled core library; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Called by the precompiled `alloc` library where a panic has been caught to clean up; none is.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    cpu::exit(PANICKED)
}
