//! x86-64.

use std::arch::global_asm;

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
);

/// The context of an interrupted thread, as the kernel passes it to handlers.
#[repr(transparent)]
pub(crate) struct Context(libc::ucontext_t);

impl Context {
    fn register(&self, index: i32) -> usize {
        let value = self.0.uc_mcontext.gregs[place(index)].cast_unsigned();
        usize::try_from(value).unwrap_or(0)
    }

    fn set(&mut self, index: i32, value: usize) {
        self.0.uc_mcontext.gregs[place(index)] = (value as u64).cast_signed();
    }

    /// Returns where the thread is.
    pub(crate) fn pc(&self) -> usize {
        self.register(libc::REG_RIP)
    }

    /// Returns its stack pointer.
    pub(crate) fn stack(&self) -> usize {
        self.register(libc::REG_RSP)
    }

    /// Makes it go on elsewhere, where `value` is what a function returned.
    pub(crate) fn go_on_at(&mut self, pc: usize, value: u32) {
        self.set(libc::REG_RIP, pc);
        self.set(libc::REG_RAX, value as usize);
    }
}

/// Returns where a register is among those of a context.
const fn place(index: i32) -> usize {
    index.cast_unsigned() as usize
}
