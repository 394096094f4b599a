//! Threads that come and go.

use crate::{
    crew::{Post, Workload},
    sizes::Mix,
    subject::Source,
    trace::{Live, Trace},
};
use hostmem_bench::clock::ProcessTime;
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, Scope, ScopedJoinHandle},
};

/// As in Larson's and Krishnan's benchmark of servers ("Memory allocation for long-running server
/// applications", ISMM 1998): a thread replaces blocks at random and ends, and another one goes on
/// with its blocks, which it did not allocate. Some such chains go on at the same time.
pub struct Larson {
    /// One a chain.
    traces: Vec<Trace>,
}

/// One chain's blocks. Not in a cache line that another chain writes to.
#[repr(align(128))]
struct Chain<'trace>(Live<'trace>);

/// Steps of a thread's life.
const LIFE: usize = 20_000;

impl Larson {
    /// Draws what each of the chains does.
    pub fn new(mix: Mix, count: usize, chains: usize, seed: u64) -> Self {
        let seeds = (seed..).take(chains);
        let traces = seeds.map(|seed| Trace::new(mix, count, seed)).collect();
        Self { traces }
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
        let chains = self.traces.iter().map(|trace| Chain(Live::new(trace)));
        let mut chains: Vec<_> = chains.collect();
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

/// Threads that allocate a little, free it, and end. A step starts one and ends the one that is
/// there longest: the same one, or, where some are alive together, another.
pub struct ThreadChurn {
    trace: Trace,
    /// Threads that are alive together.
    alive: usize,
}

/// Threads that belong together: enough that the clock's call is nothing.
const TOGETHER: usize = 32;

impl ThreadChurn {
    /// Draws what each thread does: it has `count` blocks as long as it lives, and `alive` live
    /// together.
    pub fn new(mix: Mix, count: usize, alive: usize, seed: u64) -> Self {
        Self {
            trace: Trace::new(mix, count, seed),
            alive,
        }
    }
}

/// A thread that has its blocks and waits for its end. It brings its table back.
struct Alive<'scope, 'trace> {
    thread: ScopedJoinHandle<'scope, Live<'trace>>,
    end: &'scope AtomicBool,
}

impl<'scope, 'trace> Alive<'scope, 'trace> {
    /// Starts a thread, which uses the table and ends by the flag.
    fn start<S: Source>(
        scope: &'scope Scope<'scope, '_>,
        source: &'scope S,
        mut live: Live<'trace>,
        end: &'scope AtomicBool,
    ) -> Self
    where
        'trace: 'scope,
    {
        let thread = scope.spawn(move || {
            let subject = source.subject();
            live.fill(&subject);
            while !end.swap(false, Ordering::Acquire) {
                thread::park();
            }
            // SAFETY: all blocks came from this subject.
            unsafe { live.clear(&subject) };
            live
        });
        Self { thread, end }
    }

    /// Has it end, and returns what the next one needs.
    fn end(self) -> (Live<'trace>, &'scope AtomicBool) {
        self.end.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let live = self.thread.join().expect("it does not panic");
        (live, self.end)
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
        let ends: Vec<_> = (0..self.alive).map(|_| AtomicBool::new(false)).collect();
        thread::scope(|scope| {
            let (last, others) = ends.split_last().expect("one thread at least");
            let start = |(live, end)| Alive::start(scope, source, live, end);
            let others = others
                .iter()
                .map(|end| start((Live::new(&self.trace), end)));
            let mut alive: VecDeque<_> = others.collect();
            let mut next = Some((Live::new(&self.trace), last));
            post.each(|steps| {
                let clock = ProcessTime::now();
                for _ in 0..steps {
                    alive.extend(next.take().map(start));
                    next = alive.pop_front().map(Alive::end);
                }
                clock.elapsed()
            });
            alive.into_iter().for_each(|thread| drop(thread.end()));
        });
    }
}
