//! The allocator on this target's backend, by the names that the facade gives it.

#![no_std]

use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig, JitError},
};

/// Makes an allocator, and drops it.
pub fn make() -> Result<(), JitError> {
    let os = OsProvider::new();
    JitAllocator::<_, _, OsLock>::new(os, os, JitConfig::new()).map(drop)
}
