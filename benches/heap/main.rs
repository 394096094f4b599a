//! Measures the heap beside its peers.
//!
//! ```text
//! cargo run --release --manifest-path benches/heap/Cargo.toml -- --quick
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `rows` | the table: what must be reached |
//! | `sizes` | what sizes are asked for |
//! | `subject`, `peers` | ours, the C library's, and the peers' heaps |
//! | `churn`, `query` | what is asked of every subject alike, and of ours alone |
//! | `segments` | heaps of many segments, and short ones |
//! | `experiments` | which workloads make which rows |

mod churn;
mod experiments;
#[cfg(feature = "peers")]
mod peers;
#[cfg(not(feature = "peers"))]
#[path = "peers_absent.rs"]
mod peers;
mod query;
mod rows;
mod segments;
mod sizes;
mod subject;

use hostmem_bench::program::Program;
use std::process::ExitCode;

fn main() -> ExitCode {
    let program = Program {
        name: "heap",
        rows: rows::ROWS,
        describe: || (),
        count: experiments::count,
        run_all: experiments::run_all,
    };
    program.main()
}
