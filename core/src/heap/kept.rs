//! Huge blocks that were freed and are kept: for the next ones, or until they can be released.
//!
//! ```text
//!   size          1 MiB      1.25     1.5      1.75     2        2.5   …
//!   since the     ┌────────┬────────┬────────┬────────┬────────┬────
//!   last tick     │ ● ● ●  │ ●      │        │ ● ●    │        │       taken first
//!   before        │ ●      │        │ ●      │        │ ●      │       released by the next tick
//!                 └────────┴────────┴────────┴────────┴────────┴────
//! ```
//!
//! They hold no more than half of what huge blocks in use do, or a little where those are few; and
//! up to three times as much where a program asks for many times that between two ticks. A block
//! serves for one that is shorter, or it gets memory in its headroom: fresh pages are what huge
//! blocks cost, and a block brings those that it has. What it has too much is its headroom, until
//! it grows or a tick takes it.
//!
//! | room | what it has |
//! |---|---|
//! | `reuse` | how a kept block serves again |
//! | `drop` | how blocks are kept, and released |

mod drop;
mod reuse;

#[cfg(test)]
mod tests;

use super::slab::Handle;

/// Bytes that are kept at most where no more are in use.
const LEAST: usize = 64 << 20;

/// Which part of what huge blocks in use have is kept at most: half.
const PART: usize = 2;

/// A block serves as it is for one that takes three quarters of it.
const SLACK: usize = 4;

/// A block serves for one that is up to this many times as long, if it can be given memory, or as
/// short, with the rest as headroom.
const RESIZED: usize = 2;

/// Bytes that are asked for between two ticks, for each byte that is kept for that reason.
const TURNS: usize = 4;

/// Bins for each doubling of sizes.
const STEPS: usize = 4;

/// Bins: sizes from 1 MiB, the last one for all that are longer than some terabytes.
const BINS: usize = 24 * STEPS;

/// The size of the first bin, as a power of two.
const FIRST: u32 = 20;

/// Blocks of a bin that are looked at for one that suits.
const LOOKED_AT: usize = 8;

/// Bins that may have a block that suits: for a size, and up to [`RESIZED`] away from it.
const NEAR: usize = STEPS + 1;

/// Returns the bin for blocks of a size.
const fn bin(size: usize) -> usize {
    if size >> FIRST == 0 {
        return 0;
    }
    let power = size.ilog2();
    // Two bits behind the highest one.
    let step = (size >> (power - STEPS.ilog2())) & (STEPS - 1);
    let bin = (power - FIRST) as usize * STEPS + step;
    if bin < BINS { bin } else { BINS - 1 }
}

/// The first of the blocks of each bin, which are linked by `next`.
type Bins = [Option<Handle>; BINS];

/// Huge blocks that were freed.
pub(super) struct Kept {
    /// Since the last tick, and before.
    bins: [Bins; 2],
    bytes: usize,
    /// The bin to take from when there are too many.
    hand: usize,
    /// Those that could not be released, linked by `next`: the next pass tries again.
    unreleased: Option<Handle>,
    /// Since the last tick, and between the two before.
    demand: [Demand; 2],
}

/// The use of huge blocks in a time.
#[derive(Clone, Copy)]
struct Demand {
    /// Bytes of huge blocks that were asked for.
    asked: usize,
    /// The most bytes that were in use.
    in_use: usize,
}

impl Demand {
    const NONE: Self = Self {
        asked: 0,
        in_use: 0,
    };
}

/// How a block that is kept serves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// As it is.
    Whole,
    /// With a little more memory.
    Near,
    /// With more memory.
    Longer,
    /// With some of it as headroom.
    Shorter,
}

impl Fit {
    /// Says whether a block serves for `size` bytes in this way.
    fn suits(self, slab: Handle, size: usize, align: usize) -> bool {
        let (bytes, len) = (slab.block_bytes(), slab.len_bytes());
        let fits = match self {
            Self::Whole => bytes >= size && bytes - bytes / SLACK <= size,
            Self::Near => bytes < size && len >= size && bytes >= size - size / SLACK,
            Self::Longer => bytes < size && len >= size && bytes >= size / RESIZED,
            Self::Shorter => bytes >= size && bytes / RESIZED <= size,
        };
        fits && slab.addr().is_multiple_of(align)
    }
}

impl Kept {
    pub(super) const fn new() -> Self {
        Self {
            bins: [[None; BINS]; 2],
            bytes: 0,
            hand: 0,
            unreleased: None,
            demand: [Demand::NONE; 2],
        }
    }

    /// Notes that a block is asked for while others are in use.
    pub(super) const fn note(&mut self, size: usize, in_use: usize) {
        let now = &mut self.demand[0];
        now.asked = now.asked.saturating_add(size);
        if now.in_use < in_use {
            now.in_use = in_use;
        }
    }

