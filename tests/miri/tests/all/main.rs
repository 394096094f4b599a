//! What each structure does, alone and with threads, for Miri to watch.

mod arena;
mod heap;
mod jit;
mod range_map;

use core::alloc::Layout;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("it is valid")
}

fn byte(n: usize) -> u8 {
    n.to_le_bytes()[0]
}
