//! The emulator without the standard library and without a C library: it is entered by the kernel,
//! and asks it alone.
//!
//! Its modules are those of the hosted program (`main.rs`), but for `system`, and for what only the
//! hosted one has: `--map`, `--perf`, `--gdb`, and what is told while a guest runs.
//! `freestanding/Cargo.toml` builds it.

#![no_std]
#![no_main]

extern crate alloc;

mod access;
mod arch;
mod cli;
mod code;
#[cfg_attr(target_arch = "x86_64", path = "freestanding/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "freestanding/aarch64.rs")]
mod cpu;
mod decode;
#[expect(
    dead_code,
    reason = "names of functions are for what only the hosted program has"
)]
mod elf;
mod faults;
#[path = "freestanding/gdb.rs"]
mod gdb;
mod host;
mod inst;
mod interpret;
mod load;
mod machine;
mod signals;
mod space;
mod sys;
mod syscalls;
#[path = "freestanding/system.rs"]
mod system;
mod thunks;

use alloc::vec::Vec;
use core::{
    ffi::{CStr, c_char},
    panic::PanicInfo,
};

/// The exit status of a panic, as the standard library's.
const PANICKED: i32 = 101;

/// Where `_start` comes to, with the stack as the kernel made it: `argc`, `argv`.
///
/// # Safety
///
/// Called once, by `_start`.
unsafe extern "C" fn program(stack: *const usize) -> ! {
    // SAFETY: the first thread has no block yet, and nothing was allocated.
    unsafe { system::begin_thread() };
    // SAFETY: the kernel put the number of arguments there.
    let count = unsafe { stack.read() };
    let mut args = Vec::new();
    for index in 1..count {
        // SAFETY: the arguments' addresses follow their number.
        let arg = unsafe { stack.wrapping_add(1 + index).cast::<*const c_char>().read() };
        // SAFETY: an argument ends with zero, and stays as long as the program.
        args.push(unsafe { CStr::from_ptr(arg) }.to_bytes().to_vec());
    }
    sys::exit(cli::main(args.into_iter()))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let message = info.message();
    match info.location() {
        Some(place) => sys::say!("emulator: panicked at {place}: {message}\n"),
        None => sys::say!("emulator: panicked: {message}\n"),
    }
    sys::exit(PANICKED)
}

/// Named by unwinding tables in the precompiled core library; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Called by the precompiled `alloc` library where a panic has been caught to clean up; none is.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sys::exit(PANICKED)
}
