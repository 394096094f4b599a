//! The rows of the table: what must be reached, and what should be.

use hostmem_bench::row::{Row, Target, Unit};

/// Every row, whatever was measured. `docs/PERFORMANCE.md` says what each one is.
pub static ROWS: &[Row] = &[
    ratio("churn-10k", "asmjit", 1.0 / 8.0).aim(60.0),
    ratio("churn-100k-small", "asmjit", 1.0 / 40.0).aim(100.0),
    ratio("churn-100k-large", "asmjit", 1.0 / 40.0).aim(100.0),
    ratio("churn-1m", "asmjit", 1.0 / 150.0).aim(300.0),
    ratio("growth", "ours-10k", 4.0),
    value("checkerboard", "asmjit", 1000.0),
    ratio("checkerboard-growth", "no-holes", 4.0),
    ratio("query-hit", "asmjit", 0.7).aim(25.0),
    ratio("query-few", "asmjit", 0.8),
    value("query-miss", "asmjit", 10.0),
    value("query-huge", "asmjit", 25.0),
    ratio("query-tagged", "query", 1.05),
    ratio("publish-single", "alloc+memcpy", 1.1),
    ratio("publish-batch", "alloc+memcpy", 1.2),
    ratio("range", "memcpy", 1.15),
    ratio("recycle-batch", "asmjit", 1.2),
    ratio("recycle-deferred", "asmjit", 1.2),
    value("recycle-now", "barrier", 60.0),
    ratio("shrink", "asmjit", 0.8).aim(40.0),
    ratio("near", "anywhere", 1.5),
    value("near-refused", "none", 100_000.0),
    ratio("release-many", "one-by-one", 0.5),
    value("iterate", "none", 10.0),
    value("reset-keep", "none", 200_000.0),
    value("refill", "none", 500.0),
    ratio("threads-100", "one-thread", 1.0 / 1.8),
    ratio("threads-10k", "one-thread", 1.0 / 1.8),
    value("metadata", "asmjit", 0.65).unit(Unit::Percent),
    ratio("waste-10k", "asmjit", 1.0).unit(Unit::Times),
    ratio("waste-100k-small", "asmjit", 1.0).unit(Unit::Times),
    ratio("waste-100k-large", "asmjit", 1.0).unit(Unit::Times),
];

/// At most so many times what it is compared with.
const fn ratio(name: &'static str, peer: &'static str, most: f64) -> Row {
    Row::new(name, peer, Target::Ratio(most))
}

/// At most so much by itself.
const fn value(name: &'static str, peer: &'static str, most: f64) -> Row {
    Row::new(name, peer, Target::Value(most))
}
