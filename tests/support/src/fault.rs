//! Says whether a closure faults, and where.
//!
//! The closure runs in a child process, whose handler of `SIGSEGV` and `SIGBUS` notes the address
//! and ends the child. The destructors of the closure's frames then do not run: let it make one
//! access and no more.

use core::cell::Cell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::panic::AssertUnwindSafe;
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::io;
use std::panic::catch_unwind;

use crate::sys::{self, Shared, Side, check};

/// Names the signal of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// `SIGSEGV`: no mapping, or one that does not permit the access.
    Segv,
    /// `SIGBUS`: a mapping with nothing behind it.
    Bus,
}

/// Describes a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// What the kernel sent.
    pub signal: Signal,
    /// The address whose access faulted; of an instruction that may not run, its own.
    pub address: usize,
}

/// Room for the closure's frames; its own accesses need little of it.
const STACK_LEN: usize = 256 * 1024;
/// Status of a child whose closure returned or faulted.
const DONE: i32 = 0;
/// Status of a child whose closure panicked.
const PANICKED: i32 = 101;

/// Runs `access` against the mappings of this very process and returns its fault.
///
/// The child shares the memory (`CLONE_VM`), and the calling thread waits for it: what `access`
/// writes, it writes here. Unlike a fork this also sees mappings that forks do not inherit
/// (`MADV_DONTFORK`, `MADV_WIPEONFORK`), which would fault there for that reason alone.
///
/// # Panics
///
/// If `access` panics, or ends the child in another way.
pub fn faults(access: impl FnOnce()) -> Option<Fault> {
    let record = new_record();
    let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK_LEN / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    let mut job = Job {
        access: Some(access),
        record: &record,
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: clone runs `entry(job)` on the given stack, in a process that shares this memory.
    // - entry: it expects a `Job` of this type, which nothing else touches while it runs, since
    //   CLONE_VFORK holds this thread until the child is gone;
    // - stack: `top` is the aligned end of a live allocation of STACK_LEN bytes;
    // - thread-locals: the child uses this thread's, which this thread does not meanwhile.
    let child = unsafe { libc::clone(job.entry(), top.cast(), flags, (&raw mut job).cast()) };
    let child = check(child).unwrap_or_else(|e| panic!("cannot clone: {e}"));
    outcome(child, &record)
}

/// Runs `access` in a forked child, on a copy of the memory, and returns its fault.
///
/// # Panics
///
/// As [`faults`].
pub fn faults_in_fork(access: impl FnOnce()) -> Option<Fault> {
    let record = new_record();
    // SAFETY: the child runs a closure that makes one access, sets a handler and exits; only if the
    // closure panics does it allocate, which glibc and musl permit after fork.
    match unsafe { sys::fork() }.unwrap_or_else(|e| panic!("cannot fork: {e}")) {
        Side::Child => attempt(access, &record),
        Side::Parent(child) => outcome(child, &record),
    }
}

/// Notes a fault, in memory that parent and child share.
#[derive(Default)]
struct Record {
    /// Zero while there is none.
    signal: AtomicI32,
    address: AtomicUsize,
}

thread_local! {
    /// Where the handler notes a fault. Per thread, since tests run in parallel and `CLONE_VM`
    /// shares statics; needs no initialisation, so that a handler can read it.
    static RECORD: Cell<*const Record> = const { Cell::new(ptr::null()) };
}

/// Passes a closure through clone.
struct Job<'a, F> {
    access: Option<F>,
    record: &'a Record,
}

impl<F: FnOnce()> Job<'_, F> {
    /// Returns the function that runs a job of this type, which cannot be written out.
    fn entry(&self) -> extern "C" fn(*mut c_void) -> i32 {
        entry::<F>
    }
}

fn new_record() -> Shared<Record> {
    Shared::new(Record::default()).unwrap_or_else(|e| panic!("cannot map a page: {e}"))
}

/// Is where a cloned child begins.
extern "C" fn entry<F: FnOnce()>(job: *mut c_void) -> i32 {
    // SAFETY: `faults` passes a pointer to its live `Job<F>`, and does not touch it meanwhile.
    let job = unsafe { &mut *job.cast::<Job<'_, F>>() };
    match job.access.take() {
        Some(access) => attempt(access, job.record),
        None => sys::exit_now(PANICKED),
    }
}

/// Runs the closure with the handler set, and exits.
fn attempt(access: impl FnOnce(), record: &Record) -> ! {
    RECORD.set(record);
    let ran = handle(libc::SIGSEGV).and_then(|()| handle(libc::SIGBUS));
    // A panic must not unwind into the frames that are the parent's.
    let ran = ran.is_ok() && catch_unwind(AssertUnwindSafe(access)).is_ok();
    sys::exit_now(if ran { DONE } else { PANICKED })
}

/// Sets the handler of `signal`, in this process only.
fn handle(signal: i32) -> io::Result<()> {
    let handler: extern "C" fn(i32, *const libc::siginfo_t, *const c_void) = note;
    // SAFETY: all of sigaction may be zero: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `action` is initialised and live; `note` has the signature that SA_SIGINFO demands
    // and is async-signal-safe.
    check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    Ok(())
}

/// Notes the fault and ends the child.
extern "C" fn note(signal: i32, info: *const libc::siginfo_t, _: *const c_void) {
    // SAFETY: the kernel passes a live siginfo to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: for these two signals the kernel fills in the address.
    let address = unsafe { info.si_addr() };
    // SAFETY: `attempt` set the pointer in this thread to a record that outlives the child.
    let record = unsafe { &*RECORD.get() };
    record.address.store(address.addr(), Ordering::SeqCst);
    record.signal.store(signal, Ordering::SeqCst);
    sys::exit_now(DONE)
}

/// Waits for the child and reads its record.
fn outcome(child: libc::pid_t, record: &Record) -> Option<Fault> {
    let (_, status) = sys::wait(child).unwrap_or_else(|e| panic!("cannot wait: {e}"));
    let done = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == DONE;
    assert!(
        done,
        "the closure neither returned nor faulted: wait status {status:#x}"
    );
    let signal = match record.signal.load(Ordering::SeqCst) {
        0 => return None,
        libc::SIGBUS => Signal::Bus,
        _ => Signal::Segv,
    };
    Some(Fault {
        signal,
        address: record.address.load(Ordering::SeqCst),
    })
}
