//! Memory for metadata: what [`Arena`] promises on a provider.

mod run;

use crate::{
    Case,
    harness::{fill, first_difference},
    report,
};
use alloc::vec::Vec;
use core::{alloc::Layout, ptr::NonNull};
use hostmem_core::{
    arena::Arena,
    provider::{ErrorKind, PageProvider},
};

/// Yields the cases.
pub fn cases<P: PageProvider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("arena", P:
        run::allocations_are_aligned_disjoint_and_intact,
        run::at_its_bound_an_arena_refuses_and_serves_again,
        run::memory_is_used_again,
        run::impossible_layouts_are_refused,
        run::failed_commits_change_nothing,
        run::nothing_is_reserved_ahead,
        run::values_and_slices_are_initialised,
        run::memory_that_was_used_is_cleared_where_zero_is_asked_for,
        run::long_objects_go_back,
        run::failures_anywhere_change_nothing,
    )
}

/// A live allocation, filled with the pattern of its seed.
struct Block {
    at: NonNull<u8>,
    layout: Layout,
    seed: u64,
}

impl Block {
    fn end(&self) -> usize {
        self.at.addr().get() + self.layout.size()
    }
}

/// An arena, and the oracle beside it. What is live at the end goes with the arena.
struct Checked<P: PageProvider + Copy> {
    arena: Arena<P>,
    live: Vec<Block>,
    seed: u64,
}

impl<P: PageProvider + Copy> Checked<P> {
    fn new(p: P, bytes: usize) -> Self {
        let arena = Arena::new(p, bytes).expect("a small arena can be reserved");
        Self {
            arena,
            live: Vec::new(),
            seed: 0,
        }
    }

    fn alloc(&mut self, size: usize, align: usize) -> Result<(), ErrorKind> {
        // Patterns are whole words.
        let layout = Layout::from_size_align(size.next_multiple_of(8), align.max(8));
        let layout = layout.expect("the case asks for valid layouts");
        let at = self.arena.alloc(layout).map_err(|e| e.kind())?;
        let block = Block {
            at,
            layout,
            seed: self.seed,
        };
        let (start, end) = (at.addr().get(), block.end());
        assert!(
            start.is_multiple_of(align),
            "{layout:?}: misaligned at {start:#x}"
        );
        let overlap = self
            .live
            .iter()
            .any(|b| b.at.addr().get() < end && start < b.end());
        assert!(
            !overlap,
            "{layout:?}: overlaps another allocation at {start:#x}"
        );
        // SAFETY: fresh memory of this layout, disjoint from all other by the assertion.
        unsafe { fill(at, layout.size(), block.seed) };
        self.seed += 1;
        self.live.push(block);
        Ok(())
    }

    /// Checks the contents of the nth allocation and frees it.
    fn free(&mut self, n: usize) {
        let block = self.live.swap_remove(n);
        Self::expect_intact(&block);
        // SAFETY: the block came from alloc with this layout and is off the list of the live ones.
        unsafe { self.arena.free(block.at, block.layout) };
    }

    fn expect_intact(block: &Block) {
        // SAFETY: the block is live, and only this type writes to it.
        let wrong = unsafe { first_difference(block.at, block.layout.size(), block.seed) };
        assert_eq!(
            wrong, None,
            "{:?}: contents changed at this offset",
            block.layout
        );
    }

    fn expect_all_intact(&self) {
        self.live.iter().for_each(Self::expect_intact);
        let used: usize = self.live.iter().map(|b| b.layout.size()).sum();
        assert!(
            self.arena.used_bytes() >= used,
            "less in use than was allocated"
        );
        assert!(
            self.arena.committed_bytes() >= self.arena.used_bytes(),
            "used but not committed"
        );
        assert!(
            self.arena.reserved_bytes() >= self.arena.committed_bytes(),
            "committed but not reserved"
        );
        assert!(
            self.arena.max_bytes() >= self.arena.reserved_bytes(),
            "the bound is a bound"
        );
    }

    fn free_all(&mut self) {
        while let Some(last) = self.live.len().checked_sub(1) {
            self.free(last / 2);
        }
        assert_eq!(
            self.arena.used_bytes(),
            0,
            "nothing is live, and yet something is in use"
        );
    }
}
