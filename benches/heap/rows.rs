//! The rows of the table: what must be reached.
//!
//! A step of a churn frees one block and allocates another. What is compared with one heap behind a lock
//! (`talc`, `rlsf`, `dlmalloc`, `linked-list`) is a few workloads that they are made for: a single
//! thread, and live blocks that are few, since a step of `linked-list` looks at all holes and takes 25
//! microseconds for a million.

use hostmem_bench::row::{Row, Target, Unit};

/// Heaps that are made for any program: who is asked for everything.
pub const GENERAL: [&str; 6] = [
    "jemalloc", "mimalloc", "snmalloc", "rpmalloc", "ferroc", "malloc",
];

/// Makes the rows that compare a workload with each of its peers, and adds the rows of ours alone.
macro_rules! rows {
    ($($name:literal $most:literal: $($peer:literal)*;)* and $($row:expr,)*) => {
        &[
            $($(Row::new(concat!($name, "-vs-", $peer), $peer, Target::Ratio($most)),)*)*
            $($row,)*
        ]
    };
}

/// Every row, whatever was measured.
pub static ROWS: &[Row] = rows! {
    "churn-p1-100" 1.05: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc" "talc" "rlsf" "dlmalloc" "linked-list";
    "churn-p1-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc" "talc" "rlsf" "dlmalloc" "linked-list";
    "churn-p1-1m" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "churn-p2-100" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc" "talc" "rlsf" "dlmalloc" "linked-list";
    "churn-p2-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc" "talc" "rlsf" "dlmalloc" "linked-list";
    "churn-p2-1m" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "churn-p3-100" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "churn-p3-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "churn-p3-1m" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "realloc-p1-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "realloc-p1-1m" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "realloc-p3-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "realloc-p3-1m" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "growth-8m" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc";
    "growth-8m" 1.5: "malloc";
    "growth-64m" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc";
    "growth-64m" 1.5: "malloc";
    "lifo-p1-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "fifo-p1-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "fifo-p1-1k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "shuffled-p1-1k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "two-threads-fifo-p1-1k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "two-threads-shuffled-p1-1k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "two-threads-p1" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "two-threads-p2" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "cross-thread-p1" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "cross-thread-p2" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "larson-1" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "larson" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "larson-8" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "thread-churn" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "thread-4-blocks" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "thread-4-blocks-of-500" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "blocks-3m" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "blocks-5m-to-25m" 1.1: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "malloc";
    "payload-64k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "latency-p1-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    "latency-p3-10k" 1.0: "jemalloc" "mimalloc" "snmalloc" "rpmalloc" "ferroc" "malloc";
    and
    extra("local-churn-p1-100"),
    extra("local-churn-p1-10k"),
    extra("local-churn-p2-100"),
    extra("local-churn-p2-10k"),
    extra("local-churn-p3-100"),
    extra("local-churn-p3-10k"),
    extra("unchecked-churn-p1-100"),
    extra("unchecked-churn-p1-10k"),
    extra("unchecked-churn-p2-100"),
    extra("unchecked-churn-p2-10k"),
    extra("unchecked-churn-p3-100"),
    extra("unchecked-churn-p3-10k"),
    extra("canaries-churn-p1-100"),
    extra("canaries-churn-p1-10k"),
    extra("canaries-churn-p2-10k"),
    extra("canaries-churn-p3-10k"),
    extra("full-churn-p1-100"),
    extra("full-churn-p1-10k"),
    extra("full-churn-p2-10k"),
    extra("full-churn-p3-10k"),
    value("owns-owned", 1.0),
    value("owns-foreign", 1.0),
    value("block-of", 5.0),
    value("large-in-1-segment", 300.0),
    value("large-in-400-segments", 400.0),
    value("short-heap", 300_000.0),
    held("resident-fill", 1.07, Unit::Times),
    held("resident-churn", 1.08, Unit::Times),
    held("resident-survivors", 40.0, Unit::Megabytes),
    held("resident-freed", 8.0, Unit::Megabytes),
    held("drift", 1.5, Unit::Times),
    held("thread-resident", 4096.0, Unit::Bytes),
    held("thread-addresses", 1048576.0, Unit::Bytes),
    value("metadata", 1.5).unit(Unit::Percent),
};

/// Ours by a thread's handle, or without checks, beside ours as programs have it.
const fn extra(name: &'static str) -> Row {
    Row::new(name, "global", Target::Ratio(1.0))
}

/// At most so much; no peer has such a query, or such a number.
const fn value(name: &'static str, most: f64) -> Row {
    Row::new(name, "none", Target::Value(most))
}

/// At most so much; the peer is told for comparison, and the others in notes.
const fn held(name: &'static str, most: f64, unit: Unit) -> Row {
    Row::new(name, "jemalloc", Target::Value(most)).unit(unit)
}
