//! Makes chosen system calls of the process fail with a chosen errno.
//!
//! A filter cannot be removed: use it in an [isolated](crate::isolate::isolated()) test. Filters add
//! up, and of several that match the kernel takes the one that permits least (seccomp(2)). A
//! refused call does not happen, and a [tracer](crate::trace) outside does not see it.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::sync::OnceLock;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::Unavailable;
use crate::sys::check;

/// Refuses `calls` with `errno` in every thread of the process, and in what it starts later.
///
/// It sets `no_new_privs`.
///
/// # Errors
///
/// The kernel has no seccomp filters, or a thread has one that the others have not.
///
/// # Panics
///
/// If `calls` is empty or `errno` is no errno.
pub fn refuse(calls: &[libc::c_long], errno: i32) -> Result<(), Unavailable> {
    assert!(!calls.is_empty(), "no system call to refuse");
    install(
        calls.iter().map(|&call| (call, Vec::new())).collect(),
        errno,
    )
}

/// Refuses `call` with `errno` where `argument & mask == value & mask`, counting arguments from 0.
///
/// # Errors
///
/// As [`refuse`].
///
/// # Panics
///
/// If `argument` exceeds 5 or `errno` is no errno.
pub fn refuse_when(
    call: libc::c_long,
    argument: u8,
    mask: u64,
    value: u64,
    errno: i32,
) -> Result<(), Unavailable> {
    let rules = BTreeMap::from([(call, vec![matching(argument, mask, value)])]);
    install(rules, errno)
}

/// Makes the rule that `argument & mask == value & mask`.
fn matching(argument: u8, mask: u64, value: u64) -> SeccompRule {
    let matches = SeccompCmpOp::MaskedEq(mask);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, matches, value)
        .expect("a system call has the arguments 0 to 5");
    SeccompRule::new(vec![condition]).expect("the rule has a condition")
}

/// Answers a system call in the kernel's stead: takes its arguments and returns its result,
/// `-errno` for failure.
pub type Answer = fn(&[usize; 6]) -> isize;

/// Has `answer` answer `call` where `argument & mask == value & mask`, in the thread that makes it,
/// by a handler of `SIGSYS`. Calls that match and are made by `answer` itself end the process.
///
/// A process has one `answer` at most.
///
/// # Errors
///
/// As [`refuse`].
///
/// # Panics
///
/// If `argument` exceeds 5, or there is an answer already.
pub fn answer_when(
    call: libc::c_long,
    argument: u8,
    mask: u64,
    value: u64,
    answer: Answer,
) -> Result<(), Unavailable> {
    ANSWER.set(answer).expect("a process has one answer");
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes are a value of this structure of integers and an optional pointer.
    let action = unsafe { action.assume_init_mut() };
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = on_trap;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler is of the type that SA_SIGINFO asks for, and changes the trapped call's
    // result only.
    check(unsafe { libc::sigaction(libc::SIGSYS, action, ptr::null_mut()) })
        .unwrap_or_else(|e| panic!("cannot handle a signal: {e}"));
    let rules = BTreeMap::from([(call, vec![matching(argument, mask, value)])]);
    install_with(rules, SeccompAction::Trap)
}

static ANSWER: OnceLock<Answer> = OnceLock::new();

/// Answers the call that the filter stopped this thread at.
extern "C" fn on_trap(_: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the context of what it interrupted, which is this thread's until
    // the handler returns.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let arguments = cpu::arguments(context);
    let answer = ANSWER.get().expect("set before the filter");
    cpu::set_result(context, answer(&arguments));
}

#[cfg(target_arch = "x86_64")]
mod cpu {
    fn word(context: &libc::ucontext_t, register: i32) -> usize {
        let index = usize::try_from(register).expect("a register has a place");
        let value = context.uc_mcontext.gregs[index].cast_unsigned();
        usize::try_from(value).expect("as wide as an address")
    }

    pub(super) fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
        use libc::{REG_R8, REG_R9, REG_R10, REG_RDI, REG_RDX, REG_RSI};
        [REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9].map(|r| word(context, r))
    }

    pub(super) fn set_result(context: &mut libc::ucontext_t, value: isize) {
        let index = usize::try_from(libc::REG_RAX).expect("a register has a place");
        context.uc_mcontext.gregs[index] = value as i64;
    }
}

#[cfg(target_arch = "aarch64")]
mod cpu {
    pub(super) fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
        let word = |n: usize| usize::try_from(context.uc_mcontext.regs[n]);
        [0, 1, 2, 3, 4, 5].map(|n| word(n).expect("as wide as an address"))
    }

    pub(super) fn set_result(context: &mut libc::ucontext_t, value: isize) {
        context.uc_mcontext.regs[0] = (value as i64).cast_unsigned();
    }
}

/// Compiles a filter that answers `calls` with `action` and lets all others pass.
pub(crate) fn compile(
    calls: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    action: SeccompAction,
) -> BpfProgram {
    let arch = TargetArch::try_from(ARCH).expect("seccompiler knows this CPU");
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, action, arch);
    let program = filter.and_then(BpfProgram::try_from);
    program.expect("a filter of few system calls is valid and short")
}

/// Installs a filter on all threads.
fn install(calls: BTreeMap<libc::c_long, Vec<SeccompRule>>, errno: i32) -> Result<(), Unavailable> {
    // The kernel cuts larger values down to MAX_ERRNO.
    let errno = u32::try_from(errno).ok().filter(|e| (1..=4095).contains(e));
    let errno = errno.expect("an errno lies within 1..=4095");
    install_with(calls, SeccompAction::Errno(errno))
}

fn install_with(
    calls: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    action: SeccompAction,
) -> Result<(), Unavailable> {
    seccompiler::apply_filter_all_threads(&compile(calls, action))
        .map_err(|e: Error| Unavailable::new("installing a seccomp filter", e))
}
