//! The rows of the table: what must be reached.

use hostmem_bench::row::{Row, Target, Unit};

/// Every row, whatever was measured. `docs/PERFORMANCE.md` says what each one is.
pub static ROWS: &[Row] = &[
    ratio("map-1k-vs-bitset", "bitset", 1.0),
    ratio("map-1k-vs-vm-allocator", "vm-allocator", 1.0),
    ratio("map-1k-vs-rangemap", "rangemap", 1.0),
    ratio("map-10k-vs-bitset", "bitset", 1.0),
    ratio("map-10k-vs-vm-allocator", "vm-allocator", 1.0),
    ratio("map-10k-vs-rangemap", "rangemap", 1.0),
    value("map-100k", "rangemap", 150.0),
    ratio("map-100k-vs-bitset", "bitset", 1.0),
    ratio("map-100k-vs-vm-allocator", "vm-allocator", 1.0),
    ratio("map-100k-vs-rangemap", "rangemap", 1.0),
    value("map-1m", "rangemap", 300.0),
    ratio("map-1m-vs-bitset", "bitset", 1.0),
    ratio("map-1m-vs-vm-allocator", "vm-allocator", 1.0),
    ratio("map-1m-vs-rangemap", "rangemap", 1.0),
    ratio("growth", "ours-10k", 4.0),
    ratio("query-1k", "rangemap", 1.0),
    ratio("query-10k", "rangemap", 1.0),
    ratio("query-100k", "rangemap", 1.0),
    value("query-1m", "rangemap", 60.0),
    ratio("query-1m-chained", "rangemap", 1.0),
    ratio("edit-100k", "rangemap", 1.0),
    ratio("iterate-100k", "rangemap", 1.0),
    ratio("linux-64k", "mprotect+mmap", 1.3),
    ratio("linux-64k-vs-munmap", "mmap+munmap", 1.3),
    ratio("linux-64k-touched", "mprotect+mmap", 1.3),
    ratio("linux-64k-touched-vs-munmap", "mmap+munmap", 1.3),
    value("calls-per-pair", "pass-through", 2.0).unit(Unit::Calls),
    value("bytes-per-range", "rangemap", 16.78).unit(Unit::Bytes),
];

/// At most so many times what it is compared with.
const fn ratio(name: &'static str, peer: &'static str, most: f64) -> Row {
    Row::new(name, peer, Target::Ratio(most))
}

/// At most so much by itself.
const fn value(name: &'static str, peer: &'static str, most: f64) -> Row {
    Row::new(name, peer, Target::Value(most))
}
