//! Steady random churn: each step releases a random piece and allocates one of a random size.

use crate::trace::Trace;
use hostmem_bench::{
    clock::CpuTime,
    lane::{Lane, per_step, split},
    prefetch,
    subject::{Piece, Subject},
};
use std::time::{Duration, Instant};

/// How many steps ahead the harness asks for its own slot: a miss costs about as much as a step.
const AHEAD: usize = 8;

/// Releases in a row, then allocations in a row, where the two are told apart. Less than a
/// hundredth of the smallest live set that is measured so.
const RUN: usize = 64;

/// A live set in churn.
pub struct Churn<'a, S: Subject> {
    subject: &'a S,
    trace: &'a Trace,
    slots: Vec<Option<Piece>>,
    next: usize,
}

impl<'a, S: Subject> Churn<'a, S> {
    /// Allocates the live set of `trace`, then releases half of it at random and replaces that.
    ///
    /// Most of what steps would do to the order of pieces in memory, where a million steps may
    /// take a minute and more. `limit` bounds the replacing; the steps go on with it.
    pub fn new(subject: &'a S, trace: &'a Trace, limit: Duration) -> Self {
        let fill = trace.fill().iter().map(|&size| Some(subject.alloc(size)));
        let mut churn = Self {
            subject,
            trace,
            slots: fill.collect(),
            next: 0,
        };
        churn.turn_over(limit);
        churn
    }

    fn turn_over(&mut self, limit: Duration) {
        for (slot, size) in self.slots.iter_mut().zip(self.trace.turnover()) {
            if let Some(piece) = slot.take_if(|_| size.is_some()) {
                // SAFETY: allocated from this subject for this slot; no other code uses its memory.
                unsafe { self.subject.release(piece) };
            }
        }
        let start = Instant::now();
        for (number, (slot, size)) in self.slots.iter_mut().zip(self.trace.turnover()).enumerate() {
            if number % RUN == 0 && start.elapsed() >= limit {
                break;
            }
            if let Some(size) = *size {
                *slot = Some(self.subject.alloc(size));
            }
        }
        let empty = self.slots.iter().filter(|slot| slot.is_none()).count();
        if empty > 0 {
            let (name, all) = (S::NAME, self.slots.len());
            println!("note: {name} starts with {empty} of {all} slots empty, for want of time");
        }
    }

    /// Returns what is measured.
    pub const fn subject(&self) -> &'a S {
        self.subject
    }

    /// Returns where the live pieces start.
    pub fn starts(&self) -> Vec<usize> {
        let live = self.slots.iter().flatten();
        live.map(Piece::address).collect()
    }

    /// Returns how many pieces are live.
    pub const fn live(&self) -> usize {
        self.slots.len()
    }

    fn steps(&mut self, steps: usize) {
        for number in self.next..self.next + steps {
            let step = self.trace.step(number);
            prefetch(&self.slots[self.trace.step(number + AHEAD).slot()]);
            let slot = &mut self.slots[step.slot()];
            if let Some(piece) = slot.take() {
                // SAFETY: allocated from this subject for this slot; no other code uses its memory.
                unsafe { self.subject.release(piece) };
            }
            *slot = Some(self.subject.alloc(step.size()));
        }
        self.next += steps;
    }

    /// Does `steps` steps by [`RUN`]s, or as many as `limit` has time for, and returns what an
    /// allocation and what a release costs, in nanoseconds on the wall: a run is too short for the
    /// other clock. Medians of the runs, so that a run during which others ran does not count.
    pub fn split(&mut self, steps: usize, limit: Duration) -> (f64, f64) {
        split(S::NAME, steps, limit, RUN, || self.one_run())
    }

    fn one_run(&mut self) -> (f64, f64) {
        let run = self.next..self.next + RUN;
        self.next = run.end;
        let mut count = 0;
        let start = Instant::now();
        for number in run.clone() {
            // Empty where the run has the slot twice.
            if let Some(piece) = self.slots[self.trace.step(number).slot()].take() {
                // SAFETY: allocated from this subject for this slot; no other code uses its memory.
                unsafe { self.subject.release(piece) };
                count += 1;
            }
        }
        let between = Instant::now();
        for number in run {
            let step = self.trace.step(number);
            let slot = &mut self.slots[step.slot()];
            if slot.is_none() {
                *slot = Some(self.subject.alloc(step.size()));
            }
        }
        let (alloc, release) = (between.elapsed(), between - start);
        (per_step(alloc, count), per_step(release, count))
    }
}

impl<S: Subject> Lane for Churn<'_, S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        self.steps(steps);
        start.elapsed()
    }
}

impl<S: Subject> Drop for Churn<'_, S> {
    fn drop(&mut self) {
        for piece in self.slots.drain(..).flatten() {
            // SAFETY: allocated from this subject; no other code uses its memory.
            unsafe { self.subject.release(piece) };
        }
    }
}
