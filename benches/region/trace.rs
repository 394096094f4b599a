//! What is asked of every space alike: a layout to begin with, sizes, tags and slots.

use crate::{
    ours::Ours,
    space::{Mapping, Space},
};
use hostmem::provider::Error;
use hostmem_bench::random::Random;
use std::ops::RangeInclusive;

/// Pages of a mapping.
const PAGES: RangeInclusive<usize> = 1..=16;

/// Pages of the window for each mapping, of which it takes 8.5 on average.
const PAGES_EACH: usize = 11;

/// Pages of the window beside those: a small set may be unlucky.
const PAGES_SPARE: usize = 4096;

/// Pages of a hole between two mappings before there was any churn.
const FIRST_HOLES: RangeInclusive<usize> = 0..=3;

/// Steps for each mapping after which the layout is taken to be old. There is a hole for each four
/// mappings then, and holes are 15 % of the pages. With more steps both become fewer, slowly:
/// lowest places first sort mappings by length.
const AGE: usize = 2;

/// Steps that are drawn. A lane that does more starts over, with other mappings in the slots.
const STEPS: usize = 1 << 20;

/// One step of a churn: the slot whose mapping goes, and the one that comes.
#[derive(Clone, Copy)]
pub struct Step {
    slot: u32,
    pub pages: u16,
    pub tag: u16,
}

impl Step {
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    fn draw(random: &mut Random, live: usize) -> Self {
        Self {
            slot: u32::try_from(random.below(live)).expect("there are fewer slots than 2^32"),
            pages: small(random.within(&PAGES)),
            tag: small(random.below(1 << 16)),
        }
    }
}

/// Mappings that live in a window, and the steps that change them.
pub struct Trace {
    window: u32,
    layout: Vec<Mapping>,
    steps: Vec<Step>,
}

impl Trace {
    /// Draws a live set of `live` mappings, and lets it age: mappings go and come at random, always
    /// to the lowest place.
    ///
    /// # Errors
    ///
    /// Where the host has no addresses for the window.
    pub fn new(seed: u64, live: usize) -> Result<Self, Error> {
        let mut random = Random::new(seed);
        let window = u32::try_from(live * PAGES_EACH + PAGES_SPARE);
        let window = window.expect("a window has fewer pages than 2^32");
        let mut ours = Ours::new(window)?;
        let mut layout = first(&mut random, live);
        layout.iter().for_each(|&mapping| ours.place(mapping));
        for _ in 0..live * AGE {
            let step = Step::draw(&mut random, live);
            replace(&mut ours, &mut layout[step.slot()], step);
        }
        let steps = (0..STEPS).map(|_| Step::draw(&mut random, live));
        Ok(Self {
            window,
            layout,
            steps: steps.collect(),
        })
    }

    /// Returns how many pages the window has.
    pub const fn window(&self) -> u32 {
        self.window
    }

    /// Returns the mapping in each slot to begin with. Neighbouring slots lie anywhere.
    pub fn layout(&self) -> &[Mapping] {
        &self.layout
    }

    /// Places the layout in an empty space.
    pub fn fill(&self, space: &mut impl Space) {
        self.layout.iter().for_each(|&mapping| space.place(mapping));
    }

    /// Returns a step. There is one for every number.
    #[inline]
    pub fn step(&self, number: usize) -> Step {
        self.steps[number % STEPS]
    }
}

/// Does one step: what is in the slot goes, something else comes.
#[inline]
pub fn replace<S: Space>(space: &mut S, slot: &mut Mapping, step: Step) {
    space.unmap(*slot);
    let start = space.map(step.pages, step.tag);
    let (pages, tag) = (step.pages, step.tag);
    *slot = Mapping { start, pages, tag };
}

/// Draws mappings of random lengths, with random holes between, in a random order.
fn first(random: &mut Random, live: usize) -> Vec<Mapping> {
    let mut end = 1;
    let layout = (0..live).map(|_| {
        let mapping = Mapping {
            start: end + u32::from(small(random.within(&FIRST_HOLES))),
            pages: small(random.within(&PAGES)),
            tag: small(random.below(1 << 16)),
        };
        end = mapping.end();
        mapping
    });
    let mut layout: Vec<Mapping> = layout.collect();
    random.shuffle(&mut layout);
    layout
}

fn small(number: usize) -> u16 {
    u16::try_from(number).expect("lengths and tags are below 2^16")
}
