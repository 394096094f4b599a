//! Another archive of Rust's, with a standard library of its own, for one program with the malloc.

use std::{collections::BTreeMap, panic, thread};

/// Adds up numbers by threads and collections, and a panic that is caught.
#[unsafe(no_mangle)]
pub extern "C" fn other_sum(count: u64) -> u64 {
    let caught = panic::catch_unwind(|| -> u64 {
        panic::resume_unwind(Box::new(String::from("a payload")));
    });
    let missing = u64::from(caught.is_ok());
    let threads: Vec<_> = (0..4u64)
        .map(|part| {
            thread::spawn(move || {
                let map: BTreeMap<_, _> = (0..count)
                    .filter(|n| n % 4 == part)
                    .map(|n| (n.to_string(), n))
                    .collect();
                map.values().sum::<u64>()
            })
        })
        .collect();
    let sums = threads.into_iter().map(|thread| thread.join().unwrap_or(0));
    sums.sum::<u64>() + missing
}

unsafe extern "C" {
    fn malloc(size: usize) -> *mut u8;
}

/// Returns a block of the program's malloc.
#[unsafe(no_mangle)]
pub extern "C" fn other_block() -> *mut u8 {
    let text = String::from("allocated by Rust");
    // SAFETY: it may be called with any size.
    let block = unsafe { malloc(text.len()) };
    if !block.is_null() {
        // SAFETY: as many bytes are there.
        unsafe { block.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
    }
    block
}
