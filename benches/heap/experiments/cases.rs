//! The workloads with their sizes, and which rows they have.

use crate::{
    batch::{Batches, Order},
    churn::{Change, Churn},
    crew::Workload,
    growth::{Few, Growth},
    rows::ROWS,
    sizes::Mix,
    threads::{Larson, ThreadChurn},
    timed::Timed,
};

/// What is done: a workload, but for its seed.
#[derive(Clone, Copy)]
enum What {
    /// With the number of threads, as batches have it.
    Churn(Change, usize),
    Batches(Order, usize),
    Growth,
    /// With the number of threads, each of which starts the one that goes on for it.
    Larson(usize),
    /// With the number of threads that are alive.
    ThreadChurn(usize),
    /// With the least number of live blocks.
    Few(usize),
    Latency,
    /// With the bytes of payload.
    Payload(usize),
}

/// A workload with its sizes and live blocks: its rows' names begin with this one.
pub(super) struct Case(pub(super) &'static str, What, Mix, pub(super) usize);

const REPLACE: What = What::Churn(Change::Replace, 1);
const RESIZE: What = What::Churn(Change::Resize, 1);
const TWO: What = What::Churn(Change::Replace, 2);
const ELSEWHERE: What = What::Batches(Order::Elsewhere, 2);

const fn batches(order: Order) -> What {
    What::Batches(order, 1)
}

const fn two_threads(order: Order) -> What {
    What::Batches(order, 2)
}

pub(super) const CASES: [Case; 36] = [
    Case("churn-p1-100", REPLACE, Mix::P1, 100),
    Case("churn-p1-10k", REPLACE, Mix::P1, 10_000),
    Case("churn-p1-1m", REPLACE, Mix::P1, 1_000_000),
    Case("churn-p2-100", REPLACE, Mix::P2, 100),
    Case("churn-p2-10k", REPLACE, Mix::P2, 10_000),
    Case("churn-p2-1m", REPLACE, Mix::P2, 1_000_000),
    Case("churn-p3-100", REPLACE, Mix::P3, 100),
    Case("churn-p3-10k", REPLACE, Mix::P3, 10_000),
    Case("churn-p3-1m", REPLACE, Mix::P3, 1_000_000),
    Case("realloc-p1-10k", RESIZE, Mix::P1, 10_000),
    Case("realloc-p1-1m", RESIZE, Mix::P1, 1_000_000),
    Case("realloc-p3-10k", RESIZE, Mix::P3, 10_000),
    Case("realloc-p3-1m", RESIZE, Mix::P3, 1_000_000),
    Case(
        "growth-8m",
        What::Growth,
        Mix::Exactly(100),
        (8 << 20) / 100,
    ),
    Case("growth-64m", What::Growth, Mix::Exactly(64 << 10), 1024),
    Case("lifo-p1-10k", batches(Order::Lifo), Mix::P1, 10_000),
    Case("fifo-p1-10k", batches(Order::Fifo), Mix::P1, 10_000),
    Case("fifo-p1-1k", batches(Order::Fifo), Mix::P1, 1_000),
    Case("shuffled-p1-1k", batches(Order::Shuffled), Mix::P1, 1_000),
    Case(
        "two-threads-fifo-p1-1k",
        two_threads(Order::Fifo),
        Mix::P1,
        1_000,
    ),
    Case(
        "two-threads-shuffled-p1-1k",
        two_threads(Order::Shuffled),
        Mix::P1,
        1_000,
    ),
    Case("two-threads-p1", TWO, Mix::P1, 10_000),
    Case("two-threads-p2", TWO, Mix::P2, 10_000),
    Case("cross-thread-p1", ELSEWHERE, Mix::P1, 2_000),
    Case("cross-thread-p2", ELSEWHERE, Mix::P2, 2_000),
    Case("larson-1", What::Larson(1), Mix::P1, 10_000),
    Case("larson", What::Larson(2), Mix::P1, 10_000),
    Case("larson-8", What::Larson(8), Mix::P1, 10_000),
    Case("thread-churn", What::ThreadChurn(1), Mix::P1, 100),
    Case("thread-4-blocks", What::ThreadChurn(1), Mix::P1, 4),
    Case("thread-4-blocks-of-500", What::ThreadChurn(500), Mix::P1, 4),
    Case("blocks-3m", REPLACE, Mix::Exactly(3 << 20), 8),
    Case("blocks-5m-to-25m", What::Few(20), Mix::Large, 30),
    Case("payload-64k", What::Payload(64 << 10), Mix::P1, 10_000),
    Case("latency-p1-10k", What::Latency, Mix::P1, 10_000),
    Case("latency-p3-10k", What::Latency, Mix::P3, 10_000),
];

/// Peers that are compared with at a time, at most: as many as there are, or, where all have
/// gigabytes or hundreds of threads, two.
const TOGETHER: usize = 16;
const TOGETHER_LARGE: usize = 2;

impl Case {
    pub(super) fn row(&self, peer: &str) -> String {
        format!("{}-vs-{peer}", self.0)
    }

    /// Returns those of the peers of the table that have such a row.
    pub(super) fn peers(&self) -> Vec<&'static str> {
        let prefix = self.row("");
        let of = |name: &'static str| name.strip_prefix(prefix.as_str());
        ROWS.iter().filter_map(|row| of(row.name)).collect()
    }

    /// Hands the workload to who can use any.
    pub(super) fn with<U: User>(&self, seed: u64, user: U) -> U::Result {
        let Self(_, what, mix, count) = *self;
        match what {
            What::Churn(change, threads) => {
                user.take(&Churn::new(change, mix, count, threads, seed))
            }
            What::Batches(order, threads) => {
                user.take(&Batches::new(order, mix, count, threads, seed))
            }
            What::Growth => user.take(&Growth::new(mix, count, seed)),
            What::Larson(chains) => user.take(&Larson::new(mix, count, chains, seed)),
            What::ThreadChurn(alive) => user.take(&ThreadChurn::new(mix, count, alive, seed)),
            What::Few(least) => user.take(&Few::new(mix, least, count, seed)),
            What::Latency => user.take(&Timed::latency(mix, count, seed)),
            What::Payload(bytes) => user.take(&Timed::payload(mix, count, bytes, seed)),
        }
    }

    /// Says whether the table has a row of ours in such a guise.
    pub(super) fn has(&self, guise: &str) -> bool {
        let name = self.guise(guise);
        ROWS.iter().any(|row| row.name == name)
    }

    pub(super) fn guise(&self, guise: &str) -> String {
        format!("{guise}-{}", self.0)
    }

    /// Returns with how many peers at a time ours is compared.
    pub(super) const fn together(&self) -> usize {
        match self {
            Self(_, _, Mix::P2, 1_000_000..) | Self(_, What::Few(_), ..) => TOGETHER_LARGE,
            Self(_, What::ThreadChurn(100..), ..) => TOGETHER_LARGE,
            _ => TOGETHER,
        }
    }
}

/// Who can use any workload.
pub(super) trait User {
    type Result;
    fn take<W: Workload>(self, workload: &W) -> Self::Result;
}
