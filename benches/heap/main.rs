//! Measures the heap beside its peers.
//!
//! ```text
//! cargo bench -p hostmem-bench --bench heap -- --quick
//! (cd benches/heap && cargo run --release -- --quick)    # the same
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `rows` | the table: what must be reached |
//! | `sizes`, `trace` | what is asked for, and the live blocks |
//! | `subject`, `peers` | ours and the C library's heap, and those that are crates |
//! | `crew`, `pin` | the threads that do a workload on a subject, and where they run |
//! | `churn`, `batch`, `growth`, `threads`, `timed` | what is asked of every subject alike |
//! | `query` | what is asked of ours alone |
//! | `segments` | heaps of many segments, and short ones |
//! | `child` | processes that look at one subject each |
//! | `memory`, `drift` | how much memory a subject holds, in such a process |
//! | `experiments` | which workloads make which rows |

mod batch;
mod child;
mod churn;
mod crew;
mod drift;
mod experiments;
mod growth;
mod memory;
#[cfg(feature = "peers")]
mod peers;
#[cfg(not(feature = "peers"))]
#[path = "peers_absent.rs"]
mod peers;
mod pin;
mod query;
mod rows;
mod segments;
mod sizes;
mod subject;
mod threads;
mod timed;
mod trace;

use hostmem_bench::program::Program;
use std::process::ExitCode;

/// Says what is not as it should be: `.cargo/config.toml` has the flag, which is read only by a
/// cargo that runs in this folder.
fn describe() {
    let flags = option_env!("CXXFLAGS").unwrap_or_default();
    if cfg!(feature = "peers") && !flags.contains("-DNDEBUG") {
        println!("note: snmalloc was built with its assertions: run cargo in benches/heap");
    }
    peers::describe();
}

fn main() -> ExitCode {
    if child::be_a_child() {
        return ExitCode::SUCCESS;
    }
    let program = Program {
        name: "heap",
        rows: rows::ROWS,
        describe,
        count: experiments::count,
        run_all: experiments::run_all,
    };
    program.main()
}
