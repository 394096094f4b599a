//! A program without `std`, `alloc` and libc that makes, runs and releases generated code.
//!
//! That it links shows that nothing under it asks for an allocator or a C library. Exit codes: 0
//! when all went well, 1 to 5 for the step that failed, 101 for a panic.

#![no_builtins]
#![no_std]
#![no_main]

mod mem;

use core::{arch::global_asm, panic::PanicInfo};
use hostmem::{
    OsProvider,
    jit::{JitAllocator, JitConfig},
    provider::{Commit, PageProvider, Request},
};

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start: xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "mov edi, eax",
    "mov eax, 231", // exit_group
    "syscall",
    "ud2",
    main = sym program,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start: mov x29, xzr",
    "bl {main}",
    "mov x8, 94", // exit_group
    "svc 0",
    "brk 1",
    main = sym program,
);

/// `mov eax, 42; ret`
#[cfg(target_arch = "x86_64")]
const ANSWER: &[u8] = &[0xb8, 42, 0, 0, 0, 0xc3];
/// `mov w0, 42; ret`
#[cfg(target_arch = "aarch64")]
const ANSWER: &[u8] = &[0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];

/// Runs, and returns the exit code.
extern "C" fn program() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(step) => step,
    }
}

fn run() -> Result<(), i32> {
    let os = OsProvider::new();
    let range = os.reserve(&Request::bytes(1 << 20)).map_err(|_| 1)?;
    // SAFETY: reserved just now, and known to nobody else.
    unsafe { os.commit(range, Commit::READ_WRITE) }.map_err(|_| 1)?;
    // SAFETY: committed just now, readable and writable.
    unsafe { range.start().write(7) };
    // SAFETY: the range came from reserve, and is not used any more.
    unsafe { os.release(range) }.map_err(|_| 1)?;
    let jit: JitAllocator<OsProvider> =
        JitAllocator::new(os, os, JitConfig::new()).map_err(|_| 2)?;
    let mut span = jit.alloc(ANSWER.len()).map_err(|_| 3)?;
    jit.write(&mut span, 0, ANSWER).map_err(|_| 3)?;
    // SAFETY: the span holds a whole function of this type, and outlives the call.
    let answer: extern "C" fn() -> i32 = unsafe { core::mem::transmute(span.rx().as_ptr()) };
    if answer() != 42 {
        return Err(4);
    }
    jit.release(span).map_err(|_| 5)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: exit_group takes a status and does not return.
    unsafe {
        core::arch::asm!("syscall", in("rax") 231, in("rdi") 101, options(noreturn))
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: exit_group takes a status and does not return.
    unsafe {
        core::arch::asm!("svc 0", in("x8") 94, in("x0") 101, options(noreturn))
    };
}

/// Named by unwinding tables in the precompiled core library; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
