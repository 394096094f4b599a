//! Two threads on one allocator, each with a live set of its own, beside one thread.

use super::churn::Churn;
use crate::trace::Trace;
use hostmem_bench::{
    lane::{Lane, Plan, Summary, advance, per_step, warm_up},
    subject::Subject,
};
use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// What the two workers share.
struct Turns<'a> {
    row: &'a str,
    plan: &'a Plan,
    barrier: Barrier,
    /// Steps of a turn; the first worker finds out how many fit.
    steps: AtomicUsize,
}

/// When a worker started and ended a turn, if it took part.
type Turn = Option<(Instant, Instant)>;

/// Measures nanoseconds a step of one thread, and of two together, by turns.
pub fn one_and_two<S: Subject>(
    row: &str,
    subject: &S,
    traces: &[Trace; 2],
    plan: &Plan,
) -> (Summary, Summary) {
    let turns = Turns {
        row,
        plan,
        barrier: Barrier::new(2),
        steps: AtomicUsize::new(0),
    };
    let [first, second] = thread::scope(|scope| {
        let workers = [0, 1].map(|me| {
            let (turns, trace) = (&turns, &traces[me]);
            scope.spawn(move || {
                let churn = Churn::new(subject, trace, turns.plan.warm_limit);
                work(turns, churn, me == 0)
            })
        });
        workers.map(|worker| worker.join().expect("a worker panicked"))
    });
    let steps = turns.steps.into_inner();
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for turn in first.iter().zip(&second) {
        match turn {
            (Some(only), None) => one.push(per_step(only.1 - only.0, steps)),
            (Some(a), Some(b)) => two.push(per_step(a.1.max(b.1) - a.0.min(b.0), 2 * steps)),
            (None, _) => {}
        }
    }
    let (ones, twos) = (one.len() * steps, two.len() * 2 * steps);
    (
        Summary::new("one-thread", one, ones),
        Summary::new("two-threads", two, twos),
    )
}

/// Warms up, then takes part in every second turn, or in all if `leads`.
fn work<S: Subject>(turns: &Turns<'_>, mut churn: Churn<'_, S>, leads: bool) -> Vec<Turn> {
    let plan = turns.plan;
    let live = churn.live();
    warm_up(turns.row, &mut churn, live, plan.warm_limit);
    turns.barrier.wait();
    if leads {
        let (done, _) = advance(&mut churn, plan.steps, plan.limit);
        turns.steps.store(done, Ordering::Relaxed);
    }
    let mut taken = Vec::new();
    for turn in 0..2 * plan.rounds {
        let takes_part = leads || turn % 2 == 1;
        turns.barrier.wait();
        taken.push(takes_part.then(|| {
            let steps = turns.steps.load(Ordering::Relaxed);
            let start = Instant::now();
            let _: Duration = churn.run(steps);
            (start, Instant::now())
        }));
        turns.barrier.wait();
    }
    taken
}
