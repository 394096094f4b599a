//! The trap flag (Intel SDM volume 3, 17.3.1.4), set and cleared in the registers that a signal
//! handler finds saved, as sigreturn(2) restores them.

use core::cell::Cell;
use core::ffi::c_void;
use core::{mem, ptr};
use std::sync::{Mutex, Once};

use crate::sys::check;

/// Traps after the next instruction.
const TRAP_FLAG: i64 = 1 << 8;

thread_local! {
    /// Whether this thread steps.
    static STEPPING: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BETWEEN: Cell<Option<Between>> = const { Cell::new(None) };
}

/// A closure that outlives the stepping.
#[derive(Clone, Copy)]
struct Between(*mut (dyn FnMut() + 'static));

/// Steps through `body`, calls `between` after every instruction, and returns how many there were.
pub(super) fn trace(body: impl FnOnce(), between: &mut dyn FnMut()) -> u64 {
    /// One thread at a time: the handler is the process's.
    static ONE: Mutex<()> = Mutex::new(());
    static HANDLER: Once = Once::new();
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    HANDLER.call_once(install);
    let between: *mut (dyn FnMut() + '_) = between;
    // SAFETY: only the lifetime changes; Stepping's end, below, comes before that of the closure.
    let between: *mut (dyn FnMut() + 'static) = unsafe { mem::transmute(between) };
    BETWEEN.set(Some(Between(between)));
    COUNT.set(0);
    {
        let _stepping = Stepping::begin();
        body();
    }
    BETWEEN.set(None);
    COUNT.get()
}

/// While it lives, this thread steps.
struct Stepping;

impl Stepping {
    fn begin() -> Self {
        STEPPING.set(true);
        raise();
        Self
    }
}

impl Drop for Stepping {
    fn drop(&mut self) {
        STEPPING.set(false);
        raise();
    }
}

fn raise() {
    // SAFETY: the handler is installed.
    let raised = unsafe { libc::raise(libc::SIGTRAP) };
    assert_eq!(raised, 0, "a signal that is handled can be raised");
}

fn install() {
    // SAFETY: an all-zero sigaction is a valid one.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = trapped as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for.
    let set = unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) };
    check(set).unwrap_or_else(|e| panic!("cannot handle SIGTRAP: {e}"));
}

extern "C" fn trapped(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let stepping = STEPPING.get();
    // SAFETY: with SA_SIGINFO the kernel passes a ucontext_t that no other code uses now.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    let Some(flags) = usize::try_from(libc::REG_EFL)
        .ok()
        .and_then(|n| registers.get_mut(n))
    else {
        return;
    };
    if !stepping {
        *flags &= !TRAP_FLAG;
        return;
    }
    *flags |= TRAP_FLAG;
    COUNT.set(COUNT.get() + 1);
    if let Some(Between(between)) = BETWEEN.get() {
        // SAFETY: trace's caller lends the closure until the stepping ends, and the handler is not
        // interrupted by itself.
        unsafe { (*between)() };
    }
}
