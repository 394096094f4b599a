//! Memory for the thunks of [closure-ffi](https://docs.rs/closure-ffi) on [hostmem], on Linux,
//! FreeBSD and NetBSD.
//!
//! closure-ffi makes a function pointer of a closure, by a copy of a small piece of code for each.
//! [`ClosureMemory`] gives it memory of a [`JitAllocator`], whose writable view is apart from the
//! one that runs.
//!
//! The major version of this crate follows `closure-ffi`, whose trait it implements; that of
//! `hostmem` does not.
#![cfg(all(
    any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

use closure_ffi::jit_alloc::{JitAlloc, JitAllocError, ProtectJitAccess};
use hostmem::{
    OsProvider, arch,
    generic::JitAllocator,
    jit::{CodeProvider, JitConfig, JitError, Mapping},
    provider::Capabilities,
};

/// Memory from `P` for thunks, handed to closure-ffi by reference; from the system if nothing else
/// is said.
///
/// Its memory is always mapped twice: closure-ffi writes through the address that it is
/// told, when it likes.
#[derive(Debug)]
pub struct ClosureMemory<P: CodeProvider = OsProvider> {
    provider: P,
    jit: JitAllocator<P>,
}

impl ClosureMemory {
    /// Makes an allocator of the system's memory.
    ///
    /// # Errors
    ///
    /// The errors of [`ClosureMemory::on`].
    pub fn new(config: JitConfig) -> Result<Self, JitError> {
        Self::on(OsProvider::new(), config)
    }
}

impl<P: CodeProvider> ClosureMemory<P> {
    /// Makes an allocator of `provider`'s memory, mapped twice whatever `config` says of mappings.
    ///
    /// # Errors
    ///
    /// The errors of [`hostmem::jit::JitAllocator::on`], also where the provider has no dual
    /// mappings.
    pub fn on(provider: P, config: JitConfig) -> Result<Self, JitError> {
        let jit = JitAllocator::on(provider, provider, config.mapping(Mapping::Dual))?;
        Ok(Self { provider, jit })
    }

    /// Returns the allocator, for statistics and queries.
    pub const fn allocator(&self) -> &JitAllocator<P> {
        &self.jit
    }
}

impl<P: CodeProvider> JitAlloc for ClosureMemory<P> {
    fn alloc(&self, size: usize) -> Result<(*const u8, *mut u8), JitAllocError> {
        // The token is made again from the address when it is released.
        let span = self.jit.alloc(size).map_err(|_| JitAllocError)?;
        Ok((span.rx().as_ptr().cast_const(), span.rw().as_ptr()))
    }

    unsafe fn release(&self, rx_ptr: *const u8) -> Result<(), JitAllocError> {
        // SAFETY: the caller got the span from `alloc`, gives it up, and there is no token of it.
        unsafe { self.jit.release_at(rx_ptr.addr()) }.map_err(|_| JitAllocError)
    }

    unsafe fn protect_jit_memory(&self, _: *const u8, _: usize, _: ProtectJitAccess) {
        // Both views are there all the time.
    }

    unsafe fn flush_instruction_cache(&self, rx_ptr: *const u8, size: usize) {
        // SAFETY: as many bytes can be read there: the trait's method is called for code that was
        // written there.
        unsafe { arch::publish_code(rx_ptr, size) };
        // Memory that was released held code before; what the caller wrote is not known here.
        let able = self.provider.capabilities_among(Capabilities::CORE_SYNC);
        if able.contains(Capabilities::CORE_SYNC) {
            // There is no way to tell that it failed; the hosts that have it do not fail.
            let _ = self.provider.sync_cores();
        }
    }
}

/// The example of the README, so that it keeps compiling and running.
#[cfg(all(doctest, target_os = "linux"))]
#[doc = include_str!("../README.md")]
struct Readme;
