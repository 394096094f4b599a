//! The rows of the table: what must be reached.

use hostmem_bench::row::{Row, Target};

/// Every row, whatever was measured. A step of a churn frees one block and allocates another.
pub static ROWS: &[Row] = &[
    ratio("churn-p1-100-vs-jemalloc", "jemalloc", 0.95),
    ratio("churn-p1-100-vs-mimalloc", "mimalloc", 0.95),
    ratio("churn-p1-100-vs-malloc", "malloc", 0.95),
    ratio("churn-p1-10k-vs-jemalloc", "jemalloc", 0.95),
    ratio("churn-p1-10k-vs-mimalloc", "mimalloc", 0.95),
    ratio("churn-p1-10k-vs-malloc", "malloc", 0.95),
    ratio("churn-p1-1m-vs-jemalloc", "jemalloc", 1.0),
    ratio("churn-p1-1m-vs-mimalloc", "mimalloc", 1.0),
    ratio("churn-p1-1m-vs-malloc", "malloc", 1.0),
    ratio("churn-p2-100-vs-jemalloc", "jemalloc", 1.0),
    ratio("churn-p2-100-vs-mimalloc", "mimalloc", 1.0),
    ratio("churn-p2-100-vs-malloc", "malloc", 1.0),
    ratio("churn-p2-10k-vs-jemalloc", "jemalloc", 1.0),
    ratio("churn-p2-10k-vs-mimalloc", "mimalloc", 1.0),
    ratio("churn-p2-10k-vs-malloc", "malloc", 1.0),
    ratio("churn-p2-1m-vs-jemalloc", "jemalloc", 1.0),
    ratio("churn-p2-1m-vs-mimalloc", "mimalloc", 1.0),
    ratio("churn-p2-1m-vs-malloc", "malloc", 1.0),
    ratio("churn-p3-100-vs-jemalloc", "jemalloc", 0.95),
    ratio("churn-p3-100-vs-mimalloc", "mimalloc", 0.95),
    ratio("churn-p3-100-vs-malloc", "malloc", 0.95),
    ratio("churn-p3-10k-vs-jemalloc", "jemalloc", 0.95),
    ratio("churn-p3-10k-vs-mimalloc", "mimalloc", 0.95),
    ratio("churn-p3-10k-vs-malloc", "malloc", 0.95),
    ratio("churn-p3-1m-vs-jemalloc", "jemalloc", 1.0),
    ratio("churn-p3-1m-vs-mimalloc", "mimalloc", 1.0),
    ratio("churn-p3-1m-vs-malloc", "malloc", 1.0),
    value("owns-owned", 1.0),
    value("owns-foreign", 1.0),
    value("block-of", 5.0),
    ratio("full-p1-10k", "checked", 40.0),
    ratio("full-p2-10k", "checked", 60.0),
    ratio("full-p3-10k", "checked", 60.0),
    value("large-in-1-segment", 300.0),
    value("large-in-400-segments", 400.0),
    value("short-heap", 300_000.0),
];

/// At most so many times what it is compared with.
const fn ratio(name: &'static str, peer: &'static str, most: f64) -> Row {
    Row::new(name, peer, Target::Ratio(most))
}

/// At most so many nanoseconds; no peer has such a query.
const fn value(name: &'static str, most: f64) -> Row {
    Row::new(name, "none", Target::Value(most))
}
