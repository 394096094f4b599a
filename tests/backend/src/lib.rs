//! What programs name of this target's backend, by the names that the facade gives it.

#![no_std]

/// Makes an allocator, and drops it.
#[cfg(not(feature = "heap"))]
pub fn make() -> Result<(), hostmem::jit::JitError> {
    hostmem::JitAllocator::new(hostmem::JitConfig::new()).map(drop)
}

/// The heap of the process.
#[cfg(feature = "heap")]
#[global_allocator]
static HEAP: hostmem::GlobalHeap = hostmem::GlobalHeap::new();
