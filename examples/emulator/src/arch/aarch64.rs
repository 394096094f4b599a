//! AArch64.

use core::arch::global_asm;

// See `access.rs`.
global_asm!(
    ".globl guest_access_begin, guest_access_end, guest_access_failed",
    ".globl guest_load_u8, guest_load_u16, guest_load_u32, guest_store_u8, guest_store_u16",
    ".globl guest_store_u32, guest_compare_exchange, guest_copy",
    ".p2align 2",
    "guest_access_begin:",
    "guest_load_u8:  ldrb w0, [x0]; mov x1, xzr; ret",
    "guest_load_u16: ldrh w0, [x0]; mov x1, xzr; ret",
    "guest_load_u32: ldr w0, [x0];  mov x1, xzr; ret",
    "guest_store_u8:  strb w1, [x0]; mov x1, xzr; ret",
    "guest_store_u16: strh w1, [x0]; mov x1, xzr; ret",
    "guest_store_u32: str w1, [x0];  mov x1, xzr; ret",
    "guest_compare_exchange:",
    "2: ldaxr w3, [x0]",
    "cmp w3, w1",
    "b.ne 3f",
    "stlxr w4, w2, [x0]",
    "cbnz w4, 2b",
    "3: dmb ish",
    "mov w0, w3",
    "mov x1, xzr",
    "ret",
    "guest_copy:",
    "2: subs x3, x2, #8",
    "b.lo 3f",
    "ldr x4, [x1], #8",
    "str x4, [x0], #8",
    "mov x2, x3",
    "b 2b",
    "3: cbz x2, 4f",
    "ldrb w4, [x1], #1",
    "strb w4, [x0], #1",
    "sub x2, x2, #1",
    "b 3b",
    "4: mov x1, xzr",
    "ret",
    "guest_access_end:",
    "guest_access_failed: mov x1, #1; ret",
    // Where handlers of signals return to: rt_sigreturn.
    ".globl signal_return",
    "signal_return: mov x8, #139; svc #0",
);

unsafe extern "C" {
    pub(crate) fn signal_return();
}

/// The context of an interrupted thread, as the kernel passes it to handlers: `ucontext`, as far as
/// it is used (`arch/arm64/include/uapi/asm/sigcontext.h`).
#[repr(C)]
pub(crate) struct Context {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    signals: [u64; 17],
    fault: u64,
    registers: [u64; 31],
    sp: u64,
    pc: u64,
}

// What follows the set of signals is aligned to sixteen bytes.
const _: () = assert!(core::mem::offset_of!(Context, fault) == 176);

impl Context {
    /// Returns where the thread is.
    pub(crate) fn pc(&self) -> usize {
        usize::try_from(self.pc).unwrap_or(0)
    }

    /// Returns its stack pointer.
    pub(crate) fn stack(&self) -> usize {
        usize::try_from(self.sp).unwrap_or(0)
    }

    /// Makes it go on elsewhere, where `value` is what a function returned.
    pub(crate) fn go_on_at(&mut self, pc: usize, value: u32) {
        self.pc = pc as u64;
        self.registers[0] = value.into();
    }
}
