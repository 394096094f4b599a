//! A program whose memory comes from hostmem, and what its heap says of it.
//!
//! ```text
//! cargo run --release --example statistics
//! ```

use hostmem::heap::Level;

#[global_allocator]
static HEAP: hostmem::GlobalHeap = hostmem::GlobalHeap::new();

fn main() -> Result<(), hostmem::heap::HeapError> {
    let heap = HEAP.heap()?;
    let words: Vec<String> = (0..100_000).map(|n| format!("number {n}")).collect();
    assert!(heap.owns(words.as_ptr().addr()));
    println!("with {} words: {:?}", words.len(), heap.statistics());
    drop(words);
    HEAP.collect(Level::Deep)?;
    println!("without: {:?}", heap.statistics());
    Ok(())
}
