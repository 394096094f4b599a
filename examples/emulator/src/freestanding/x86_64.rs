//! x86-64: the program's entry, threads, and functions of memory that compiled code calls.

use super::system::Block;
use core::arch::{asm, global_asm};
use syscalls::{Sysno, syscall};

const ARCH_SET_FS: usize = 0x1002;

global_asm!(
    ".globl _start",
    "_start: xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {program}",
    "ud2",
    program = sym crate::program,
);

// As in C. Eight bytes at a time, and what is long by the instruction for that.
global_asm!(
    ".globl memcpy, memmove, memset, memcmp, bcmp, strlen",
    "memcpy: mov rax, rdi",
    "cmp rdx, 512",
    "ja 4f",
    "2: sub rdx, 8",
    "jb 3f",
    "mov rcx, [rsi]",
    "mov [rdi], rcx",
    "add rsi, 8",
    "add rdi, 8",
    "jmp 2b",
    "3: add rdx, 8",
    "4: mov rcx, rdx",
    "rep movsb",
    "ret",
    "memmove: mov rcx, rdi",
    "sub rcx, rsi",
    "cmp rcx, rdx",
    "jae memcpy",
    "mov rax, rdi",
    "2: sub rdx, 8",
    "jb 3f",
    "mov rcx, [rsi + rdx]",
    "mov [rdi + rdx], rcx",
    "jmp 2b",
    "3: add rdx, 8",
    "4: sub rdx, 1",
    "jb 5f",
    "mov cl, [rsi + rdx]",
    "mov [rdi + rdx], cl",
    "jmp 4b",
    "5: ret",
    "memset: mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    "memcmp:",
    "bcmp: xor ecx, ecx",
    "2: cmp rcx, rdx",
    "je 3f",
    "movzx eax, byte ptr [rdi + rcx]",
    "movzx r8d, byte ptr [rsi + rcx]",
    "inc rcx",
    "sub eax, r8d",
    "jz 2b",
    "ret",
    "3: xor eax, eax",
    "ret",
    "strlen: xor eax, eax",
    "2: cmp byte ptr [rdi + rax], 0",
    "je 3f",
    "inc rax",
    "jmp 2b",
    "3: ret",
);

/// Sets the calling thread's pointer.
///
/// # Safety
///
/// The block begins with its own address, and stays as long as the thread.
pub(crate) unsafe fn set_thread(block: *const Block) {
    // SAFETY: the call sets a register that nothing else here uses.
    let _ = unsafe { syscall!(Sysno::arch_prctl, ARCH_SET_FS, block) };
}

/// Returns the calling thread's pointer.
#[inline(always)]
pub(crate) fn thread() -> *const Block {
    let block;
    // SAFETY: it leads to the thread's block, which begins with its own address.
    unsafe {
        asm!("mov {}, fs:[0]", out(reg) block, options(nostack, preserves_flags, readonly, pure));
    }
    block
}

/// Starts a thread that calls `entry(argument)` on the stack below `block`, to which its pointer
/// leads; returns its number, or an error as a negative one. The kernel stores zero at `there` when
/// the thread is gone.
///
/// # Safety
///
/// The stack is the thread's alone and large enough, and `entry` may be called once with `argument`
/// on any thread. The block stays until `there` is zero.
pub(crate) unsafe fn start_thread(
    flags: usize,
    block: *mut Block,
    entry: extern "C" fn(*mut u8),
    argument: *mut u8,
    there: *mut u32,
) -> isize {
    let result;
    // SAFETY: the child has a stack of its own and never comes back here: it calls entry and exits.
    // The parent finds all registers but the clobbered ones as they were.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const Sysno::exit as i32,
            inlateout("rax") Sysno::clone as isize => result,
            in("rdi") flags, in("rsi") block,
            in("rdx") 0, in("r10") there, in("r8") block,
            in("r12") entry as usize, in("r13") argument,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}
