//! Threads that come and go.

use crate::{
    crew::{Post, Workload},
    sizes::Mix,
    subject::Source,
    trace::{Live, Trace},
};
use hostmem_bench::clock::ProcessTime;
use std::thread;

/// As in Larson's and Krishnan's benchmark of servers ("Memory allocation for long-running server
/// applications", ISMM 1998): a thread replaces blocks at random and ends, and another one goes on with
/// its blocks, which it did not allocate. Two such chains go on at the same time.
pub struct Larson {
    /// One a chain.
    traces: [Trace; 2],
}

/// One chain's blocks. Not in a cache line that the other chain writes to.
#[repr(align(128))]
struct Chain<'trace>(Live<'trace>);

/// Steps of a thread's life.
const LIFE: usize = 20_000;

impl Larson {
    /// Draws what both chains do.
    pub fn new(mix: Mix, count: usize, seed: u64) -> Self {
        Self {
            traces: [seed, seed.wrapping_add(1)].map(|seed| Trace::new(mix, count, seed)),
        }
    }
}

impl Workload for Larson {
    fn starts_threads(&self) -> bool {
        true
    }

    fn batch(&self) -> Option<usize> {
        Some(self.traces.len() * LIFE)
    }

    fn serve<S: Source>(&self, source: &S, _: usize, post: &Post) {
        let mut chains = self.traces.each_ref().map(|trace| Chain(Live::new(trace)));
        let subject = source.subject();
        chains.iter_mut().for_each(|chain| chain.0.fill(&subject));
        post.each(|steps| {
            let start = ProcessTime::now();
            for _ in 0..steps / (chains.len() * LIFE) {
                thread::scope(|scope| {
                    for Chain(live) in &mut chains {
                        scope.spawn(|| {
                            let subject = source.subject();
                            // SAFETY: all blocks came from subjects of this heap.
                            (0..LIFE).for_each(|_| unsafe { live.replace(&subject) });
                        });
                    }
                });
            }
            start.elapsed()
        });
        for Chain(live) in &mut chains {
            // SAFETY: all blocks came from subjects of this heap.
            unsafe { live.clear(&subject) };
        }
    }
}

/// Threads that allocate a little, free it, and end, one after the other. A step is such a thread.
pub struct ThreadChurn(Trace);

/// Threads that belong together: enough that the clock's call is nothing.
const TOGETHER: usize = 32;

impl ThreadChurn {
    /// Draws what each thread does: it has so many blocks.
    pub fn new(mix: Mix, count: usize, seed: u64) -> Self {
        Self(Trace::new(mix, count, seed))
    }
}

impl Workload for ThreadChurn {
    fn starts_threads(&self) -> bool {
        true
    }

    fn batch(&self) -> Option<usize> {
        Some(TOGETHER)
    }

    fn serve<S: Source>(&self, source: &S, _: usize, post: &Post) {
        let mut live = Live::new(&self.0);
        post.each(|steps| {
            let start = ProcessTime::now();
            for _ in 0..steps {
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let subject = source.subject();
                        live.fill(&subject);
                        // SAFETY: all blocks came from this subject.
                        unsafe { live.clear(&subject) };
                    });
                });
            }
            start.elapsed()
        });
    }
}
