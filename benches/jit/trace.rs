//! What is asked of every subject alike: sizes and slots, drawn beforehand.

use hostmem_bench::random::Random;
use std::ops::RangeInclusive;

/// Steps that are drawn. A lane that does more starts over, with other pieces in the slots.
const STEPS: usize = 1 << 20;

/// One step of a churn: the slot whose piece goes, and the size of the one that comes.
#[derive(Clone, Copy)]
pub struct Step {
    slot: u32,
    size: u32,
}

impl Step {
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    pub const fn size(self) -> usize {
        self.size as usize
    }
}

/// A live set, and the steps that change it.
pub struct Trace {
    fill: Vec<usize>,
    turnover: Vec<Option<usize>>,
    steps: Vec<Step>,
}

impl Trace {
    /// Draws a live set of `live` pieces with sizes in bytes within `sizes`.
    pub fn new(seed: u64, live: usize, sizes: &RangeInclusive<usize>) -> Self {
        let mut random = Random::new(seed);
        let fill = (0..live).map(|_| random.within(sizes)).collect();
        let turnover = (0..live).map(|_| {
            let size = random.within(sizes);
            (random.below(2) == 0).then_some(size)
        });
        let turnover = turnover.collect();
        let steps = (0..STEPS).map(|_| Step {
            slot: small(random.below(live)),
            size: small(random.within(sizes)),
        });
        Self {
            fill,
            turnover,
            steps: steps.collect(),
        }
    }

    /// Returns the sizes of the live set, in the order of allocation.
    pub fn fill(&self) -> &[usize] {
        &self.fill
    }

    /// Returns the size that replaces each piece of the live set, for a random half of them.
    pub fn turnover(&self) -> &[Option<usize>] {
        &self.turnover
    }

    /// Returns a step. There is one for every number.
    #[inline]
    pub fn step(&self, number: usize) -> Step {
        self.steps[number % STEPS]
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("slots and sizes are below 2^32")
}
