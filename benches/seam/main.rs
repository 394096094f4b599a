//! Measures what lies below the allocators: locks, arenas, purging, and what a fresh allocator
//! costs.
//!
//! ```text
//! cargo bench -p hostmem-bench --bench seam -- --quick
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `rows` | the table: what must be reached |
//! | `experiments` | which workloads make which rows |
//! | `locks` | locks that two threads want, and that one wants |
//! | `pieces` | arenas with holes, purging, allocators that are made and dropped |
//! | `fresh` | processes of their own: their system calls, addresses and memory |

mod experiments;
mod fresh;
mod locks;
mod pieces;
mod rows;

use hostmem_bench::program::Program;
use std::process::ExitCode;

fn main() -> ExitCode {
    if fresh::be_a_child() {
        return ExitCode::SUCCESS;
    }
    let program = Program {
        name: "seam",
        rows: rows::ROWS,
        describe: || (),
        count: pieces::count,
        run_all: experiments::run_all,
    };
    program.main()
}
