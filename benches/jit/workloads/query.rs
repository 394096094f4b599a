//! Queries of random addresses.

use hostmem_bench::{clock::CpuTime, lane::Lane, random::Random, subject::Jit};
use std::{hint::black_box, time::Duration};

/// Addresses that are drawn. A lane that asks more often starts over.
const ADDRESSES: usize = 1 << 20;

/// User space has 47 bits where it has fewest.
const USER_SPACE: usize = 1 << 47;

/// Addresses about which a subject is asked.
pub struct Queries<'a, S: Jit> {
    subject: &'a S,
    addresses: Vec<usize>,
    hits: bool,
    next: usize,
}

impl<'a, S: Jit> Queries<'a, S> {
    /// Draws addresses within the live pieces that start at `starts`: any piece, any byte of it.
    pub fn hits(subject: &'a S, starts: &[usize], random: &mut Random) -> Self {
        let addresses = (0..ADDRESSES).map(|_| {
            let start = starts[random.below(starts.len())];
            let (_, len) = subject.query(start).expect("a live piece is not found");
            start + random.below(len)
        });
        Self::of(subject, addresses.collect(), true)
    }

    /// Draws addresses anywhere that are in no live piece.
    pub fn misses(subject: &'a S, random: &mut Random) -> Self {
        let addresses = std::iter::repeat_with(|| random.below(USER_SPACE));
        let addresses = addresses.filter(|&pc| subject.query(pc).is_none());
        Self::of(subject, addresses.take(ADDRESSES).collect(), false)
    }

    /// Draws addresses close behind live pieces that are in none: those of released neighbours.
    pub fn holes(subject: &'a S, starts: &[usize], random: &mut Random) -> Self {
        let addresses = std::iter::repeat_with(|| {
            let start = starts[random.below(starts.len())];
            start + subject.query(start).map_or(0, |(_, len)| len)
        });
        let addresses = addresses.filter(|&pc| subject.query(pc).is_none());
        Self::of(subject, addresses.take(ADDRESSES).collect(), false)
    }

    /// Draws addresses in the middle half of the `len` bytes from `start`, a live piece.
    pub fn middle(subject: &'a S, start: usize, len: usize, random: &mut Random) -> Self {
        let addresses = (0..ADDRESSES).map(|_| start + len / 4 + random.below(len / 2));
        Self::of(subject, addresses.collect(), true)
    }

    fn of(subject: &'a S, addresses: Vec<usize>, hits: bool) -> Self {
        Self {
            subject,
            addresses,
            hits,
            next: 0,
        }
    }
}

impl<S: Jit> Lane for Queries<'_, S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let mut found = 0;
        let start = CpuTime::now();
        for number in self.next..self.next + steps {
            let answer = self.subject.query(self.addresses[number % ADDRESSES]);
            found += usize::from(black_box(answer).is_some());
        }
        let took = start.elapsed();
        self.next += steps;
        let expected = if self.hits { steps } else { 0 };
        assert_eq!(found, expected, "{} answers wrongly", S::NAME);
        took
    }
}
