//! Measures the malloc override under whole programs, beside other mallocs.
//!
//! ```text
//! cargo bench -p hostmem-bench --bench preload -- --quick
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `rows` | the table: what must be reached |
//! | `mallocs` | ours and the peers, as libraries to preload |
//! | `programs` | what runs on them: `../c`, and programs of the system |
//! | `process` | a process: its CPU time and its peak of resident memory |
//! | `experiments` | which programs make which rows |

#[cfg(target_os = "linux")]
mod experiments;
#[cfg(target_os = "linux")]
mod mallocs;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod programs;
mod rows;

use hostmem_bench::program::Program;
use std::{io, process::ExitCode};

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    let (describe, run_all): (fn(), _) = (mallocs::describe, experiments::run_all);
    #[cfg(not(target_os = "linux"))]
    let (describe, run_all): (fn(), fn(&_, &mut _) -> _) = (|| (), |_, _| Ok(()));
    let program = Program::<io::Error> {
        name: "preload",
        rows: rows::ROWS,
        describe,
        count: |_, _, _| Ok(false),
        run_all,
    };
    program.main()
}
