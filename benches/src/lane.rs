//! Who is measured, and how.
//!
//! Lanes run in turns within one process: what disturbs the machine disturbs all of them. A round
//! gives one number a lane, nanoseconds a step; what counts is the median of the rounds.

use std::time::{Duration, Instant};

/// The time of a chunk of steps beside which reading the clock is nothing.
const CHUNK: Duration = Duration::from_millis(1);

/// Steps of the first chunk, while nobody knows what one costs: some peers take milliseconds each.
const FIRST_CHUNK: usize = 8;

/// A round is preceded by this part of it, which is not measured.
const PRELUDE: u32 = 8;

/// Something that is measured in steps.
pub trait Lane {
    /// What notes call it.
    fn name(&self) -> &'static str;

    /// Does `steps` steps and returns the CPU time that they took, without what they needed beside
    /// them.
    fn run(&mut self, steps: usize) -> Duration;

    /// Returns how many steps belong together; `None` where that is all the same.
    fn batch(&self) -> Option<usize> {
        None
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds, of which the median counts.
    pub rounds: usize,
    /// Steps of a round, if they take no longer than `limit`.
    pub steps: usize,
    /// The time on the wall after which a round ends, with however many steps.
    pub limit: Duration,
    /// The time on the wall after which warming up ends.
    pub warm_limit: Duration,
    /// Warming up that has no limit, as two must do the same, is divided by this.
    pub haste: usize,
}

impl Plan {
    /// Seconds for all rows: for continuous integration, and for a first look.
    pub const QUICK: Self = Self {
        rounds: 5,
        steps: 1_000_000,
        limit: Duration::from_millis(40),
        warm_limit: Duration::from_secs(4),
        haste: 8,
    };

    /// Minutes for all rows.
    pub const FULL: Self = Self {
        rounds: 11,
        steps: 10_000_000,
        limit: Duration::from_millis(200),
        warm_limit: Duration::from_secs(60),
        haste: 1,
    };
}

/// What a lane did.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// The lane.
    pub name: &'static str,
    /// The median of the rounds, in nanoseconds a step.
    pub median: f64,
    /// The fastest round.
    pub least: f64,
    /// The slowest round.
    pub most: f64,
    /// Steps of all rounds.
    pub steps: usize,
}

impl Summary {
    /// Sums up rounds of `steps` steps in all, given in nanoseconds a step.
    ///
    /// # Panics
    ///
    /// If there was no round.
    #[must_use]
    pub fn new(name: &'static str, mut rounds: Vec<f64>, steps: usize) -> Self {
        assert!(!rounds.is_empty(), "{name} ran no round");
        rounds.sort_by(f64::total_cmp);
        let middle = rounds.len() / 2;
        let median = match rounds.len() % 2 {
            0 => f64::midpoint(rounds[middle - 1], rounds[middle]),
            _ => rounds[middle],
        };
        Self {
            name,
            median,
            least: rounds[0],
            most: rounds[rounds.len() - 1],
            steps,
        }
    }

    /// Prints the summary as a note to `row`.
    pub fn note(&self, row: &str) {
        println!(
            "note: {row} {} {:.1}ns ({:.1} to {:.1}, {} steps)",
            self.name, self.median, self.least, self.most, self.steps
        );
    }
}

/// Nanoseconds a step.
#[must_use]
pub fn per_step(time: Duration, steps: usize) -> f64 {
    time.as_nanos() as f64 / steps as f64
}

/// Runs a lane for `steps` steps, or until `limit` is over on the wall; returns the steps done, in
/// whole batches and at least one, and the CPU time that they took.
pub fn advance(lane: &mut dyn Lane, steps: usize, limit: Duration) -> (usize, Duration) {
    let start = Instant::now();
    let (mut done, mut took) = (0, Duration::ZERO);
    let mut chunk = lane.batch().unwrap_or(FIRST_CHUNK);
    while done < steps && (done == 0 || start.elapsed() < limit) {
        if lane.batch().is_none() {
            chunk = chunk.min(steps - done);
        }
        let time = lane.run(chunk);
        took += time;
        done += chunk;
        if time < CHUNK && lane.batch().is_none() {
            chunk *= 2;
        }
    }
    (done, took)
}

