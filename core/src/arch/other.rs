//! CPUs whose cache maintenance is not known here: everything but the JIT allocator works.

pub(super) const SUPPORTED: bool = false;

/// Is never reached: the JIT allocator is refused on these CPUs.
pub(super) unsafe fn publish_code(_code: *const u8, _len: usize) {
    unreachable!("no code is published on a CPU without known cache maintenance");
}
