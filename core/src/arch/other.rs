//! CPUs whose cache maintenance is not known here: everything but the JIT allocator works.

use core::sync::atomic::{AtomicUsize, Ordering};

pub(super) const SUPPORTED: bool = false;

pub(super) const FETCHES_AHEAD: bool = true;

/// All zero, which no instruction set here in question gives a meaning.
pub(super) const TRAP: u32 = 0;

/// Is never reached: the JIT allocator is refused on these CPUs.
pub(super) unsafe fn publish_code(_code: *const u8, _len: usize) {
    unreachable!("no code is published on a CPU without known cache maintenance");
}

/// Is never reached, as [`publish_code`].
pub(super) unsafe fn publish_ranges(_ranges: &[(*const u8, usize)]) {
    unreachable!("no code is published on a CPU without known cache maintenance");
}

/// Is not known.
#[inline]
pub(super) unsafe fn thread_pointer() -> usize {
    0
}

/// No request of valgrind is known here.
#[inline]
pub(super) fn client_request(_request: &[usize; 6]) -> usize {
    0
}

/// Does nothing.
#[inline]
pub(super) fn prefetch(_at: *const u8) {}

#[inline(always)]
pub(super) fn stack_pointer() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

#[inline(always)]
pub(super) fn store_stack_pointer(to: &AtomicUsize) {
    to.store(stack_pointer(), Ordering::Relaxed);
}
