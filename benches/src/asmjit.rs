//! AsmJit's `JitAllocator`, by way of `peers/asmjit.cpp`.

use crate::subject::{Jit, Piece, Subject, Usage};
use std::{
    ffi::c_void,
    ptr::{NonNull, null_mut, with_exposed_provenance_mut},
};

/// The C++ object, which only the shim knows.
#[repr(C)]
#[derive(Debug)]
struct Object {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(Default)]
struct ShimUsage {
    used: usize,
    reserved: usize,
    metadata: usize,
}

unsafe extern "C" {
    safe fn hostmem_asmjit_version() -> u32;
    safe fn hostmem_asmjit_new() -> *mut Object;
    fn hostmem_asmjit_delete(object: *mut Object);
    fn hostmem_asmjit_alloc(object: *mut Object, size: usize) -> *mut c_void;
    fn hostmem_asmjit_alloc_and_shrink(
        object: *mut Object,
        size: usize,
        keep: usize,
    ) -> *mut c_void;
    fn hostmem_asmjit_alloc_written(
        object: *mut Object,
        size: usize,
        code: *const u8,
        len: usize,
    ) -> *mut c_void;
    fn hostmem_asmjit_release(object: *mut Object, rx: *mut c_void) -> bool;
    fn hostmem_asmjit_query(
        object: *const Object,
        pc: *mut c_void,
        start: *mut *mut c_void,
        len: *mut usize,
    ) -> bool;
    fn hostmem_asmjit_usage(object: *const Object, usage: *mut ShimUsage);
}

/// AsmJit's `JitAllocator` over dual mappings.
#[derive(Debug)]
pub struct AsmJit {
    object: NonNull<Object>,
}

// SAFETY: every call that the shim makes is documented as thread-safe; delete needs `&mut`.
unsafe impl Sync for AsmJit {}

impl AsmJit {
    /// Makes an allocator with the defaults beside dual mappings; `None` where AsmJit gets no
    /// memory.
    #[must_use]
    pub fn dual() -> Option<Self> {
        let object = NonNull::new(hostmem_asmjit_new())?;
        let made = Self { object };
        let piece = made.try_alloc(1)?;
        // SAFETY: allocated just now.
        unsafe { made.release(piece) };
        Some(made)
    }

    /// Makes an allocator as [`AsmJit::dual`] does, that has not mapped anything yet.
    #[must_use]
    pub fn bare() -> Option<Self> {
        let object = NonNull::new(hostmem_asmjit_new())?;
        Some(Self { object })
    }

    /// Allocates `size` bytes and writes `code` there, through the writable view.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    pub fn alloc_written(&self, size: usize, code: &[u8]) -> Piece {
        assert!(code.len() <= size, "the code fits");
        // SAFETY: the object lives until drop; any size may be asked for, and the code fits.
        let rx = unsafe {
            hostmem_asmjit_alloc_written(self.object.as_ptr(), size, code.as_ptr(), code.len())
        };
        Piece::new(rx.expose_provenance()).expect("AsmJit has no memory")
    }

    /// Returns the version of the library: major, minor and patch, one byte each.
    #[must_use]
    pub fn version() -> Option<u32> {
        Some(hostmem_asmjit_version())
    }

    fn try_alloc(&self, size: usize) -> Option<Piece> {
        // SAFETY: the object lives until drop; any size may be asked for.
        let rx = unsafe { hostmem_asmjit_alloc(self.object.as_ptr(), size) };
        Piece::new(rx.expose_provenance())
    }
}

impl Drop for AsmJit {
    fn drop(&mut self) {
        // SAFETY: made by the shim's new, and not used after this.
        unsafe { hostmem_asmjit_delete(self.object.as_ptr()) }
    }
}

impl Subject for AsmJit {
    const NAME: &'static str = "asmjit";

    fn alloc(&self, size: usize) -> Piece {
        self.try_alloc(size).expect("AsmJit has no memory")
    }

    unsafe fn release(&self, piece: Piece) {
        let rx = with_exposed_provenance_mut(piece.address());
        // SAFETY: the object lives until drop; the piece is live, by the caller's promise.
        let released = unsafe { hostmem_asmjit_release(self.object.as_ptr(), rx) };
        assert!(released, "AsmJit refuses a live piece");
    }
}

impl Jit for AsmJit {
    fn query(&self, pc: usize) -> Option<(usize, usize)> {
        let mut start = null_mut();
        let mut len = 0;
        let pc = with_exposed_provenance_mut(pc);
        // SAFETY: the object lives until drop; any pc may be asked about; both results are ours.
        let found = unsafe { hostmem_asmjit_query(self.object.as_ptr(), pc, &mut start, &mut len) };
        found.then(|| (start.addr(), len))
    }

    fn alloc_and_shrink(&self, size: usize, keep: usize) -> Piece {
        // SAFETY: the object lives until drop; any sizes may be asked for.
        let rx = unsafe { hostmem_asmjit_alloc_and_shrink(self.object.as_ptr(), size, keep) };
        Piece::new(rx.expose_provenance()).expect("AsmJit has no memory, or does not shrink")
    }

    fn usage(&self) -> Usage {
        let mut usage = ShimUsage::default();
        // SAFETY: the object lives until drop, and the result is ours.
        unsafe { hostmem_asmjit_usage(self.object.as_ptr(), &mut usage) };
        Usage {
            used: usage.used,
            reserved: usage.reserved,
            metadata: usage.metadata,
        }
    }
}
