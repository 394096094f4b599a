//! Calls that are made on a heap, by number.

use crate::SplitMix64;

/// Handles in a run.
pub(super) const HANDLES: usize = 3;

/// The number that stands for the calls without a handle.
pub(super) const NONE: usize = HANDLES;

/// The number that stands for the calls that do not wait, as signal handlers make them.
pub(super) const NOT_WAITING: usize = HANDLES + 1;

/// Who can make calls: handles, and two more.
pub const CALLERS: usize = HANDLES + 2;

/// Calls of a case.
pub(super) const STEPS: usize = 6000;

/// The most bytes that are live at once, so that every host has as much.
pub(super) const MOST_LIVE: usize = 24 << 20;

/// A call. Blocks are chosen modulo how many live.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Allocates.
    Alloc {
        /// Bytes.
        size: usize,
        /// The binary logarithm of the alignment.
        align: u32,
        /// Whether it is to read zero.
        zeroed: bool,
    },
    /// Asks in vain for more than any host has, and for a block to become as long.
    AllocTooMuch(usize),
    /// Frees a block, sized or not.
    Free(usize, bool),
    /// Frees a block twice, the second time in vain.
    FreeTwice(usize),
    /// Frees what is no block's start, that many bytes into a block.
    FreeInside(usize, usize),
    /// Frees what belongs to no heap.
    FreeForeign(usize),
    /// Resizes a block.
    Realloc(usize, usize),
    /// Asks whose an address is, that many bytes into a block.
    Query(usize, usize),
    /// Has other calls be made by another handle, or by none.
    Handle(usize),
    /// Drops the handle and makes another.
    Renew,
    /// Gives free blocks of the handle back.
    Flush,
    /// Gives free memory back.
    Trim,
    /// Gives back memory between live blocks, too.
    Collect,
    /// Gives memory back until that many bytes are left.
    TrimTo(usize),
    /// Lets time pass.
    Tick(u64),
    /// Looks at every block.
    CheckAll,
}

/// What a run met with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Calls that failed for want of memory.
    pub exhausted: usize,
    /// Calls that were refused, as they must be.
    pub refused: usize,
    /// Calls that would have had to wait or to ask the provider, and must not.
    pub busy: usize,
    /// Blocks that were resized where they lay.
    pub in_place: usize,
}

/// Yields calls forever.
pub fn random_ops(seed: u64) -> impl Iterator<Item = Op> {
    let mut random = SplitMix64::new(seed);
    let size = |random: &mut SplitMix64| match random.below(100) {
        0..60 => random.below(300),
        60..85 => random.below(5000),
        85..95 => random.below(70_000),
        95..99 => random.below(400_000),
        _ => random.below(5 << 20),
    };
    core::iter::from_fn(move || {
        let number = random.next_usize() >> 1;
        Some(match random.below(100) {
            0..36 => Op::Alloc {
                size: size(&mut random),
                align: u32::try_from(random.below(40) / 4).unwrap_or(0),
                zeroed: random.below(4) == 0,
            },
            36 => Op::Alloc {
                size: random.below(100_000),
                align: u32::try_from(random.below(22)).unwrap_or(0),
                zeroed: false,
            },
            37..70 => Op::Free(number, random.below(2) == 0),
            70..72 => Op::FreeTwice(number),
            72..74 => Op::FreeInside(number, random.next_usize()),
            74 => Op::FreeForeign(random.next_usize()),
            75..84 => Op::Realloc(number, size(&mut random)),
            84..88 => Op::Query(number, random.next_usize()),
            88..96 => Op::Handle(number),
            96 => Op::Renew,
            97 => Op::Flush,
            98 => match random.below(4) {
                0 if number.is_multiple_of(2) => Op::Trim,
                0 => Op::Collect,
                1 => Op::TrimTo(number % MOST_LIVE),
                _ => Op::Tick(number as u64 % 900),
            },
            _ => match random.below(5) {
                0 => Op::CheckAll,
                _ => Op::Handle(number),
            },
        })
    })
}
