//! x86-64.

use core::arch::global_asm;

// See `access.rs`.
global_asm!(
    ".globl guest_access_begin, guest_access_end, guest_access_failed",
    ".globl guest_load_u8, guest_load_u16, guest_load_u32, guest_store_u8, guest_store_u16",
    ".globl guest_store_u32, guest_compare_exchange, guest_copy",
    "guest_access_begin:",
    "guest_load_u8:  movzx eax, byte ptr [rdi]; xor edx, edx; ret",
    "guest_load_u16: movzx eax, word ptr [rdi]; xor edx, edx; ret",
    "guest_load_u32: mov eax, dword ptr [rdi];  xor edx, edx; ret",
    "guest_store_u8:  mov byte ptr [rdi], sil;  xor edx, edx; ret",
    "guest_store_u16: mov word ptr [rdi], si;   xor edx, edx; ret",
    "guest_store_u32: mov dword ptr [rdi], esi; xor edx, edx; ret",
    "guest_compare_exchange: mov eax, esi; lock cmpxchg dword ptr [rdi], edx; xor edx, edx; ret",
    "guest_copy: mov rcx, rdx; rep movsb; xor edx, edx; ret",
    "guest_access_end:",
    "guest_access_failed: mov edx, 1; ret",
    // Where handlers of signals return to: rt_sigreturn.
    ".globl signal_return",
    "signal_return: mov eax, 15; syscall",
);

unsafe extern "C" {
    pub(crate) fn signal_return();
}

/// The context of an interrupted thread, as the kernel passes it to handlers: `ucontext`, as far as
/// it is used (`arch/x86/include/uapi/asm/sigcontext.h`).
#[repr(C)]
pub(crate) struct Context {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    registers: [u64; 17],
}

/// Where registers are among those of a context.
const RAX: usize = 13;
const RSP: usize = 15;
const RIP: usize = 16;

impl Context {
    fn register(&self, index: usize) -> usize {
        usize::try_from(self.registers[index]).unwrap_or(0)
    }

    /// Returns where the thread is.
    pub(crate) fn pc(&self) -> usize {
        self.register(RIP)
    }

    /// Returns its stack pointer.
    pub(crate) fn stack(&self) -> usize {
        self.register(RSP)
    }

    /// Makes it go on elsewhere, where `value` is what a function returned.
    pub(crate) fn go_on_at(&mut self, pc: usize, value: u32) {
        self.registers[RIP] = pc as u64;
        self.registers[RAX] = value.into();
    }
}
