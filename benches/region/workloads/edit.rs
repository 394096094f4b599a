//! A map of ranges that is changed at places that the caller knows: a range goes, and another one
//! comes elsewhere.
//!
//! ```text
//!   slots of 16 pages, every second one in use, at random
//!   │[  7  )        │[12        )   │               │[3 )           │[ 9      )     │
//! ```

use crate::space::{Mapping, Tracker};
use hostmem_bench::{clock::CpuTime, lane::Lane, random::Random};
use std::time::Duration;

/// Pages of a slot.
const ROOM: u32 = 16;

/// Pages of the window for each range.
const PAGES_EACH: u32 = 2 * ROOM;

/// Steps that are drawn. A lane that does more starts over with these.
const STEPS: usize = 1 << 20;

/// What goes and what comes, by place in the lists of used and unused slots, for any tracker.
pub struct Moves {
    /// Slots, of which the first half is in use.
    slots: Vec<u32>,
    steps: Vec<Move>,
}

#[derive(Clone, Copy)]
struct Move {
    used: u32,
    unused: u32,
    pages: u16,
    tag: u16,
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("there are fewer than 2^32")
}

fn short(n: usize) -> u16 {
    u16::try_from(n).expect("lengths and tags are below 2^16")
}

/// Returns a range of a number of pages at the start of a slot.
///
/// Neighbours have other tags: a tracker makes one range of two that touch and have the same one,
/// and all shall stay as many as they are.
const fn range_in(slot: u32, pages: u16, tag: u16) -> Mapping {
    Mapping {
        start: slot * ROOM,
        pages,
        tag: if slot.is_multiple_of(2) {
            tag & !1
        } else {
            tag | 1
        },
    }
}

impl Moves {
    /// Draws moves of so many ranges.
    pub fn draw(random: &mut Random, live: usize) -> Self {
        let mut slots: Vec<u32> = (0..2 * live).map(number).collect();
        random.shuffle(&mut slots);
        let steps = (0..STEPS).map(|_| Move {
            used: number(random.below(live)),
            unused: number(live + random.below(live)),
            pages: short(random.within(&(1..=ROOM as usize))),
            tag: short(random.below(1 << 16)),
        });
        let steps = steps.collect();
        Self { slots, steps }
    }

    /// Returns how many pages the window has.
    pub fn window(&self) -> u32 {
        number(self.live()) * PAGES_EACH
    }

    fn live(&self) -> usize {
        self.slots.len() / 2
    }
}

/// Ranges that are moved about in a tracker.
pub struct Edits<'a, M> {
    map: M,
    moves: &'a Moves,
    slots: Vec<u32>,
    ranges: Vec<Mapping>,
    next: usize,
}

impl<'a, M: Tracker> Edits<'a, M> {
    /// Fills a map, which is empty.
    pub fn new(mut map: M, moves: &'a Moves) -> Self {
        let slots = moves.slots.clone();
        let ranges = (0..moves.live()).map(|n| {
            let (pages, tag) = (1 + n % ROOM as usize, n % (1 << 16));
            range_in(slots[n], short(pages), short(tag))
        });
        let ranges: Vec<Mapping> = ranges.collect();
        ranges.iter().for_each(|&range| map.insert(range));
        Self {
            map,
            moves,
            slots,
            ranges,
            next: 0,
        }
    }

    /// Returns what is measured.
    pub const fn map(&self) -> &M {
        &self.map
    }
}

impl<M: Tracker> Lane for Edits<'_, M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for number in self.next..self.next + steps {
            let step = self.moves.steps[number % STEPS];
            let (used, unused) = (step.used as usize, step.unused as usize);
            self.map.remove(self.ranges[used]);
            self.slots.swap(used, unused);
            let range = range_in(self.slots[used], step.pages, step.tag);
            self.ranges[used] = range;
            self.map.insert(range);
        }
        self.next += steps;
        start.elapsed()
    }
}
