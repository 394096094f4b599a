//! What these tests share: heaps on this system.

use core::alloc::Layout;
use hostmem::{
    OsLock, OsProvider,
    heap::{Heap, HeapConfig, LocalHeap},
    provider::PageProvider,
};

pub(crate) const OS: OsProvider = OsProvider::new();

pub(crate) type OsHeap<P = OsProvider> = Heap<P, OsProvider, OsLock>;
pub(crate) type OsLocal<'a, P = OsProvider> = LocalHeap<'a, P, OsProvider, OsLock>;

pub(crate) fn heap(config: HeapConfig) -> OsHeap {
    heap_on(OS, config)
}

/// Makes a heap whose blocks come from `provider`, and its metadata from the system.
pub(crate) fn heap_on<P: PageProvider + Copy>(provider: P, config: HeapConfig) -> OsHeap<P> {
    Heap::on(provider, OS, config).expect("metadata")
}

/// Describes a block as `malloc` has it.
pub(crate) fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}
