//! Makes chosen system calls of the process fail with a chosen errno.
//!
//! A filter cannot be removed: use it in an [isolated](crate::isolate::isolated) test. Filters add
//! up, and of several that match the kernel takes the one that permits least (seccomp(2)). A refused
//! call does not happen, and a [tracer](crate::trace) outside does not see it.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::Unavailable;

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
    let matches = SeccompCmpOp::MaskedEq(mask);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, matches, value)
        .expect("a system call has the arguments 0 to 5");
    let rule = SeccompRule::new(vec![condition]).expect("the rule has a condition");
    install(BTreeMap::from([(call, vec![rule])]), errno)
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
    let action = SeccompAction::Errno(errno.expect("an errno lies within 1..=4095"));
    seccompiler::apply_filter_all_threads(&compile(calls, action))
        .map_err(|e: Error| Unavailable::new("installing a seccomp filter", e))
}
