//! The types of the crate's root for providers other than the system's, with this system's lock.
//!
//! Their types follow from what they are made on, so that none need be written:
//!
//! ```
//! # #[cfg(all(feature = "linux", target_os = "linux"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use hostmem::{HeapConfig, OsProvider, generic::Heap};
//! use hostmem::{page::AddressRange, provider::Within};
//!
//! // Blocks between 1 and 2 GiB; metadata lies where the system places it.
//! let window = AddressRange::from_len(1 << 30, 1 << 30).expect("not empty");
//! let os = OsProvider::new();
//! let heap = Heap::on(Within::new(os, window), os, HeapConfig::new())?;
//! let block = heap.alloc_bytes(100)?;
//! assert!(window.contains(block.addr().get()));
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "linux", target_os = "linux")))]
//! # fn main() {}
//! ```
//!
//! `P` gives memory and `M` memory for metadata. Where no backend is active the lock is
//! [`Spin`](crate::sync::Spin). For a lock of your own there are the types of the modules
//! [`heap`], [`jit`], [`region`] and [`range_map`], which take it as a third parameter.

use crate::{arena, counted, heap, jit, lock::Lock, range_map, region};

/// A [heap](heap::Heap).
pub type Heap<P, M = P> = heap::Heap<P, M, Lock>;

/// A thread's [handle](heap::LocalHeap) of a heap.
pub type LocalHeap<'heap, P, M = P> = heap::LocalHeap<'heap, P, M, Lock>;

/// An [allocator](jit::JitAllocator) of executable memory.
pub type JitAllocator<P, M = P> = jit::JitAllocator<P, M, Lock>;

/// [Functions](jit::JitRuntime) in executable memory.
pub type JitRuntime<P, M = P> = jit::JitRuntime<P, M, Lock>;

/// A [queue](jit::RetireQueue) of code that waits until no thread runs it, in front of `A`.
pub type RetireQueue<A, M> = jit::RetireQueue<A, M, Lock>;

/// A [place](jit::FuncCell) for a function that is replaced while other threads call it.
pub type FuncCell<'queue, F, A, M> = jit::FuncCell<'queue, F, A, M, Lock>;

/// An [allocator](region::RegionAllocator) of addresses.
pub type RegionAllocator<P, M = P> = region::RegionAllocator<P, M, Lock>;

/// A [map](range_map::RangeMap) of address ranges.
pub type RangeMap<T, M> = range_map::RangeMap<T, M, Lock>;

/// A [provider](counted::Counted) that counts what is asked of another one, and limits it.
pub type Counted<P> = counted::Counted<P, Lock>;

/// An [arena](arena::Arena) for metadata.
pub type Arena<M> = arena::Arena<M, Lock>;
