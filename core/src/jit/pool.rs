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
//! looked at its granules may belong to somebody else, or to a longer run, and the bits say so.
//! Before a new block is mapped, all that is in the bins is joined with what lies beside it.

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
use bitvec::{order::Lsb0, slice::BitSlice};
use core::{ops::Range, ptr::NonNull};

/// Slots that a pool begins with.
const FIRST_SLOTS: usize = 64;

/// The longest span that has a bin, in granules.
const BINS: usize = 128;

/// Spans in a bin. Random requests of evenly mixed lengths find an empty bin, or a full one, once
/// in so many times and one more.
const DEPTH: usize = 64;

/// Granules that a bin holds at most, so that long spans are joined soon.
const BIN_GRANULES: usize = 512;

/// Hints that a request for a spot looks at, the last ones first.
const LOOKED_AT: usize = 4;

/// Runs that are joined before the lock is given back to others: some microseconds.
pub(super) const SETTLED: usize = 256;

/// Where a span was released: the block's slot in 8 bits, the granule in 24. Spans that these do
/// not tell are joined at once: of a pool's 256th block and its like, and behind the first 16 Mi
/// granules of one.
#[derive(Clone, Copy)]
pub(super) struct Hint(u32);

impl Hint {
    /// Bits of a granule.
    const BITS: u32 = 24;

    /// What zero bytes stand for.
    pub(super) const ZERO: Self = Self(0);

    #[inline]
    fn new(slot: usize, granule: usize) -> Option<Self> {
        if slot >> (u32::BITS - Self::BITS) != 0 || granule >> Self::BITS != 0 {
            return None;
        }
        u32::try_from(slot << Self::BITS | granule).ok().map(Self)
    }

    #[inline]
    const fn slot(self) -> usize {
        (self.0 >> Self::BITS) as usize
    }

    /// Returns the run of `len` granules.
    #[inline]
    const fn run(self, len: usize) -> Range<usize> {
        let start = (self.0 & ((1 << Self::BITS) - 1)) as usize;
        start..start + len
    }
}

/// Returns how many hints the bin for spans of `len` granules has room for.
const fn room(len: usize) -> usize {
    let most = BIN_GRANULES / len;
    match most {
        0..2 => 2,
        2..DEPTH => most,
        _ => DEPTH,
    }
}

/// Where the bins begin among the hints of all, the shortest length first; and where the last one
/// ends.
const STARTS: [u16; BINS + 1] = {
    let mut starts = [0; BINS + 1];
    let mut n = 0;
    while n < BINS {
        #[expect(clippy::cast_possible_truncation, reason = "no bin has more than 64")]
        {
            starts[n + 1] = starts[n] + room(n + 1) as u16;
        }
        n += 1;
    }
    starts
};

/// The hints of all bins, in each the last one on top.
const HINTS: usize = STARTS[BINS] as usize;

/// Returns the place of a hint: of the nth of the bin for spans of `len` granules.
#[inline]
fn place(len: usize, n: usize) -> usize {
    usize::from(STARTS[len - 1]) + n
}

