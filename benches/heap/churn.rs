//! Blocks that come and go at random, or change their size.

use crate::{
    crew::{Post, Workload},
    sizes::Mix,
    subject::Source,
    trace::{Live, Trace},
};
use hostmem_bench::clock::CpuTime;

/// What a step does with one of the live blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Frees it and allocates another.
    Replace,
    /// Makes it as long as is drawn.
    Resize,
}

/// So many live blocks a thread, of which steps change one after the other.
pub struct Churn {
    change: Change,
    /// One a thread.
    traces: Vec<Trace>,
}

impl Churn {
    /// Draws what each of the threads does.
    pub fn new(change: Change, mix: Mix, count: usize, threads: usize, seed: u64) -> Self {
        let seeds = (seed..).take(threads);
        let traces = seeds.map(|seed| Trace::new(mix, count, seed)).collect();
        Self { change, traces }
    }
}

impl Workload for Churn {
    fn threads(&self) -> usize {
        self.traces.len()
    }

    fn serve<S: Source>(&self, source: &S, thread: usize, post: &Post) {
        let subject = source.subject();
        let mut live = Live::new(&self.traces[thread]);
        live.fill(&subject);
        post.each(|steps| {
            let start = CpuTime::now();
            match self.change {
                // SAFETY: all blocks came from this subject.
                Change::Replace => (0..steps).for_each(|_| unsafe { live.replace(&subject) }),
                // SAFETY: all blocks came from this subject.
                Change::Resize => (0..steps).for_each(|_| unsafe { live.resize(&subject) }),
            }
            start.elapsed()
        });
        // SAFETY: all blocks came from this subject.
        unsafe { live.clear(&subject) };
    }
}
