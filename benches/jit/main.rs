//! Measures the JIT allocator beside its peers.
//!
//! ```text
//! cargo bench -p hostmem-bench --bench jit -- --quick
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `rows` | the table: what must be reached |
//! | `ours` | all contact with the allocator's interface |
//! | `trace`, `workloads` | what is asked of every subject alike |
//! | `experiments` | which workloads make which rows |
//! | `count` | one workload, for a profiler |

mod count;
mod experiments;
mod ours;
mod rows;
mod trace;
mod workloads;

use experiments::Setting;
use hostmem_bench::{arguments::Arguments, asmjit::AsmJit, lane::Plan, row::Table};
use rows::ROWS;
use std::{
    error::Error,
    panic,
    process::{ExitCode, abort},
};

fn main() -> ExitCode {
    abort_on_panic();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jit: {error}");
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
    describe(&asked);
    let mut table = Table::new(ROWS, asked.only);
    let result = experiments::run_all(setting, &mut table);
    print!("{table}");
    Ok(result?)
}

/// Notes what a reader of the numbers has to know.
fn describe(asked: &Arguments) {
    asked.describe();
    match AsmJit::version() {
        Some(version) => println!("note: asmjit {version:#08x}, as 0xMMmmpp"),
        None => println!("note: asmjit was not found when this was built"),
    }
}

/// A worker that dies would leave the other one waiting at their barrier.
fn abort_on_panic() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        say(info);
        abort();
    }));
}
