//! The memory of an emulator with a 32-bit guest: all addresses above 4 GiB are the host's, one
//! heap lies there and another one below, and each block goes back to the heap that it is from.
//!
//! ```text
//! cargo run --release --example two_heaps
//! ```

use hostmem::{HeapConfig, RegionConfig, RegionHeap, heap::HeapError};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let low = hostmem::low_heap(HeapConfig::new())?;
    let (region, report) = hostmem::region_above(4 << 30, RegionConfig::new())?;
    println!("claimed {} GiB", region.statistics().adopted >> 30);
    println!("missed {} bytes", report.missed.bytes);
    let high = RegionHeap::on(&region, &region, HeapConfig::new())?;
    for n in 1..1000 {
        let block = if n % 2 == 0 {
            low.alloc_bytes(n)?
        } else {
            high.alloc_bytes(n)?
        };
        assert_eq!(block.addr().get() < 4 << 30, n % 2 == 0);
        let freed: Result<(), HeapError> = if low.owns(block.addr().get()) {
            // SAFETY: the block is live, and not used any more.
            unsafe { low.free(block) }
        } else {
            // SAFETY: the block is live, and not used any more.
            unsafe { high.free(block) }
        };
        freed?;
    }
    Ok(())
}
