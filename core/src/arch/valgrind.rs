//! Requests of valgrind, which translates instructions once and runs the translations. It finds out
//! by itself that stacks are changed, and private memory if it is told to, but not that code was
//! written through another mapping of the same file.

use super::cpu;
use core::sync::atomic::{AtomicU8, Ordering};

/// The request that says how many valgrinds this process runs under.
const RUNNING_ON_VALGRIND: usize = 0x1001;
/// The request that forgets translations.
const DISCARD_TRANSLATIONS: usize = 0x1002;

/// Whether this process runs under valgrind, if it is known. It does for all its life.
static RUNNING: AtomicU8 = AtomicU8::new(UNKNOWN);

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

#[inline]
pub(super) fn discard_translations(code: *const u8, len: usize) {
    if RUNNING.load(Ordering::Relaxed) != NO {
        ask(code, len);
    }
}

#[cold]
fn ask(code: *const u8, len: usize) {
    if is_running() {
        cpu::client_request(&[DISCARD_TRANSLATIONS, code.addr(), len, 0, 0, 0]);
    }
}

#[inline]
pub(super) fn is_running() -> bool {
    match RUNNING.load(Ordering::Relaxed) {
        UNKNOWN => find_out(),
        known => known == YES,
    }
}

#[cold]
fn find_out() -> bool {
    if cfg!(miri) {
        return false;
    }
    let runs = cpu::client_request(&[RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0]) != 0;
    RUNNING.store(if runs { YES } else { NO }, Ordering::Relaxed);
    runs
}