/// The bins of a pool.
#[derive(Clone, Copy)]
struct Bins {
    /// How many hints each bin has: apart from these, so that an empty bin is not touched.
    counts: NonNull<[u8; BINS]>,
    hints: NonNull<[Hint; HINTS]>,
}

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

    /// Returns how many hints each bin has, and the bins, if there are any.
    #[inline]
    fn bins(&mut self) -> Option<(&mut [u8; BINS], &mut [Hint; HINTS])> {
        let Bins {
            mut counts,
            mut hints,
        } = self.bins?;
        // SAFETY: they live in the arena and belong to this pool alone; self is borrowed.
        let counts = unsafe { counts.as_mut() };
        // SAFETY: as above.
        Some((counts, unsafe { hints.as_mut() }))
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
        // SAFETY: the caller's promise.
        unsafe { tables::free(arena, self.slots) };
        // SAFETY: as above.
        unsafe { tables::free(arena, self.tree) };
        // SAFETY: as above.
        unsafe { tables::free(arena, self.taken) };
    }

    /// Makes bins, if there are none and there is memory. They come behind what every allocation
    /// touches, since most of them are never used. Without them spans are joined at once.
    pub(super) fn make_bins<P: PageProvider + Copy, R: RawMutex>(&mut self, arena: &Arena<P, R>) {
        if self.bins.is_some() {
            return;
        }
        let Ok(counts) = tables::zeroed::<u8, _, _>(arena, BINS) else {
            return;
        };
        match tables::zeroed::<Hint, _, _>(arena, HINTS) {
            Ok(hints) => {
                self.bins = Some(Bins {
                    counts: counts.cast(),
                    hints: hints.cast(),
                });
            }
            // SAFETY: allocated just now, and used by no other code.
            Err(_) => unsafe { tables::free(arena, counts) },
        }
    }

    /// Takes the last hint of the bin for spans of `len` granules.
    #[inline]
    fn pop_hint(&mut self, len: usize) -> Option<Hint> {
        let (counts, hints) = self.bins()?;
        let count = counts.get_mut(len - 1)?;
        *count = count.checked_sub(1)?;
        hints.get(place(len, usize::from(*count))).copied()
    }

    /// Adds a hint to the bin for spans of `len` granules; says whether there was room.
    #[inline]
    fn push_hint(&mut self, len: usize, hint: Hint) -> bool {
        let Some((counts, hints)) = self.bins() else {
            return false;
        };
        let Some(count) = counts.get_mut(len - 1) else {
            return false;
        };
        let at = place(len, usize::from(*count));
        let has_room = at < usize::from(STARTS[len]);
        if has_room {
            hints[at] = hint;
            *count += 1;
        }
        has_room
    }

    /// Returns the first bin with a hint from the nth on. Most are empty, so that they are looked
    /// through eight at a time.
    fn next_hinted(&mut self, n: usize) -> Option<usize> {
        let (counts, _) = self.bins()?;
        let (eights, _) = counts.as_chunks::<8>();
        let first = eights.get(n / 8)?[n % 8..]
            .iter()
            .position(|&count| count != 0);
        first.map(|at| n + at).or_else(|| {
            let behind = n / 8 + 1;
            let some = |eight: &[u8; 8]| u64::from_ne_bytes(*eight) != 0;
            let eight = behind + eights[behind..].iter().position(some)?;
            let at = eights[eight].iter().position(|&count| count != 0)?;
            Some(8 * eight + at)
        })
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
        // SAFETY: as in slots.
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
    /// that has one. The lock is held.
    #[inline]
    pub(super) fn allocate(&mut self, need: usize) -> Option<(Held<'_>, Range<usize>)> {
        while let Some(hint) = self.pop_hint(need) {
            let run = hint.run(need);
            if let Some(at) = self.slots()[hint.slot()] {
                // SAFETY: the arena outlives the pool; a pool is reached under its shard's lock
                // only, and no other Held is alive here.
                let mut held = unsafe { Block::held(at) };
                if held.take_run(run.clone()) {
                    return Some((held, run));
                }
            }
        }
        self.allocate_lowest(need)
    }

    /// Takes a run that was released just now, or the start of the active run, if it lies in a
    /// spot. The lock is held.
    #[inline]
    pub(super) fn allocate_recent(
        &mut self,
        need: usize,
        spot: &Spot,
    ) -> Option<(Held<'_>, Range<usize>)> {
        for back in 1..=LOOKED_AT {
            let Some(hint) = self.hint(need, back) else {
                break;
            };
            let run = hint.run(need);
            let Some(at) = self.slots()[hint.slot()] else {
                continue;
            };
            // SAFETY: as in allocate.
            let mut held = unsafe { Block::held(at) };
            if held.is_in_spot(&run, spot) && held.take_run(run.clone()) {
                self.drop_hint(need, back);
                return Some((held, run));
            }
        }
        // SAFETY: as in allocate.
        let mut held = unsafe { Block::held(self.active?) };
        let start = held.active_start();
        if !held.is_in_spot(&(start..start + need), spot) {
            return None;
        }
        let span = held.allocate_active(need)?;
        Some((held, span))
    }

    /// Returns the hint of the bin for spans of `len` granules that is so far from the top.
    #[inline]
    fn hint(&mut self, len: usize, back: usize) -> Option<Hint> {
        let (counts, hints) = self.bins()?;
        let n = usize::from(*counts.get(len - 1)?).checked_sub(back)?;
        hints.get(place(len, n)).copied()
    }

    /// Drops that hint; the one on top takes its place.
    #[inline]
    fn drop_hint(&mut self, len: usize, back: usize) {
        let Some(top) = self.pop_hint(len) else {
            return;
        };
        if let Some((counts, hints)) = self.bins()
            && back > 1
            && let Some(n) = (usize::from(counts[len - 1]) + 1).checked_sub(back)
        {
            hints[place(len, n)] = top;
        }
    }

    /// Takes the first run in the first block that has one, or the start of the active run if that
    /// comes before.
    #[inline]
    fn allocate_lowest(&mut self, need: usize) -> Option<(Held<'_>, Range<usize>)> {
        let class = class::that_fits(need);
        let largest = self.largest;
        let slot = class
            .filter(|class| *class <= largest)
            .and_then(|class| self.tree().first(class));
        // SAFETY: as in allocate; the result is used before another Held of the block is made.
        let active = self.active.map(|at| unsafe { Block::held(at) });
        let (Some(slot), Some(class)) = (slot, class) else {
            let mut active = active?;
            let span = active.allocate_active(need)?;
            return Some((active, span));
        };
        if let Some(mut held) = active.filter(Held::has_active)
            && (held.guarded.slot < slot
                || held.guarded.slot == slot
                    && held
                        .first_word(class)
                        .is_none_or(|w| held.active_word() < w))
            && let Some(span) = held.allocate_active(need)
        {
            return Some((held, span));
        }
        let at = self.slots()[slot]?;
        // SAFETY: as in allocate; the Held above is gone.
        let mut held = unsafe { Block::held(at) };
        let word = held.first_word(class)?;
        if let Some(span) = held.allocate_in(word, need) {
            self.update(&mut held);
            return Some((held, span));
        }
        // It found a long run, the active one from now on.
        self.settle_active(Some(at));
        self.active = Some(at);
        // SAFETY: as in allocate; the Held above is gone.
        let mut held = unsafe { Block::held(at) };
        self.update(&mut held);
        let span = held.allocate_active(need)?;
        Some((held, span))
    }

    /// Makes the active run one like others, unless it is in this block.
    fn settle_active(&mut self, but: Option<NonNull<Block>>) {
        if let Some(at) = self.active.take_if(|at| Some(*at) != but) {
            // SAFETY: as in allocate.
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
                // SAFETY: as in allocate.
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

    /// Forgets what was released and what run was active, as a new pool does not know any.
    pub(super) fn forget_hints(&mut self) {
        if let Some((counts, _)) = self.bins() {
            counts.fill(0);
        }
        self.active = None;
    }

    /// Takes a run from one of the blocks that `choose` finds one in, of those that have a free run
    /// of the class of `need`. The lock is held.
    pub(super) fn allocate_where(
        &mut self,
        need: usize,
        mut choose: impl FnMut(&mut Held<'_>) -> Option<Range<usize>>,
    ) -> Option<(Held<'_>, Range<usize>)> {
        let class = class::of_run(need);
        let mut from = 0;
        while let Some(slot) = self.tree().find(from, class) {
            let at = self.slots()[slot]?;
            // SAFETY: as in allocate.
            let mut held = unsafe { Block::held(at) };
            if let Some(span) = choose(&mut held) {
                self.update(&mut held);
                return Some((held, span));
            }
            from = slot + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{boxed::Box, vec::Vec};

    #[test]
    fn bins_with_hints_are_found_in_order() {
        let hint = Hint::new(255, (1 << 24) - 1).expect("the most there is");
        assert_eq!((hint.slot(), hint.run(3).start), (255, (1 << 24) - 1));
        assert!(Hint::new(256, 0).is_none() && Hint::new(0, 1 << 24).is_none());
        let mut pool = Pool::new(0);
        assert_eq!(pool.next_hinted(0), None, "no bins");
        pool.bins = Some(Bins {
            counts: NonNull::from(Box::leak(Box::new([0; BINS]))),
            hints: NonNull::from(Box::leak(Box::new([hint; HINTS]))),
        });
        let all = [0, 1, 7, 8, 15, 31, 64, 120, 126, 127];
        for first in 0..all.len() {
            for &n in &all[first..] {
                assert!(pool.push_hint(n + 1, hint), "there is room");
            }
            let mut from = 0;
            let found = core::iter::from_fn(|| {
                let n = pool.next_hinted(from)?;
                from = n + 1;
                Some(n)
            });
            assert_eq!(found.collect::<Vec<_>>(), all[first..]);
            assert_eq!(pool.next_hinted(BINS), None, "behind the last one");
            for &n in &all[first..] {
                assert!(pool.pop_hint(n + 1).is_some(), "the hint is there");
                assert!(pool.pop_hint(n + 1).is_none(), "and no other");
            }
            assert_eq!(pool.next_hinted(0), None, "all are empty again");
        }
        assert!(!pool.push_hint(BINS + 1, hint), "no bin is that long");
    }
}
