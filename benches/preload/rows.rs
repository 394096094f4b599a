//! The rows of the table: what must be reached.

use hostmem_bench::row::{Row, Target, Unit};

/// Whom ours is compared with.
pub const PEERS: [&str; 3] = ["mimalloc", "jemalloc", "glibc"];

/// What is measured of a program: the name of a row, and whom it is compared with.
pub struct Names {
    /// CPU time, beside each of [`PEERS`].
    pub cpu: [&'static str; 3],
    /// Peak resident memory, beside the leanest of those that are quick.
    pub peak: &'static str,
}

/// Makes the rows of programs, which are named by their own names.
macro_rules! rows {
    ($($name:literal $cpu:literal;)* and $($row:expr,)*) => {
        /// Every row, whatever was measured. `docs/PERFORMANCE.md` says what each one is.
        pub static ROWS: &[Row] = &[
            $(
                cpu(concat!($name, "-vs-mimalloc"), "mimalloc", $cpu),
                cpu(concat!($name, "-vs-jemalloc"), "jemalloc", $cpu),
                cpu(concat!($name, "-vs-glibc"), "glibc", $cpu),
                Row::new(concat!($name, "-peak"), "leanest", Target::Ratio(1.05))
                    .unit(Unit::Megabytes),
            )*
            $($row,)*
        ];

        /// Returns the rows of a program.
        pub fn names(program: &str) -> Option<Names> {
            match program {
                $($name => Some(Names {
                    cpu: [
                        concat!($name, "-vs-mimalloc"),
                        concat!($name, "-vs-jemalloc"),
                        concat!($name, "-vs-glibc"),
                    ],
                    peak: concat!($name, "-peak"),
                }),)*
                _ => None,
            }
        }
    };
}

/// At most so many times the CPU time of a peer.
const fn cpu(name: &'static str, peer: &'static str, most: f64) -> Row {
    Row::new(name, peer, Target::Ratio(most)).unit(Unit::Milliseconds)
}

rows! {
    "larson" 1.0;
    "cross" 1.0;
    "batches" 1.0;
    "aligned" 1.0;
    "bignum" 1.0;
    "strings" 1.0;
    "large" 1.0;
    "pipeline" 1.0;
    "python" 1.02;
    "gcc" 1.02;
    "clang" 1.02;
    "perl" 1.02;
    "sqlite" 1.02;
    and
    Row::new("pair-preloaded-vs-linked", "linked", Target::Ratio(1.1)),
    Row::new("pair-beyond-global-heap", "global-heap", Target::Value(2.0)),
    Row::new("known-allocation", "none", Target::Value(2.0)),
    Row::new("block-of", "none", Target::Value(7.0)),
}
