//! The heap's hooks around `fork`, registered with the C library at the first allocation.
//!
//! A signal handler may fork on a thread that is between the hooks of another fork, so each thread
//! counts its own forks: the first has locked the heap, and those within it find it locked.

use crate::{
    heap::HEAP,
    slot::{forks, set_forks},
};
use core::ffi::c_int;
use hostmem::fork::ForkHooks;

unsafe extern "C" {
    /// POSIX: calls these around every `fork`.
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
}

extern "C" fn prepare() {
    let count = forks();
    if count != 0 || HEAP.fork_prepare().is_ok() {
        set_forks(count + 1);
    }
}

extern "C" fn parent() {
    if ended() {
        // SAFETY: this thread prepared the fork.
        unsafe { HEAP.fork_parent() };
    }
}

extern "C" fn child() {
    if ended() {
        // SAFETY: as above, in the copy of the thread. The heap needs nothing that could fail.
        let _ = unsafe { HEAP.fork_child() };
    }
}

/// Counts one fork less; says whether it was the one that locked the heap.
fn ended() -> bool {
    let count = forks();
    set_forks(count.saturating_sub(1));
    count == 1
}

/// Registers the hooks. Where that fails for want of memory, a child must not use the heap.
pub(crate) fn register() {
    // SAFETY: the functions stay as long as the program.
    let _ = unsafe { pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}