    /// Returns how many bytes are worth keeping, by what was asked for lately.
    fn turned_over(&self) -> usize {
        let [now, before] = self.demand;
        let (asked, in_use) = (now.asked.max(before.asked), now.in_use.max(before.in_use));
        (asked / TURNS).min(in_use.saturating_add(in_use / PART))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn push(&mut self, slab: Handle) {
        let first = &mut self.bins[0][bin(slab.block_bytes())];
        slab.next.set(*first);
        *first = Some(slab);
        self.bytes += slab.block_bytes();
    }

    /// Takes the first block of a bin that suits, of those that are looked at.
    fn take_from(&mut self, bin: usize, suits: impl Fn(Handle) -> bool) -> Option<Handle> {
        for bins in &mut self.bins {
            let mut before = None;
            let mut next = bins[bin];
            for _ in 0..LOOKED_AT {
                let Some(slab) = next else {
                    break;
                };
                next = slab.next.get();
                if suits(slab) {
                    unlink(&mut bins[bin], before, next);
                    self.bytes -= slab.block_bytes();
                    return Some(slab);
                }
                before = Some(slab);
            }
        }
        None
    }

    /// Takes a block that serves for `size` bytes with no more than that done to it.
    fn take(&mut self, size: usize, align: usize, how: Fit) -> Option<Handle> {
        let own = bin(size);
        let suits = |slab: Handle| how.suits(slab, size, align);
        // Where nothing is kept there is nothing to look at.
        if self.is_empty() {
            return None;
        }
        match how {
            Fit::Near | Fit::Longer => {
                let least = (own + 1).saturating_sub(NEAR);
                (least..=own)
                    .rev()
                    .find_map(|bin| self.take_from(bin, suits))
            }
            Fit::Whole | Fit::Shorter => {
                (own..BINS.min(own + NEAR)).find_map(|bin| self.take_from(bin, suits))
            }
        }
    }

    /// Takes a block for one that needs `size` bytes and grows: the shortest that has addresses for
    /// half as many more, if it has no more than `most` bytes of memory.
    fn take_to_grow(&mut self, size: usize, align: usize, most: usize) -> Option<Handle> {
        let room = size.saturating_add(size / PART);
        let suits = |slab: Handle| {
            (size..=most).contains(&slab.block_bytes())
                && slab.len_bytes() >= room
                && slab.addr().is_multiple_of(align)
        };
        (bin(size)..=bin(most)).find_map(|bin| self.take_from(bin, suits))
    }

    /// Takes any block: one from before the last tick, if there is one.
    fn take_any(&mut self) -> Option<Handle> {
        for old in [1, 0] {
            for _ in 0..BINS {
                self.hand = (self.hand + 1) % BINS;
                if let Some(slab) = self.bins[old][self.hand] {
                    self.bins[old][self.hand] = slab.next.get();
                    self.bytes -= slab.block_bytes();
                    return Some(slab);
                }
            }
        }
        None
    }

    /// Takes the least block that has `wanted` bytes, or the longest.
    fn take_for(&mut self, wanted: usize) -> Option<Handle> {
        let from = bin(wanted);
        let found = (from..BINS).find_map(|bin| {
            let enough = |slab: Handle| slab.block_bytes() >= wanted;
            self.take_from(bin, enough)
        });
        found.or_else(|| {
            (0..BINS)
                .rev()
                .find_map(|bin| self.take_from(bin, |_| true))
        })
    }

    /// Takes all blocks from before the last tick out, linked by `next`, and lets the others be
    /// from before it.
    fn age(&mut self, bin: usize) -> Option<Handle> {
        let new = self.bins[0][bin].take();
        let old = core::mem::replace(&mut self.bins[1][bin], new);
        let blocks = core::iter::successors(old, |slab| slab.next.get());
        self.bytes -= blocks.map(|slab| slab.block_bytes()).sum::<usize>();
        old
    }

    /// Yields the huge blocks that could not be released.
    pub(super) fn unreleased(&self) -> impl Iterator<Item = Handle> + use<> {
        core::iter::successors(self.unreleased, |slab| slab.next.get())
    }

    /// Takes note of one that could not be released.
    pub(super) fn push_unreleased(&mut self, slab: Handle) {
        slab.next.set(self.unreleased);
        self.unreleased = Some(slab);
    }

    /// Takes the first huge block that could not be released, and suits.
    fn take_unreleased(&mut self, size: usize, align: usize) -> Option<Handle> {
        let suits = |slab: &Handle| Fit::Whole.suits(*slab, size, align);
        let found = self.unreleased().find(suits)?;
        let before = self
            .unreleased()
            .find(|slab| slab.next.get() == Some(found));
        unlink(&mut self.unreleased, before, found.next.get());
        Some(found)
    }
}

/// Takes the block between two others out of a list.
fn unlink(first: &mut Option<Handle>, before: Option<Handle>, next: Option<Handle>) {
    match before {
        Some(before) => before.next.set(next),
        None => *first = next,
    }
}
