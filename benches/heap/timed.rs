//! Calls that are timed one by one.

use crate::{
    crew::{Post, Workload},
    sizes::Mix,
    subject::Source,
    trace::{Live, Trace},
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Replaces one of the live blocks at a time, and says of many such pairs of calls how long the one
/// in the `quantile` took. Reading the clock takes as long as some pairs: that is measured and
/// taken off.
pub struct Timed {
    trace: Trace,
    /// Of 1000: 500 is the median.
    quantile: usize,
    /// Bytes that the program works on between pairs, which are not timed.
    payload: usize,
    /// Pairs of which a quantile is taken.
    pairs: usize,
}

/// Half of all, of 1000.
const MEDIAN: usize = 500;

/// Bytes of a line of the cache.
const LINE: usize = 64;

impl Timed {
    /// Says how long the fastest of the slowest pairs takes, which are one in a thousand.
    pub fn latency(mix: Mix, count: usize, seed: u64) -> Self {
        Self {
            trace: Trace::new(mix, count, seed),
            quantile: 999,
            payload: 0,
            pairs: 20_000,
        }
    }

    /// Says how long a pair takes for who works on `payload` bytes between pairs.
    pub fn payload(mix: Mix, count: usize, payload: usize, seed: u64) -> Self {
        Self {
            trace: Trace::new(mix, count, seed),
            quantile: MEDIAN,
            payload,
            pairs: 2_000,
        }
    }
}

/// Returns the quantile of what so many runs of `pair` take, with `work` before each.
fn sample(
    (pairs, quantile): (usize, usize),
    mut work: impl FnMut(),
    mut pair: impl FnMut(),
) -> Duration {
    let mut times: Vec<_> = (0..pairs)
        .map(|_| {
            work();
            let start = Instant::now();
            pair();
            start.elapsed()
        })
        .collect();
    *times.select_nth_unstable(pairs * quantile / 1000).1
}

impl Workload for Timed {
    fn batch(&self) -> Option<usize> {
        Some(self.pairs)
    }

    fn serve<S: Source>(&self, source: &S, _: usize, post: &Post) {
        let subject = source.subject();
        let mut live = Live::new(&self.trace);
        live.fill(&subject);
        let mut payload = vec![0_u8; self.payload];
        let mut work = || {
            let lines = payload.iter_mut().step_by(LINE);
            lines.for_each(|byte| *byte = byte.wrapping_add(1));
            black_box(&mut payload);
        };
        post.each(|steps| {
            let clock = sample((self.pairs, MEDIAN), &mut work, || ());
            // SAFETY: all blocks came from this subject.
            let replace = || unsafe { live.replace(&subject) };
            let pair = sample((self.pairs, self.quantile), &mut work, replace);
            let steps = u32::try_from(steps).expect("pairs are few");
            pair.saturating_sub(clock) * steps
        });
        // SAFETY: all blocks came from this subject.
        unsafe { live.clear(&subject) };
    }
}
