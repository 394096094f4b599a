//! The peers that are crates, by the interface of a global allocator, whose frees are sized.

use crate::subject::Subject;
use mimalloc::MiMalloc;
use std::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
};
use tikv_jemallocator::Jemalloc;

pub const PRESENT: bool = true;

/// A heap with the interface of a global allocator.
pub struct Global<A>(A);

pub const JEMALLOC: Global<Jemalloc> = Global(Jemalloc);
pub const MIMALLOC: Global<MiMalloc> = Global(MiMalloc);

/// Measures a peer by its own interface.
macro_rules! subject {
    ($allocator:ty, $name:literal) => {
        impl Subject for Global<$allocator> {
            const NAME: &'static str = $name;

            #[inline]
            fn alloc(&self, layout: Layout) -> NonNull<u8> {
                // SAFETY: no size of a workload is zero.
                NonNull::new(unsafe { self.0.alloc(layout) }).expect("memory")
            }

            #[inline]
            unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's promise.
                unsafe { self.0.dealloc(block.as_ptr(), layout) }
            }
        }
    };
}

subject!(Jemalloc, "jemalloc");
subject!(MiMalloc, "mimalloc");
