//! Whose address is it?

use crate::subject::OurHeap;
use hostmem_bench::{clock::CpuTime, lane::Lane};
use std::{hint::black_box, time::Duration};

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Owns,
    BlockOf,
}

/// Asks about one address after the other.
pub struct Queries<'a> {
    pub heap: &'a OurHeap,
    pub addresses: &'a [usize],
    pub question: Question,
    pub next: usize,
}

impl Lane for Queries<'_> {
    fn name(&self) -> &'static str {
        "ours"
    }

    #[inline(never)]
    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        let (mut left, mut found) = (steps, 0_usize);
        while left != 0 {
            let rest = &self.addresses[self.next..];
            let asked = &rest[..rest.len().min(left)];
            found = found.wrapping_add(match self.question {
                Question::Owns => asked.iter().filter(|addr| self.heap.owns(**addr)).count(),
                Question::BlockOf => asked
                    .iter()
                    .filter_map(|addr| self.heap.block_of(*addr))
                    .fold(0, |sum, block| sum ^ block.len),
            });
            left -= asked.len();
            self.next = (self.next + asked.len()) % self.addresses.len();
        }
        let took = start.elapsed();
        black_box(found);
        took
    }
}
