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
mod sizes;
mod subject;

use experiments::Setting;
use hostmem_bench::{arguments::Arguments, lane::Plan, row::Table};
use rows::ROWS;
use std::{error::Error, process::ExitCode};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("heap: {error}");
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
        (Some(row), Some(steps)) if experiments::count(&setting, row, steps)? => Ok(()),
        (Some(row), Some(_)) => Err(format!("{row} has no steps to count").into()),
        _ => {
            asked.describe();
            let mut table = Table::new(ROWS, asked.only);
            let result = experiments::run_all(&setting, &mut table);
            print!("{table}");
            result
        }
    }
}
