//! What is the hosted program's own: threads and the heap's place in them by the standard library,
//! and what is to be seen of a guest. The freestanding program has another file in the place of
//! this one.

use crate::{cli::shown, code, machine::Machine, perf, picture, progress};
use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt, thread};

/// Bytes of a thread's stack.
const STACK: usize = 1 << 20;

hostmem::std_slot! {
    /// Where a thread keeps what it has cached of the program's heap.
    pub(crate) struct Slot;
}

/// Runs a function on a thread of its own; `None` where there can be no more threads.
pub(crate) fn spawn(run: Box<dyn FnOnce() + Send>) -> Option<()> {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(run)
        .ok()
        .map(|_| ())
}

/// Makes what notes blocks for `perf`.
///
/// # Errors
///
/// Where there is no file for that.
pub(crate) fn names(program: &[u8]) -> io::Result<code::Names> {
    perf::names(program)
}

/// Called when the guest is about to start.
pub(crate) fn begin_guest(machine: &'static Machine) {
    progress::begin(machine);
}

/// Called when the guest has ended.
pub(crate) fn end_guest(machine: &Machine) {
    if machine.options.stats {
        progress::end();
    }
    if let Some(path) = &machine.options.map {
        let picture = picture::draw(&machine.space, machine.host.region);
        if let Err(error) = fs::write(OsStr::from_bytes(path), picture) {
            eprintln!("emulator: {}: {error}", shown(path));
        }
    }
}
