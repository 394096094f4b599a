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
//! Every lane has threads of its own, as long as it lives: what a heap keeps for a thread is the
//! lane's. They wait while another lane has its turn. The first thread of each crew stays on the
//! same CPU, and so do the second ones.

use crate::{
    pin::stay_on,
    subject::{Nothing, Source},
    trace::Block,
};
use hostmem_bench::lane::Lane;
use std::{
    hint::black_box,
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

    /// Does what one thread of a crew does: allocates what it starts with, does steps as the post
    /// says, and frees what is left.
    fn serve<S: Source>(&self, source: &S, thread: usize, post: &Post);
}

/// So many steps.
#[derive(Clone, Copy)]
struct Order {
    steps: usize,
    /// Whether a profiler counts them.
    counted: bool,
}

/// What a thread of a crew hears, and what it says.
pub struct Post {
    orders: Receiver<Order>,
    reports: Sender<Duration>,
    /// To the next thread of the crew, and from the one before.
    pub to_next: Sender<Vec<Block>>,
    pub from_last: Receiver<Vec<Block>>,
    /// Whether there is no heap, so that all that is counted is the harness.
    is_harness: bool,
}

impl Post {
    /// Does as many steps as is ordered, as often as it is; `steps` returns the time that they
    /// took.
    pub fn each(&self, mut steps: impl FnMut(usize) -> Duration) {
        for order in &self.orders {
            let took = match (order.counted, self.is_harness) {
                (false, _) => steps(order.steps),
                (true, false) => counted_steps(&mut steps, order.steps),
                (true, true) => harness_steps(&mut steps, order.steps),
            };
            if self.reports.send(took).is_err() {
                return;
            }
        }
    }
}

/// Does steps. Profilers find this function by its name.
#[inline(never)]
fn counted_steps(steps: &mut impl FnMut(usize) -> Duration, count: usize) -> Duration {
    steps(count)
}

/// Does steps without a heap. Profilers find this function by its name too, as long as it differs
/// from the other: functions that are the same become one.
#[inline(never)]
fn harness_steps(steps: &mut impl FnMut(usize) -> Duration, count: usize) -> Duration {
    steps(black_box(count))
}

/// Threads that do a workload on a subject.
pub struct Crew {
    name: &'static str,
    batch: Option<usize>,
    orders: Vec<Sender<Order>>,
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
                is_harness: S::NAME == Nothing::NAME,
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

impl Crew {
    /// Does so many steps, or a few more where they belong together, and then as many that
    /// profilers count.
    pub fn count(&self, steps: usize) {
        let steps = steps.next_multiple_of(self.batch.unwrap_or(1));
        for counted in [false, true] {
            self.order(Order { steps, counted });
        }
        println!("counted {steps} steps of {}", self.name);
    }

    /// Has each thread do all the steps. What they took is what they took a thread.
    fn order(&self, order: Order) -> Duration {
        for thread in &self.orders {
            thread.send(order).expect("threads serve until orders end");
        }
        let reports = self.orders.iter().map(|_| self.reports.recv());
        let total: Duration = reports.map(|time| time.expect("a thread reports")).sum();
        total / u32::try_from(self.orders.len()).expect("threads are few")
    }
}

impl Lane for Crew {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, steps: usize) -> Duration {
        self.order(Order {
            steps,
            counted: false,
        })
    }

    fn batch(&self) -> Option<usize> {
        self.batch
    }
}
