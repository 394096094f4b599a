//! The begin and the end of the program: settings are read, statistics printed (`HOSTMEM_STATS=1`).

use crate::{hostmem, line, settings};

/// The loader, or the start-up code of a static program, calls this before `main`, and so before
/// the program opens a file that could get the number of a standard error that is closed.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    line::look_at_stderr();
}

/// The loader, or the start-up code of a static program, calls this after the functions that were
/// registered by `atexit`. An array of functions needs no memory, as a registration would.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

extern "C" fn at_exit() {
    if settings::get().has_statistics() {
        hostmem::say_statistics();
    }
}

/// Refers to the functions above, so that no linker leaves them out.
pub(crate) fn keep() {
    for place in [&raw const AT_START, &raw const AT_EXIT] {
        // SAFETY: a static of this program, which is only read.
        unsafe { place.read_volatile() };
    }
}
