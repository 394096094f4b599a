//! The rows of the table: what must be reached.

use hostmem_bench::row::{Row, Target, Unit};

/// Every row, whatever was measured. `docs/PERFORMANCE.md` says what each one is.
pub static ROWS: &[Row] = &[
    value("jit-first-calls", "asmjit", 12.0).unit(Unit::Calls),
    value("jit-later-calls", "asmjit", 9.0).unit(Unit::Calls),
    ratio("jit-make", "asmjit", 1.2),
    value("jit-ten-addresses", "asmjit", (512 << 10) as f64).unit(Unit::Bytes),
    value("jit-ten-resident", "asmjit", 8192.0).unit(Unit::Bytes),
    value("heap-100-addresses", "malloc", (16 << 20) as f64).unit(Unit::Bytes),
    value("heap-100-resident", "malloc", (128 << 10) as f64).unit(Unit::Bytes),
    value("heap-100-resident-locked", "malloc", (2 << 20) as f64).unit(Unit::Bytes),
    value("arena-beside-holes", "malloc", 50.0),
    ratio("lock-two-threads-vs-std", "std", 1.0 / 0.95),
    ratio("lock-two-threads-vs-parking-lot", "parking_lot", 1.0 / 0.95),
    value("lock-alone-beyond-spin", "std", 6.0),
    ratio("purge-64k", "madvise", 1.1),
];

/// At most so many times what it is compared with.
const fn ratio(name: &'static str, peer: &'static str, most: f64) -> Row {
    Row::new(name, peer, Target::Ratio(most))
}

/// At most so much by itself.
const fn value(name: &'static str, peer: &'static str, most: f64) -> Row {
    Row::new(name, peer, Target::Value(most))
}
