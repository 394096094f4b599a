//! The host's faults: those of guest code and of accesses for the guest go on as the guest's.

use crate::arch::Context;
use hostmem::{provider::Error, region::GuardedStack};
use std::ptr;

/// Bytes of the stack that handlers run on.
const STACK: usize = 64 << 10;

/// Bytes of its guards.
const GUARD: usize = 4 << 10;

/// Takes the handling of faults over, for all threads.
pub(crate) fn install() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: zero is a value of every field.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler reads the code allocator without a lock, and changes what it returns
        // to.
        let _ = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
}

/// Gives the calling thread a stack for handlers: guest code has the stack pointer for its own use.
///
/// # Errors
///
/// Without memory.
pub(crate) fn prepare_thread(region: &'static crate::host::Region) -> Result<(), Error> {
    // It stays as long as the thread may run, which is known to the C library alone.
    let stack = GuardedStack::new(region, STACK, GUARD)?;
    let given = libc::stack_t {
        ss_sp: stack.base().as_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len_bytes(),
    };
    // SAFETY: memory that is mapped for good, and used by nothing else.
    let _ = unsafe { libc::sigaltstack(&raw const given, ptr::null_mut()) };
    Ok(())
}

/// Goes on elsewhere, where the fault is one of the guest's; else the host has a fault, and ends.
extern "C" fn on_fault(
    signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes the interrupted thread's context, which is this
    // handler's until it returns.
    let context = unsafe { &mut *context.cast::<Context>() };
    if !crate::access::recover(context) && !crate::code::recover(context) {
        // SAFETY: the fault comes again when this returns, and then ends the program.
        let _ = unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
