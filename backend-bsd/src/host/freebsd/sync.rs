//! FreeBSD: `membarrier(2)`, by its number: neither every libc nor every kernel has it. Waiting by
//! `_umtx_op(2)`.

use crate::shared::{
    errno::{check, error},
    sysctl::sysctl_int,
    time::timespec,
};
use core::{
    ffi::{c_int, c_uint},
    ptr::{null_mut, without_provenance_mut},
    sync::atomic::{AtomicBool, AtomicU32},
    time::Duration,
};
use hostmem_core::provider::{Error, ErrorKind, backend::register_and_sync};
use rustix::io::Errno;

/// `SYS_membarrier` of `sys/syscall.h`.
const SYS_MEMBARRIER: c_int = 584;
/// `MEMBARRIER_CMD_QUERY` of `sys/membarrier.h`.
const QUERY: c_int = 0;
/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE`.
const SYNC_CORE: c_int = 1 << 5;
/// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE`.
const REGISTER_SYNC_CORE: c_int = 1 << 6;

/// `__FreeBSD_version` of 14.1, the first release with the call (`membarrier(2)`, HISTORY).
const VERSION_14_1: c_int = 1_401_000;
/// `__FreeBSD_version` of the development of 15 when 14 was branched off, without the call
/// (`__FreeBSD_version` Values in the Porter's Handbook: August 2023).
const VERSION_15: c_int = 1_500_000;
/// `__FreeBSD_version` of the release 15.0 (`sys/param.h`), which has the call under the same
/// number. Its development had it by September 2023, but no version of its own says since when.
const VERSION_15_0: c_int = 1_500_068;

/// Says whether the kernel has the call. One that does not know a number kills the process by
/// `SIGSYS`, so that only releases that are known to have this one are asked.
fn has_membarrier() -> bool {
    let version = sysctl_int(&[libc::CTL_KERN, libc::KERN_OSRELDATE]).unwrap_or(0);
    version >= VERSION_15_0 || (VERSION_14_1..VERSION_15).contains(&version)
}

fn membarrier(command: c_int) -> Result<c_int, Errno> {
    if !has_membarrier() {
        return Err(Errno::NOSYS);
    }
    let (flags, cpu): (c_uint, c_int) = (0, 0);
    // SAFETY: this system call takes three integers and changes no memory.
    check(unsafe { libc::syscall(SYS_MEMBARRIER, command, flags, cpu) })
}

/// Says whether this host can.
pub(crate) fn core_sync() -> Result<(), Error> {
    let wanted = SYNC_CORE | REGISTER_SYNC_CORE;
    if membarrier(QUERY).map_err(error)? & wanted == wanted {
        Ok(())
    } else {
        Err(ErrorKind::Unsupported.into())
    }
}

pub(crate) fn sync_cores() -> Result<(), Error> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    let ask = |command| membarrier(command).map(drop).map_err(error);
    register_and_sync(&REGISTERED, || ask(REGISTER_SYNC_CORE), || ask(SYNC_CORE))
}

/// Sleeps while the word is `expected`, until it is woken or `at_most` is over; may return early.
pub(crate) fn wait(word: &AtomicU32, expected: u32, at_most: Duration) {
    let (object, operation) = (word.as_ptr().cast(), libc::UMTX_OP_WAIT_UINT_PRIVATE);
    let mut time = timespec(at_most);
    // The fourth argument is the size of the fifth.
    let (size, time) = (
        without_provenance_mut(size_of_val(&time)),
        (&raw mut time).cast(),
    );
    // SAFETY: _umtx_op(2) reads the word, which is borrowed for the call, and the time, which is
    // live and as long as is said, and changes no memory. That it failed, was interrupted or took
    // too long, is an early return.
    unsafe { libc::_umtx_op(object, operation, expected.into(), size, time) };
}

/// Wakes one of those that sleep on the word.
pub(crate) fn wake_one(word: &AtomicU32) {
    let (object, operation) = (word.as_ptr().cast(), libc::UMTX_OP_WAKE_PRIVATE);
    // SAFETY: _umtx_op(2) takes the address and changes no memory.
    unsafe { libc::_umtx_op(object, operation, 1, null_mut(), null_mut()) };
}
