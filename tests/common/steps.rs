//! Forks between any two instructions of a call, by the trap flag of the CPU.
//!
//! The handler of the trap interrupts the call as any signal handler may, and forks. The child
//! either ends in it, so that the call never goes on, as if another thread had made it; or it
//! returns, and the call resumes in the child.

use super::{exit, raw_clone, wait};
use core::{
    arch::asm,
    cell::Cell,
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
};
use hostmem_test_support::isolate::{isolated_by, run};
use std::process::Command;

/// What becomes of the call in the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The child ends in the handler.
    Ends,
    /// The call resumes, and the child ends behind it.
    Resumes,
}

struct Steps<'a> {
    /// Instructions until now.
    count: Cell<u64>,
    /// Between one fork and the next.
    every: u64,
    then: Then,
    /// What the child does in the handler: zero if all is well.
    child: &'a dyn Fn() -> i32,
    is_child: Cell<bool>,
    forks: Cell<u64>,
    /// The step before which a child failed, and its code.
    failed: Cell<Option<(u64, i32)>>,
}

static STEPS: AtomicPtr<Steps<'static>> = AtomicPtr::new(null_mut());

/// The trap flag of the flags register.
const TRAP: i64 = 1 << 8;

extern "C" fn on_trap(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: set before the trap flag, and cleared behind it; it outlives both.
    let steps = unsafe { &*STEPS.load(Relaxed) };
    let n = steps.count.get();
    steps.count.set(n + 1);
    if !n.is_multiple_of(steps.every) || steps.failed.get().is_some() {
        return;
    }
    let child = raw_clone();
    if child != 0 {
        steps.forks.set(steps.forks.get() + 1);
        match wait(child) {
            0 => {}
            code => steps.failed.set(Some((n, code))),
        }
        return;
    }
    let code = (steps.child)();
    if steps.then == Then::Ends || code != 0 {
        exit(code);
    }
    steps.is_child.set(true);
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: the kernel hands a context over, which it reads again when the handler returns.
    let flags = unsafe { &mut (*context).uc_mcontext.gregs[libc::REG_EFL as usize] };
    *flags &= !TRAP;
}

/// Makes a call instruction by instruction.
fn stepped<T>(steps: &Steps<'_>, call: impl FnOnce() -> T) -> T {
    STEPS.store((&raw const *steps).cast_mut().cast(), Relaxed);
    // SAFETY: a structure of integers and function pointers that may be null.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = on_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the structure outlives the call; the handler is one for three arguments.
    let set = unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, null_mut()) };
    assert_eq!(set, 0);
    // SAFETY: sets the trap flag, whose handler was installed above.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = call();
    // SAFETY: clears the trap flag.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    result
}

/// Runs a test in a process of its own, where glibc copies and fills by loops: by one instruction,
/// the trap flag sees each byte.
pub(crate) fn isolated_with_loops(test_path: &str, body: impl FnOnce()) {
    const LOOPS: &str = "glibc.cpu.x86_rep_movsb_threshold=0x40000000:\
                         glibc.cpu.x86_rep_stosb_threshold=0x40000000";
    let start = |mut command: Command| Ok(run(command.env("GLIBC_TUNABLES", LOOPS)));
    isolated_by(test_path, start, body);
}

impl<'a> Steps<'a> {
    fn new(every: u64, then: Then, child: &'a dyn Fn() -> i32) -> Self {
        Self {
            count: Cell::new(1),
            every,
            then,
            child,
            is_child: Cell::new(false),
            forks: Cell::new(0),
            failed: Cell::new(None),
        }
    }
}

/// Returns how many instructions `call` takes that is not the first of its kind; `prepare` comes
/// before it, and `after` behind it: zero if all is well.
pub(crate) fn count_steps<T>(
    prepare: &dyn Fn(),
    call: &dyn Fn() -> T,
    after: &dyn Fn(T) -> i32,
) -> u64 {
    prepare();
    assert_eq!(after(call()), 0, "the first time");
    prepare();
    let all = Steps::new(u64::MAX, Then::Ends, &|| 0);
    let result = stepped(&all, call);
    assert_eq!(after(result), 0, "without a fork");
    all.count.get()
}

/// Makes `call` with about that many forks between its instructions. `prepare` comes before each
/// call, of which there are two; `child` is what a child does in the handler, and `after`, behind
/// the call, what the caller does, and a child where the call resumed: zero if all is well.
pub(crate) fn at_every_step<T>(
    forks: u64,
    then: Then,
    prepare: &dyn Fn(),
    call: &dyn Fn() -> T,
    child: &dyn Fn() -> i32,
    after: &dyn Fn(T) -> i32,
) {
    let count = count_steps(prepare, call, after);
    at_steps(count, forks, then, prepare, call, child, after);
}

/// Does what [`at_every_step`] does of a call that takes `count` instructions.
pub(crate) fn at_steps<T>(
    count: u64,
    forks: u64,
    then: Then,
    prepare: &dyn Fn(),
    call: &dyn Fn() -> T,
    child: &dyn Fn() -> i32,
    after: &dyn Fn(T) -> i32,
) {
    prepare();
    // Odd, so that not one side of a loop is all that is seen.
    let some = Steps::new((count / forks).max(1) | 1, then, child);
    let result = stepped(&some, call);
    let code = after(result);
    if some.is_child.get() {
        exit(code);
    }
    let failed = some.failed.get();
    assert_eq!(
        failed, None,
        "of {count} steps, {then:?}: step and code of the child"
    );
    assert_eq!(code, 0, "in the parent");
    assert!(some.forks.get() > 0);
}
