//! Guards of a hardened heap.

use super::OS;
use core::alloc::Layout;
use hostmem::{
    OsLock,
    heap::{Hardening, Heap, HeapConfig},
    provider::PageProvider,
};
use hostmem_test_support::fault::faults;

#[test]
fn guards_and_freed_blocks_fault_in_a_hardened_heap() {
    let config = HeapConfig::new().hardening(Hardening::Full);
    let heap = Heap::<_, _, OsLock>::on(OS, OS, config).expect("metadata");
    for size in [300_000, 1 << 20, 3 << 20, 5_000_001] {
        let layout = Layout::from_size_align(size, 16).expect("a layout");
        let blocks = [(); 3].map(|()| heap.alloc(layout).expect("memory"));
        let write = |addr: usize| {
            let place: *mut u8 = core::ptr::with_exposed_provenance_mut(addr);
            // SAFETY: this is the fault: what lies there is the heap's. The byte is no block's.
            faults(|| unsafe { place.write_volatile(1) }).map(|fault| fault.address)
        };
        for block in blocks {
            // SAFETY: a live block of this many bytes.
            unsafe { block.write_bytes(1, size) };
            let start = block.expose_provenance().get();
            // Where the granules end, or the pages of a huge block.
            let least = if size > 1 << 20 {
                OS.page_size().bytes()
            } else {
                64 << 10
            };
            let end = start + size.next_multiple_of(least);
            for guard in [start - 1, start - (64 << 10), end, end + 65_535] {
                assert_eq!(write(guard), Some(guard), "{size} bytes at {start:#x}");
            }
        }
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("guards were not written");
            // Huge ones are unmapped, where another thread of this test may map something.
            let start = block.addr().get();
            if size <= 1 << 20 {
                assert_eq!(write(start), Some(start), "{size} bytes");
            }
        }
    }
}
