//! Measures the region allocator and the range map beside their peers, and beside the bare calls of
//! the kernel.
//!
//! ```text
//! cargo bench -p hostmem-bench --bench region -- --quick
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `rows` | the table: what must be reached |
//! | `space`, `trace`, `workloads` | what is asked of every subject alike |
//! | `ours` | contact with the allocator's interface, on a provider that does nothing |
//! | `bitset`, `crates` | the peers |
//! | `experiments` | which workloads make which rows |
//! | `count` | one workload, for a profiler |

mod bitset;
mod count;
#[cfg(feature = "peers")]
mod crates;
#[cfg(not(feature = "peers"))]
#[path = "crates_absent.rs"]
mod crates;
mod experiments;
mod ours;
mod rows;
mod space;
mod trace;
mod workloads;

use hostmem_bench::program::Program;
use std::process::ExitCode;

fn main() -> ExitCode {
    let program = Program {
        name: "region",
        rows: rows::ROWS,
        describe: || (),
        count: count::count,
        run_all: experiments::run_all,
    };
    program.main()
}
