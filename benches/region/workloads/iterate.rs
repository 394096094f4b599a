//! All ranges of a map, one after the other.

use crate::space::Tracker;
use hostmem_bench::{clock::CpuTime, lane::Lane};
use std::{hint::black_box, time::Duration};

/// A map that is gone through from the start again and again. A step is a range.
pub struct Walk<'a, M> {
    map: &'a M,
    ranges: usize,
}

impl<'a, M: Tracker> Walk<'a, M> {
    pub const fn new(map: &'a M, ranges: usize) -> Self {
        Self { map, ranges }
    }
}

impl<M: Tracker> Lane for Walk<'_, M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps / self.ranges {
            let (mut ranges, mut sum) = (0, 0);
            self.map.each(|start, tag| {
                ranges += 1;
                sum += start ^ u64::from(tag);
            });
            assert_eq!(ranges, self.ranges, "all of them");
            black_box(sum);
        }
        start.elapsed()
    }

    fn batch(&self) -> Option<usize> {
        Some(self.ranges)
    }
}
