//! The blocks of one shard and one granularity.
//!
//! ```text
//!   tree over slots     the class of the longest free run of each block
//!   blocks              slot 0, 1, 2 …: the oldest block first; a slot that is left is used again
//!   bins                where spans of 1, 2, … 128 granules were released just now
//! ```
//!
//! A span that is released goes to the bin of its length, and stays apart from the free runs beside
//! it; the next request of that length takes it back. Most calls of a steady program therefore
//! touch a bin and two words of bits. An entry of a bin is no more than a hint: by the time it is
//! looked at its granules may belong to another span, or to a longer run, and the bits say so.
//! Before a new block is mapped, all that is in the bins is joined with what lies beside it. The
//! file `bins` has the bins.

mod bins;
#[cfg(test)]
mod tests;

pub(super) use bins::Hint;

use super::{
    block::{Block, Held, Spot},
    class, tables,
    tree::Tree,
};
use crate::{
    arena::Arena,
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use bins::Bins;
use bitvec::{order::Lsb0, slice::BitSlice};
use core::{ops::Range, ptr::NonNull};

/// Slots that a pool begins with.
const FIRST_SLOTS: usize = 64;

/// Hints that a request for a spot looks at, the last ones first.
const LOOKED_AT: usize = 4;

/// Runs that are joined before the lock is released to others: some microseconds.
pub(super) const SETTLED: usize = 256;

/// Blocks of one granularity, and which of them have room.
pub(super) struct Pool {
    slots: NonNull<[Option<NonNull<Block>>]>,
    /// A bit a slot: whether it has a block.
    taken: NonNull<[u64]>,
    tree: NonNull<[u8]>,
    bins: Option<Bins>,
    /// The largest class in the tree.
    largest: u8,
    /// The block with the active run.
    active: Option<NonNull<Block>>,
    /// The length of the next block in bytes.
    pub(super) next_len: usize,
    /// Unmapped blocks, of any capacity.
    pub(super) unmapped: Option<NonNull<Block>>,
}

impl Pool {
    pub(super) const fn new(next_len: usize) -> Self {
        Self {
            slots: NonNull::slice_from_raw_parts(NonNull::dangling(), 0),
            taken: NonNull::slice_from_raw_parts(NonNull::dangling(), 0),
            tree: NonNull::slice_from_raw_parts(NonNull::dangling(), 0),
            bins: None,
            largest: class::NONE,
            active: None,
            next_len,
            unmapped: None,
        }
    }

    #[inline]
    fn slots(&mut self) -> &mut [Option<NonNull<Block>>] {
        // SAFETY: the slice lives in the arena and belongs to this pool alone; self is borrowed.
        unsafe { self.slots.as_mut() }
    }

    #[inline]
    fn taken(&mut self) -> &mut BitSlice<u64, Lsb0> {
        // SAFETY: the slice lives in the arena and belongs to this pool alone; self is borrowed.
        BitSlice::from_slice_mut(unsafe { self.taken.as_mut() })
    }

    #[inline]
    fn tree(&mut self) -> Tree<'_> {
        let members = self.slots.len();
        // SAFETY: the slice lives in the arena and belongs to this pool alone; self is borrowed.
        Tree::new(unsafe { self.tree.as_mut() }, members)
    }

    /// Makes sure that one more block can be added.
    pub(super) fn make_room<P: PageProvider + Copy, R: RawMutex>(
        &mut self,
        arena: &Arena<P, R>,
    ) -> Result<(), Error> {
        if self.taken().not_all() {
            return Ok(());
        }
        let capacity = (2 * self.slots.len()).max(FIRST_SLOTS);
        let slots = tables::zeroed(arena, capacity)?;
        // Should one of these fail, the others are lost to the arena's bound, and to nothing else.
        let taken = tables::zeroed(arena, capacity / u64::BITS as usize)?;
        let tree = tables::zeroed(arena, Tree::bytes_for(capacity))?;
        let mut larger = Self {
            slots,
            taken,
            tree,
            ..*self
        };
        for (n, block) in self.slots().iter().enumerate() {
            larger.slots()[n] = *block;
            larger.taken().set(n, true);
        }
        for n in 0..self.slots.len() {
            let class = self.tree().class(n);
            larger.tree().set(n, class);
        }
        // SAFETY: both came from this arena as slices of these types, and no other code uses them
        // now.
        unsafe { self.free_tables(arena) };
        *self = larger;
        Ok(())
    }

    /// Gives the tables back.
    ///
    /// # Safety
    ///
    /// They came from `arena`, and are not used afterwards.
    unsafe fn free_tables<P: PageProvider + Copy, R: RawMutex>(&mut self, arena: &Arena<P, R>) {
        if self.slots.is_empty() {
            return;
        }
        // SAFETY: allocated from `arena` and not used afterwards, by this function's `# Safety`.
        unsafe { tables::free(arena, self.slots) };
        // SAFETY: allocated from `arena` and not used afterwards, by this function's `# Safety`.
        unsafe { tables::free(arena, self.tree) };
        // SAFETY: allocated from `arena` and not used afterwards, by this function's `# Safety`.
        unsafe { tables::free(arena, self.taken) };
    }

    /// Adds a block; [`Pool::make_room`] came before.
    pub(super) fn add(&mut self, held: &mut Held<'_>) {
        let slot = self.taken().first_zero().expect("room was made");
        self.taken().set(slot, true);
        self.slots()[slot] = Some(held.at);
        held.guarded.slot = slot;
        self.update(held);
    }

    /// Removes a block.
    pub(super) fn remove(&mut self, held: &Held<'_>) {
        let slot = held.guarded.slot;
        self.slots()[slot] = None;
        self.taken().set(slot, false);
        self.set_class(slot, class::NONE);
    }

    /// Returns the first block at or behind a slot, and its slot.
    pub(super) fn block_from(&self, slot: usize) -> Option<(usize, NonNull<Block>)> {
        // SAFETY: the slice lives in the arena and belongs to this pool alone; self is borrowed.
        let slots = unsafe { self.slots.as_ref() };
        (slot..slots.len()).find_map(|n| slots[n].map(|block| (n, block)))
    }

    /// Brings the tree up to date after a change of a block.
    #[inline]
    pub(super) fn update(&mut self, held: &mut Held<'_>) {
        let class = held.largest();
        self.set_class(held.guarded.slot, class);
    }

    #[inline]
    fn set_class(&mut self, slot: usize, class: u8) {
        let mut tree = self.tree();
        if tree.class(slot) != class && tree.set(slot, class) {
            self.largest = tree.largest();
        }
    }

    /// Takes a run that fits: one that was released just now, or else the first in the first block
    /// that has one; returns the block, and the first of the `need` granules. The lock is held.
    #[inline]
    pub(super) fn allocate(&mut self, need: usize) -> Option<(NonNull<Block>, usize)> {
        while let Some(hint) = self.pop_hint(need) {
            let run = hint.run(need);
            if let Some(at) = self.slots()[hint.slot()] {
                // SAFETY: the arena outlives the pool; a pool is reached under its shard's lock
                // only, and no other Held is alive here.
                let mut held = unsafe { Block::held(at) };
                if held.take_run(run.clone()) {
                    return Some((at, run.start));
                }
            }
        }
        match class::that_fits(need) {
            Some(class) if class <= self.largest => self.allocate_lowest(need, class),
            _ => self.allocate_active(need),
        }
    }

    /// Takes the start of the active run, if it is long enough.
    #[inline(never)]
    fn allocate_active(&mut self, need: usize) -> Option<(NonNull<Block>, usize)> {
        let at = self.active?;
        // SAFETY: the arena outlives the pool, whose shard is locked, and callers use no Held of
        // this block meanwhile.
        let mut held = unsafe { Block::held(at) };
        Some((at, held.allocate_active(need)?))
    }

    /// Takes a run that was released just now, or the start of the active run, if it lies in a
    /// spot. The lock is held.
    #[inline]
    pub(super) fn allocate_recent(
        &mut self,
        need: usize,
        spot: &Spot,
    ) -> Option<(NonNull<Block>, usize)> {
        for back in 1..=LOOKED_AT {
            let Some(hint) = self.hint(need, back) else {
                break;
            };
            let run = hint.run(need);
            let Some(at) = self.slots()[hint.slot()] else {
                continue;
            };
            // SAFETY: the arena outlives the pool, whose shard is locked, and no other Held is
            // alive here.
            let mut held = unsafe { Block::held(at) };
            if held.is_in_spot(&run, spot) && held.take_run(run.clone()) {
                self.drop_hint(need, back);
                return Some((at, run.start));
            }
        }
        // SAFETY: the arena outlives the pool, whose shard is locked, and the Held of the loop
        // before is gone.
        let held = unsafe { Block::held(self.active?) };
        let start = held.active_start();
        if !held.is_in_spot(&(start..start + need), spot) {
            return None;
        }
        self.allocate_active(need)
    }

    /// Takes the first run of a class in the first block that has one, or the start of the active
    /// run if that comes before.
    #[inline(never)]
    fn allocate_lowest(&mut self, need: usize, class: u8) -> Option<(NonNull<Block>, usize)> {
        let Some(slot) = self.tree().first(class) else {
            return self.allocate_active(need);
        };
        let active_first = self.active.is_some_and(|at| {
            // SAFETY: the arena outlives the pool, whose shard is locked, and no other Held is
            // alive here.
            let mut held = unsafe { Block::held(at) };
            let same = held.guarded.slot == slot;
            held.has_active() && (held.guarded.slot < slot || same && held.active_is_before(class))
        });
        if active_first && let Some(taken) = self.allocate_active(need) {
            return Some(taken);
        }
        let at = self.slots()[slot]?;
        // SAFETY: the arena outlives the pool, whose shard is locked, and the Held of the active
        // block is gone.
        let mut held = unsafe { Block::held(at) };
        let word = held.first_word(class)?;
        if let Some(start) = held.allocate_in(word, need) {
            self.update(&mut held);
            return Some((held.at, start));
        }
        // It found a long run, the active one from now on.
        self.settle_active(Some(at));
        self.active = Some(at);
        // SAFETY: the arena outlives the pool, whose shard is locked, and the Held from before
        // settling is gone.
        let mut held = unsafe { Block::held(at) };
        self.update(&mut held);
        self.allocate_active(need)
    }

    /// Makes the active run one like others, unless it is in this block.
    fn settle_active(&mut self, but: Option<NonNull<Block>>) {
        if let Some(at) = self.active.take_if(|at| Some(*at) != but) {
            // SAFETY: the arena outlives the pool, whose shard is locked, and callers use no Held
            // of this block meanwhile.
            let mut held = unsafe { Block::held(at) };
            if held.has_active() {
                held.settle_active();
                self.update(&mut held);
            }
        }
    }

    /// Frees a live span of one of the blocks. The lock is held.
    #[inline]
    pub(super) fn free(&mut self, held: &mut Held<'_>, span: Range<usize>) {
        let len = span.len();
        let hint = Hint::new(held.guarded.slot, span.start);
        // The last span of a block leaves one run behind, which needs no hint.
        if held.guarded.spans > 1
            && let Some(hint) = hint
            && self.push_hint(len, hint)
        {
            held.free_apart(span);
        } else {
            self.free_joined(held, span);
        }
    }

    /// Frees a live span of one of the blocks, and joins it with the free runs beside it.
    #[inline(never)]
    fn free_joined(&mut self, held: &mut Held<'_>, span: Range<usize>) {
        if held.free_tail(span, 0) {
            self.update(held);
        }
    }

    /// Joins what is in the bins with what lies beside it, and the active run is one like others:
    /// from now on the tree knows all. The lock is held.
    pub(super) fn settle(&mut self) {
        while self.settle_some() >= SETTLED {}
    }

    /// Does a part of what [`Pool::settle`] does; returns how many runs that were, as many as
    /// [`SETTLED`] where there may be more.
    pub(super) fn settle_some(&mut self) -> usize {
        let mut settled = usize::from(self.active.is_some());
        self.settle_active(None);
        while let Some(n) = self.next_hinted(0) {
            while let Some(hint) = self.pop_hint(n + 1) {
                let Some(at) = self.slots()[hint.slot()] else {
                    continue;
                };
                // SAFETY: the arena outlives the pool, whose shard is locked, and no other Held is
                // alive here.
                let mut held = unsafe { Block::held(at) };
                held.join(hint.run(n + 1));
                self.update(&mut held);
                settled += 1;
                if settled == SETTLED {
                    return settled;
                }
            }
        }
        settled
    }

    /// Takes a run from one of the blocks that `choose` finds one in, of those that have a free run
    /// of the class of `need`. The lock is held.
    pub(super) fn allocate_where(
        &mut self,
        need: usize,
        mut choose: impl FnMut(&mut Held<'_>) -> Option<Range<usize>>,
    ) -> Option<(NonNull<Block>, Range<usize>)> {
        let class = class::of_run(need);
        let mut from = 0;
        while let Some(slot) = self.tree().find(from, class) {
            let at = self.slots()[slot]?;
            // SAFETY: the arena outlives the pool, whose shard is locked, and no other Held is
            // alive here.
            let mut held = unsafe { Block::held(at) };
            if let Some(span) = choose(&mut held) {
                self.update(&mut held);
                return Some((held.at, span));
            }
            from = slot + 1;
        }
        None
    }
}
