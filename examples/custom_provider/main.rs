//! A provider of one's own: a static array as the host, and a heap on it.
//!
//! ```text
//! cargo run --release --example custom_provider
//! ```
//!
//! `static_pages.rs` is the provider; it builds for machines without an operating system too.

mod static_pages;

use hostmem::{HeapConfig, counted::Limits, generic::Counted, generic::Heap};
use static_pages::StaticPages;

/// 4 MiB of host.
static HOST: StaticPages<1024> = StaticPages::new();

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let heap = Heap::on(&HOST, &HOST, HeapConfig::new())?;
    let block = heap.alloc_bytes(100)?;
    assert!(heap.owns(block.addr().get()));
    println!("{:?}", heap.statistics());
    // SAFETY: the block is live, and not used any more.
    unsafe { heap.free(block)? };
    drop(heap);

    // All of this works on a limited part of the array, too.
    let limits = Limits {
        memory: 2 << 20,
        ..Limits::NONE
    };
    let counted = Counted::with_metadata(&HOST, "part", limits, 64 << 10)?;
    let heap = Heap::on(&counted, &HOST, HeapConfig::new())?;
    let too_much = heap.alloc_bytes(3 << 20);
    println!("more than the limit: {too_much:?}");
    Ok(())
}
