//! H1, H3, H4 and H6 on real Linux: the general heap with many threads, and below 4 GiB.

mod guards;
mod low;
mod resident;
mod signal_handlers;
mod threads;

use crate::{common::random::Random, system::OS};
use core::{alloc::Layout, ptr::NonNull};

/// A block on its way from one thread to another: where it is, what it is, and what is in it.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    pattern: u8,
}

// SAFETY: the block is whoever's has this.
unsafe impl Send for Block {}

impl Block {
    fn fill(start: NonNull<u8>, layout: Layout, pattern: u8) -> Self {
        assert!(
            start.addr().get().is_multiple_of(layout.align()),
            "{layout:?}"
        );
        // SAFETY: a live block of this layout, which no other code has.
        unsafe { start.write_bytes(pattern, layout.size()) };
        Self {
            start,
            layout,
            pattern,
        }
    }

    /// Asserts that the first `len` bytes are what was written.
    fn check(&self, len: usize) {
        // SAFETY: live, all written, and this thread's.
        let bytes = unsafe { NonNull::slice_from_raw_parts(self.start, len).as_ref() };
        let intact = bytes.iter().all(|byte| *byte == self.pattern);
        assert!(intact, "{:?} {:?}: {bytes:x?}", self.start, self.layout);
    }
}

fn layout(random: &mut Random) -> Layout {
    let size = match random.below(1000) {
        0..700 => random.below(300),
        700..950 => random.below(5000),
        950..997 => random.below(70_000),
        _ => random.below(1 << 21),
    };
    let align = if random.below(10) == 0 {
        1 << random.below(13)
    } else {
        8
    };
    Layout::from_size_align(size, align).expect("a layout")
}
