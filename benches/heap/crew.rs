//! The threads that do a workload on one subject.
//!
//! ```text
//!   main thread           a crew: one lane of a row
//!   ┌─────────┐  steps   ┌──────────┐  blocks  ┌──────────┐
//!   │  lanes  │ ───────► │ thread 0 │ ───────► │ thread 1 │ ──┐
//!   │ by turns│ ◄─────── │          │ ◄─┐      │          │   │
//!   └─────────┘ CPU time └──────────┘   └──────┴──────────┘◄──┘
//! ```
//!
//! Every lane has threads of its own, as long as it lives: what a heap keeps for a thread is the lane's.
//! They wait while another lane has its turn. The first thread of each crew stays on the same CPU, and so do
//! the second ones.

use crate::{pin::stay_on, subject::Source, trace::Block};
use hostmem_bench::lane::Lane;
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::Scope,
    time::Duration,
};

/// What all subjects are asked alike.
pub trait Workload: Sync {
    /// Returns how many threads do it together.
    fn threads(&self) -> usize {
        1
    }

    /// Says whether the threads start others, which run wherever they like.
    fn starts_threads(&self) -> bool {
        false
    }

    /// Returns how many steps belong together; `None` where that is all the same.
    fn batch(&self) -> Option<usize> {
        None
    }

    /// Does what one thread of a crew does: allocates what it starts with, does steps as the post says,
    /// and frees what is left.
    fn serve<S: Source>(&self, source: &S, thread: usize, post: &Post);
}

/// What a thread of a crew hears, and what it says.
pub struct Post {
    orders: Receiver<usize>,
    reports: Sender<Duration>,
    /// To the next thread of the crew, and from the one before.
    pub to_next: Sender<Vec<Block>>,
    pub from_last: Receiver<Vec<Block>>,
}

impl Post {
    /// Does as many steps as is ordered, as often as it is; `steps` returns the time that they took.
    pub fn each(&self, mut steps: impl FnMut(usize) -> Duration) {
        for count in &self.orders {
            if self.reports.send(steps(count)).is_err() {
                return;
            }
        }
    }
}

/// Threads that do a workload on a subject.
pub struct Crew {
    name: &'static str,
    batch: Option<usize>,
    orders: Vec<Sender<usize>>,
    reports: Receiver<Duration>,
}

impl Crew {
    /// Starts the threads, which end when the crew is dropped.
    pub fn new<'scope, S: Source, W: Workload>(
        scope: &'scope Scope<'scope, '_>,
        source: &'scope S,
        workload: &'scope W,
    ) -> Self {
        let (report, reports) = channel();
        let threads = workload.threads();
        let (to, from): (Vec<_>, Vec<_>) = (0..threads).map(|_| channel()).unzip();
        let mut orders = Vec::new();
        for (thread, from_last) in from.into_iter().enumerate() {
            let (order, receiver) = channel();
            let post = Post {
                orders: receiver,
                reports: report.clone(),
                to_next: to[(thread + 1) % threads].clone(),
                from_last,
            };
            orders.push(order);
            scope.spawn(move || {
                if !workload.starts_threads() {
                    stay_on(thread);
                }
                workload.serve(source, thread, &post);
            });
        }
        Self {
            name: S::NAME,
            batch: workload.batch(),
            orders,
            reports,
        }
    }
}

impl Lane for Crew {
    fn name(&self) -> &'static str {
        self.name
    }

    /// Each thread does all the steps; what they took is what they took a thread.
    fn run(&mut self, steps: usize) -> Duration {
        for order in &self.orders {
            order.send(steps).expect("threads serve until orders end");
        }
        let reports = self.orders.iter().map(|_| self.reports.recv());
        let total: Duration = reports.map(|time| time.expect("a thread reports")).sum();
        total / u32::try_from(self.orders.len()).expect("threads are few")
    }

    fn batch(&self) -> Option<usize> {
        self.batch
    }
}
