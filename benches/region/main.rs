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

use experiments::Setting;
use hostmem_bench::{arguments::Arguments, lane::Plan, row::Table};
use rows::ROWS;
use std::{error::Error, process::ExitCode};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("region: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let asked = Arguments::from_command_line()?;
    if asked.list {
        ROWS.iter().for_each(|row| println!("{}", row.name));
        return Ok(());
    }
    if let Some(only) = &asked.only
        && !ROWS.iter().any(|row| row.name == only)
    {
        return Err(format!("there is no row {only}").into());
    }
    let setting = Setting {
        plan: if asked.quick { Plan::QUICK } else { Plan::FULL },
        seed: asked.seed,
    };
    match (&asked.only, asked.steps) {
        (Some(row), Some(steps)) if count::count(&setting, row, steps)? => Ok(()),
        (Some(row), Some(_)) => Err(format!("{row} has no steps to count").into()),
        _ => measure(&setting, asked),
    }
}

/// Prints the table, whole even where the host gave out before its end.
fn measure(setting: &Setting, asked: Arguments) -> Result<(), Box<dyn Error>> {
    asked.describe();
    let mut table = Table::new(ROWS, asked.only);
    let result = experiments::run_all(setting, &mut table);
    print!("{table}");
    result
}
