//! Steady random churn: each step unmaps a random mapping and maps one of a random length.

use crate::{
    space::{Mapping, Space},
    trace::{Trace, replace},
};
use hostmem_bench::{
    clock::CpuTime,
    lane::{Lane, per_step, split},
    prefetch,
};
use std::time::{Duration, Instant};

/// How many steps ahead the harness asks for its own slot: a miss costs about as much as a step.
const AHEAD: usize = 8;

/// Unmaps in a row, then maps in a row, where the two are told apart.
const RUN: usize = 64;

/// The same for who takes so long that a clock is nothing beside it.
const SLOW_RUN: usize = 8;

/// A churn of anybody.
pub trait Churning: Lane {
    /// Does `steps` steps, or as many as `limit` has time for, by runs of each call, short ones if
    /// `slow`. Returns what a map and what an unmap costs, in nanoseconds on the wall: a run is too
    /// short for the other clock. Medians of the runs, so that a run during which others ran does
    /// not count.
    fn split(&mut self, steps: usize, limit: Duration, slow: bool) -> (f64, f64);

    /// Returns what lives now.
    fn slots(&self) -> &[Mapping];
}

/// A live set in churn.
pub struct Churn<'a, S> {
    space: S,
    trace: &'a Trace,
    slots: Vec<Mapping>,
    next: usize,
}

impl<'a, S: Space> Churn<'a, S> {
    /// Fills an empty space with the layout of `trace`.
    pub fn new(mut space: S, trace: &'a Trace) -> Self {
        trace.fill(&mut space);
        Self {
            space,
            trace,
            slots: trace.layout().to_vec(),
            next: 0,
        }
    }

    /// Returns what is measured.
    pub const fn space(&self) -> &S {
        &self.space
    }

    fn steps(&mut self, steps: usize) {
        for number in self.next..self.next + steps {
            let step = self.trace.step(number);
            prefetch(&self.slots[self.trace.step(number + AHEAD).slot()]);
            replace(&mut self.space, &mut self.slots[step.slot()], step);
        }
        self.next += steps;
    }

    fn one_run(&mut self, len: usize) -> (f64, f64) {
        let run = self.next..self.next + len;
        self.next = run.end;
        let mut empty = Vec::with_capacity(len);
        let start = Instant::now();
        for number in run {
            let slot = self.trace.step(number).slot();
            let mapping = &mut self.slots[slot];
            // It has no pages where the run has the slot twice.
            if mapping.pages > 0 {
                self.space.unmap(*mapping);
                mapping.pages = 0;
                empty.push(number);
            }
        }
        let between = Instant::now();
        for &number in &empty {
            let step = self.trace.step(number);
            let (pages, tag) = (step.pages, step.tag);
            let start = self.space.map(pages, tag);
            self.slots[step.slot()] = Mapping { start, pages, tag };
        }
        let (map, unmap) = (between.elapsed(), between - start);
        (per_step(map, empty.len()), per_step(unmap, empty.len()))
    }
}

impl<S: Space> Lane for Churn<'_, S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        self.steps(steps);
        start.elapsed()
    }
}

impl<S: Space> Churning for Churn<'_, S> {
    fn slots(&self) -> &[Mapping] {
        &self.slots
    }

    fn split(&mut self, steps: usize, limit: Duration, slow: bool) -> (f64, f64) {
        let run = if slow { SLOW_RUN } else { RUN };
        split(S::NAME, steps, limit, run, || self.one_run(run))
    }
}
