//! Calls that are made on a region, by number, and what a run counts.

use crate::SplitMix64;
use core::{fmt::Debug, iter};
use hostmem_core::region::Order;

/// Where a call wants its pages. Numbers of pages are taken modulo a few more than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Where the allocator's order says.
    Anywhere,
    /// There or nowhere.
    Exact(usize),
    /// There if it is free.
    Hint(usize),
    /// As near as can be.
    Near(usize),
}

/// A call. Numbers that choose pages are taken modulo what there is, so that every sequence means
/// something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Maps pages.
    Map {
        /// How many, modulo [`LONGEST`].
        pages: usize,
        /// Where.
        spot: Spot,
        /// Whether a page before them and two behind stay inaccessible.
        guarded: bool,
        /// Whose they are.
        tag: u16,
    },
    /// Reserves pages.
    Reserve {
        /// How many, modulo [`LONGEST`].
        pages: usize,
        /// Where.
        spot: Spot,
        /// The alignment in pages, as a power of two modulo 6; page-aligned at exact places.
        align: usize,
    },
    /// Maps pages in place of what is there.
    MapOver {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
        /// Whose they are.
        tag: u16,
    },
    /// Commits what was reserved.
    Commit {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
    },
    /// Changes the access.
    Protect {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
        /// One of three.
        access: usize,
    },
    /// Takes the memory away.
    Decommit {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
    },
    /// Frees pages.
    Unmap {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
    },
    /// Makes pages more or fewer.
    Resize {
        /// The first one.
        first: usize,
        /// How many.
        pages: usize,
        /// How many there are to be.
        new_pages: usize,
        /// Whether they may be moved.
        moves: bool,
    },
    /// Gives free pages back to the provider below, in pieces of that many pages or more.
    ReleaseUnused(usize),
    /// Adopts a piece again that was given back.
    Adopt(usize),
    /// Compares all that is told of a window.
    Look {
        /// The first page.
        first: usize,
        /// How many.
        pages: usize,
    },
    /// Fails the provider's call after the next few, of pages or of metadata.
    Fail {
        /// Whose call.
        metadata: bool,
        /// How many calls come first, modulo 3.
        after: usize,
    },
}

/// One more than the pages of the longest call but for those that go through everything.
pub const LONGEST: usize = 13;

/// An allocator and what it is given.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What is free is taken in this order.
    pub order: Order,
    /// Pages; of which four belong to somebody else.
    pub pages: usize,
    /// The bound of the metadata in bytes. A change that finds no memory within it must have
    /// changed nothing, as after any other failure.
    pub metadata: usize,
    /// Steps from one comparison of everything to the next, apart from those after errors.
    pub stride: usize,
}

impl Setup {
    /// An allocator of few pages that has all the memory it wants.
    pub const SMALL: Self = Self {
        order: Order::Lowest,
        pages: 98,
        metadata: 1 << 20,
        stride: 16,
    };
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that the allocator refused, or that failed, as they should.
    pub errors: u64,
    /// Calls of the pages' provider that failed on demand.
    pub pages: u64,
    /// Calls of the metadata's provider that did.
    pub metadata: u64,
    /// Calls that found the metadata used up.
    pub used_up: u64,
}

/// Makes an endless sequence of calls from `seed`: short ones, in `pages` pages; with faults if so.
pub fn random_ops(seed: u64, pages: usize, faults: bool) -> impl Iterator<Item = Op> {
    let mut random = SplitMix64::new(seed);
    iter::repeat_with(move || {
        let first = random.below(pages);
        let most = [3, LONGEST - 1][random.below(2)];
        let len = random.between(1, most);
        let tag = u16::try_from(random.below(5)).expect("below 5");
        match random.below(1000) {
            0..300 => Op::Map {
                pages: len,
                spot: random_spot(&mut random, first),
                guarded: random.below(8) == 0,
                tag,
            },
            300..400 => Op::Reserve {
                pages: len,
                spot: random_spot(&mut random, first),
                align: random.below(6),
            },
            400..480 => Op::MapOver {
                first,
                pages: len,
                tag,
            },
            480..530 => Op::Commit { first, pages: len },
            530..600 => Op::Protect {
                first,
                pages: len,
                access: random.below(3),
            },
            600..660 => Op::Decommit { first, pages: len },
            660..900 => Op::Unmap { first, pages: len },
            900..940 => Op::Resize {
                first,
                pages: len,
                new_pages: random.below(LONGEST),
                moves: random.below(2) == 0,
            },
            940..943 => Op::ReleaseUnused(len),
            943..946 => Op::Adopt(first),
            946..976 => Op::Look { first, pages: len },
            976..996 if faults => Op::Fail {
                metadata: random.below(2) == 0,
                after: random.below(3),
            },
            998 => Op::Unmap {
                first,
                pages: random.below(pages),
            },
            _ => Op::Look { first, pages },
        }
    })
}

fn random_spot(random: &mut SplitMix64, first: usize) -> Spot {
    match random.below(6) {
        0..3 => Spot::Anywhere,
        3 => Spot::Exact(first),
        4 => Spot::Hint(first),
        _ => Spot::Near(first),
    }
}
