//! The skeleton of an emulator's runtime without `std`, `alloc` and libc: it probes the host, maps
//! memory, generates, runs and releases code, also on a second thread and in a claim of all addresses
//! above 4 GiB, allocates from a heap in that claim and from one below, and prints a report.
//!
//! That it links shows that nothing under it asks for an allocator or a C library. Its image lies
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
