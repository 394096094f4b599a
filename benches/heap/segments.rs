//! Heaps of many segments, and heaps that are made and dropped.

use crate::subject::OurHeap;
use hostmem::{OsProvider, heap::HeapConfig};
use hostmem_bench::{clock::CpuTime, lane::Lane};
use std::{alloc::Layout, ptr::NonNull, time::Duration};

const MIB: usize = 1 << 20;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

/// Frees and allocates the highest block of a MiB in a heap that has no room but that: the granules
/// are looked up by address once, and once by what is free.
pub struct Full {
    heap: OurHeap,
    last: NonNull<u8>,
}

impl Full {
    /// Fills so many segments with blocks that are never touched.
    pub fn new(segments: usize) -> Self {
        let os = OsProvider::new();
        let config = HeapConfig::new().segment(64 * MIB);
        let heap = OurHeap::on(os, os, config).expect("metadata");
        let blocks = (0..segments * 64).map(|_| heap.alloc(layout(MIB)).expect("memory"));
        let last = blocks.max().expect("a block");
        Self { heap, last }
    }
}

impl Lane for Full {
    fn name(&self) -> &'static str {
        "ours"
    }

    #[inline(never)]
    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            // SAFETY: live, and used no more.
            unsafe { self.heap.free(self.last) }.expect("a live block");
            self.last = self.heap.alloc(layout(MIB)).expect("memory");
        }
        start.elapsed()
    }
}

/// Makes a heap, allocates a block, and drops it.
pub struct Short;

impl Lane for Short {
    fn name(&self) -> &'static str {
        "ours"
    }

    #[inline(never)]
    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            let os = OsProvider::new();
            let heap = OurHeap::on(os, os, HeapConfig::new()).expect("metadata");
            heap.alloc(layout(100)).expect("memory");
        }
        start.elapsed()
    }
}
