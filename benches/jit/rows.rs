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
    value("query-hit", "asmjit", 25.0),
    value("query-miss", "asmjit", 10.0),
    value("query-huge", "asmjit", 25.0),
    ratio("publish-single", "alloc+memcpy", 1.3),
    ratio("publish-batch", "alloc+memcpy", 1.3),
    value("shrink", "asmjit", 40.0),
    ratio("threads-100", "one-thread", 1.0 / 1.6),
    ratio("threads-10k", "one-thread", 1.0 / 1.6),
    value("metadata", "asmjit", 1.0).unit(Unit::Percent),
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