/// Does `steps` steps of a lane to warm up, and then as many within `counted_steps`.
pub fn count(lane: &mut dyn Lane, steps: usize) {
    advance(lane, steps, Duration::MAX);
    counted_steps(lane, steps);
}

/// Runs the lane. Profilers find this function by its name.
#[inline(never)]
fn counted_steps(lane: &mut dyn Lane, steps: usize) {
    let (done, _) = advance(lane, steps, Duration::MAX);
    println!("counted {done} steps of {}", lane.name());
}

/// Tells apart what two calls of a step cost, by runs of `len` steps that return both, until
/// `steps` are done or `limit` is over on the wall. Returns the medians of the runs, so that a run
/// during which others ran does not count.
pub fn split(
    name: &'static str,
    steps: usize,
    limit: Duration,
    len: usize,
    mut one_run: impl FnMut() -> (f64, f64),
) -> (f64, f64) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while first.len() * len < steps && (first.is_empty() || start.elapsed() < limit) {
        let (a, b) = one_run();
        first.push(a);
        second.push(b);
    }
    let median = |runs| Summary::new(name, runs, steps).median;
    (median(first), median(second))
}

/// Warms a lane up, and says so where the time was over first.
pub fn warm_up(row: &str, lane: &mut dyn Lane, steps: usize, limit: Duration) {
    let (done, _) = advance(lane, steps, limit);
    if done < steps {
        let name = lane.name();
        println!("note: {row} {name} warmed up with {done} of {steps} steps, for want of time");
    }
}

/// Runs the rounds of all lanes, by turns, and sums them up in the lanes' order.
pub fn alternate(lanes: &mut [&mut dyn Lane], plan: &Plan) -> Vec<Summary> {
    let count = lanes.len();
    let mut rounds = vec![Vec::new(); count];
    let mut steps = vec![0; count];
    for round in 0..plan.rounds {
        // Another one goes first each time, so that none always runs in another's wake.
        for turn in 0..count {
            let at = (round + turn) % count;
            // The others threw out of the caches what this one needs: that is no part of a step.
            advance(
                lanes[at],
                plan.steps / PRELUDE as usize,
                plan.limit / PRELUDE,
            );
            let (done, took) = advance(lanes[at], plan.steps, plan.limit);
            rounds[at].push(per_step(took, done));
            steps[at] += done;
        }
    }
    let sums = lanes.iter().zip(rounds).zip(steps);
    sums.map(|((lane, rounds), steps)| Summary::new(lane.name(), rounds, steps))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{FIRST_CHUNK, Lane, Plan, Summary, advance, alternate};
    use std::time::Duration;

    struct Fixed {
        nanos: u64,
        batch: Option<usize>,
    }

    impl Fixed {
        const fn new(nanos: u64) -> Self {
            Self { nanos, batch: None }
        }
    }

    impl Lane for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }

        fn run(&mut self, steps: usize) -> Duration {
            assert!(self.batch.is_none_or(|batch| batch == steps));
            Duration::from_nanos(self.nanos * steps as u64)
        }

        fn batch(&self) -> Option<usize> {
            self.batch
        }
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Summary::new("odd", vec![9.0, 1.0, 2.0], 3).median, 2.0);
        assert_eq!(
            Summary::new("even", vec![9.0, 1.0, 2.0, 4.0], 4).median,
            3.0
        );
    }

    #[test]
    fn lanes_keep_their_own_numbers() {
        let (mut a, mut b) = (Fixed::new(3), Fixed::new(5));
        let summaries = alternate(&mut [&mut a, &mut b], &Plan::QUICK);
        assert_eq!(summaries[0].median, 3.0);
        assert_eq!(summaries[1].median, 5.0);
    }

    #[test]
    fn the_limit_ends_a_round_after_a_chunk() {
        let mut lane = Fixed::new(1);
        assert_eq!(advance(&mut lane, 1000, Duration::ZERO).0, FIRST_CHUNK);
        assert_eq!(advance(&mut lane, 1000, Duration::MAX).0, 1000);
    }

    #[test]
    fn batches_stay_whole() {
        let mut lane = Fixed {
            batch: Some(300),
            ..Fixed::new(1)
        };
        assert_eq!(
            advance(&mut lane, 1000, Duration::MAX),
            (1200, Duration::from_nanos(1200))
        );
    }
}
