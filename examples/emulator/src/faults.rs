//! The host's faults: those of guest code and of accesses for the guest go on as the guest's.

use crate::{
    arch::Context,
    signals::{SIGBUS, SIGSEGV},
    sys,
};
use hostmem::{provider::Error, region::GuardedStack};
use linux_raw_sys::general::sigaltstack;
use syscalls::{Sysno, syscall};

/// Bytes of the stack that handlers run on.
const STACK: usize = 64 << 10;

/// Bytes of its guards.
const GUARD: usize = 4 << 10;

/// Takes the handling of faults over, for all threads.
pub(crate) fn install() {
    for signal in [SIGSEGV, SIGBUS] {
        sys::handle(signal.into(), Some(on_fault));
    }
}

/// Gives the calling thread a stack for handlers: guest code has the stack pointer for its own use.
///
/// # Errors
///
/// Without memory.
pub(crate) fn prepare_thread(region: &'static crate::host::Region) -> Result<(), Error> {
    // It stays as long as the thread may run, which nothing here tells.
    let stack = GuardedStack::new(region, STACK, GUARD)?;
    let given = sigaltstack {
        ss_sp: stack.base().as_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len_bytes() as u64,
    };
    // SAFETY: memory that is mapped for good, and used by nothing else.
    let _ = unsafe { syscall!(Sysno::sigaltstack, &raw const given, 0) };
    Ok(())
}

/// Goes on elsewhere, where the fault is one of the guest's; else the host has a fault, and ends.
extern "C" fn on_fault(signal: i32, _info: *const u8, context: *mut Context) {
    // SAFETY: with SA_SIGINFO the kernel passes the interrupted thread's context, which is this
    // handler's until it returns.
    let context = unsafe { &mut *context };
    if !crate::access::recover(context) && !crate::code::recover(context) {
        // The fault comes again when this returns, and then ends the program.
        sys::handle(signal, None);
    }
}
