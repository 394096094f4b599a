//! What the lock of an arena guards.

use super::{
    class,
    grow::FIRST,
    piece::{Chain, Piece},
    pools::Pools,
};
use core::{alloc::Layout, ptr::NonNull};
use linked_list_allocator::hole::HoleList;

/// Freed objects, the piece that is cut from, and how much there is of all.
pub(super) struct State {
    pub(super) pools: Pools,
    /// Freed objects that have no class.
    pub(super) holes: HoleList,
    /// The piece that fresh memory was taken from last.
    pub(super) current: Option<NonNull<Piece>>,
    /// Bytes of the next piece.
    pub(super) next_len: usize,
    /// Bytes of all pieces.
    pub(super) reserved: usize,
    /// Committed bytes of all pieces.
    pub(super) committed: usize,
    /// Bytes of live objects.
    pub(super) used: usize,
}

// SAFETY: the pointers are into the arena's pieces, which belong to it alone; whoever has the state
// has the arena's lock, or the arena exclusively.
unsafe impl Send for State {}

impl State {
    pub(super) const fn new() -> Self {
        Self {
            pools: Pools::new(),
            holes: HoleList::empty(),
            current: None,
            next_len: FIRST,
            reserved: 0,
            committed: 0,
            used: 0,
        }
    }

    /// Adds a piece, which is whole by now.
    pub(super) fn link(&mut self, chain: &Chain, piece: NonNull<Piece>) {
        // SAFETY: the header was written, and is the lock holder's alone.
        let header = unsafe { piece.as_ref() };
        self.reserved += header.range.len_bytes();
        self.committed += header.committed;
        chain.link(piece);
    }

    /// Takes `size` bytes from a piece whose committed part holds them.
    #[inline]
    pub(super) fn cut(
        &mut self,
        mut piece: NonNull<Piece>,
        size: usize,
        align: usize,
    ) -> NonNull<u8> {
        // SAFETY: a piece in the chain has a header, which is the lock holder's alone.
        let (found, gap) = unsafe { piece.as_mut() }.take(size, align);
        if let Some(gap) = gap {
            // SAFETY: put_all asks for writable memory that is no other code's: the gap is
            // committed, and was just cut off what is fresh.
            // - multiples of STEP: headers, sizes and alignments of objects are.
            unsafe { self.pools.put_all(gap.start, gap.len) };
        }
        found
    }

    /// Takes an object of `class` out of larger ones that were freed.
    pub(super) fn split(&mut self, class: usize) -> Option<NonNull<u8>> {
        let size = class::size(class);
        let Some((object, from)) = self.pools.take_larger(class) else {
            let layout = Layout::from_size_align(size, class::align(size)).ok()?;
            let (hole, _) = self.holes.allocate_first_fit(layout).ok()?;
            return Some(hole);
        };
        // SAFETY: the object is larger than `size`.
        let rest = unsafe { object.add(size) };
        // SAFETY: the rest of an object of the pools, which no other code has; sizes of classes are
        // multiples of STEP.
        unsafe { self.pools.put_all(rest, class::size(from) - size) };
        Some(object)
    }
}
