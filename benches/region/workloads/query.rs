//! Queries of random addresses.

use crate::space::{Lookup, PAGE};
use hostmem_bench::{clock::CpuTime, lane::Lane, random::Random};
use std::{hint::black_box, time::Duration};

/// Addresses that are drawn. A lane that asks more often starts over.
const ADDRESSES: usize = 1 << 20;

/// Draws addresses anywhere in a window of so many pages, in bytes from its start.
pub fn draw(random: &mut Random, pages: u32) -> Vec<u64> {
    let end = usize::try_from(u64::from(pages) * PAGE).expect("the window is in the address space");
    let all = (0..ADDRESSES).map(|_| random.below(end) as u64);
    all.collect()
}

/// Addresses about which a space is asked.
pub struct Queries<'a, L> {
    space: &'a L,
    addresses: &'a [u64],
    next: usize,
}

impl<'a, L: Lookup> Queries<'a, L> {
    pub const fn new(space: &'a L, addresses: &'a [u64]) -> Self {
        Self {
            space,
            addresses,
            next: 0,
        }
    }
}

impl<L: Lookup> Lane for Queries<'_, L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for number in self.next..self.next + steps {
            let address = self.addresses[number % self.addresses.len()];
            black_box(self.space.tag_at(address));
        }
        self.next += steps;
        start.elapsed()
    }
}

/// Addresses, each of which depends on the last answer: no query begins before the one in front of
/// it has ended.
pub struct Chained<'a, L> {
    space: &'a L,
    addresses: &'a [u64],
    next: usize,
}

impl<'a, L: Lookup> Chained<'a, L> {
    /// Asks about as many of the addresses as a power of two has.
    pub fn new(space: &'a L, addresses: &'a [u64]) -> Self {
        assert!(addresses.len().is_power_of_two(), "ADDRESSES is one");
        Self {
            space,
            addresses,
            next: 0,
        }
    }
}

impl<L: Lookup> Lane for Chained<'_, L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let mask = self.addresses.len() - 1;
        let start = CpuTime::now();
        for _ in 0..steps {
            // The harness reads its list in order, but for the last answer's lowest bit.
            let tag = self.space.tag_at(self.addresses[self.next & mask]);
            let bit = usize::from(tag.unwrap_or(0)) & 1;
            self.next = black_box(self.next + 1 + bit);
        }
        start.elapsed()
    }
}
