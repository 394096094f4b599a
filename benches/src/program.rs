//! What the program of every benchmark does: reads the command line, and prints names, counts steps
//! for a profiler, or measures and prints the table.

use crate::{
    arguments::Arguments,
    lane::Plan,
    random::Random,
    row::{Row, Table},
};
use std::{error::Error, process::ExitCode, thread};

/// What an experiment needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// How long to measure.
    pub plan: Plan,
    /// The seed of all random numbers.
    pub seed: u64,
}

impl Setting {
    /// Returns the numbers of the seed.
    #[must_use]
    pub fn random(&self) -> Random {
        Random::new(self.seed)
    }
}

/// A benchmark: its parts that are not those of all.
#[derive(Clone, Copy, Debug)]
pub struct Program<E> {
    /// What it is called.
    pub name: &'static str,
    /// Its table.
    pub rows: &'static [Row],
    /// Prints what a reader of its numbers has to know, beside what all benchmarks print.
    pub describe: fn(),
    /// Does so many steps of the workload of a row, by [`count`](crate::lane::count); says whether
    /// the row has such a workload.
    pub count: fn(&Setting, &str, usize) -> Result<bool, E>,
    /// Measures the rows that the table wants.
    pub run_all: fn(&Setting, &mut Table) -> Result<(), E>,
}

impl<E: Into<Box<dyn Error>>> Program<E> {
    /// Does what the command line says.
    #[must_use]
    pub fn main(&self) -> ExitCode {
        match self.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    fn run(&self) -> Result<(), Box<dyn Error>> {
        let asked = Arguments::from_command_line()?;
        if asked.list {
            self.rows.iter().for_each(|row| println!("{}", row.name));
            return Ok(());
        }
        if let Some(only) = &asked.only
            && !self.rows.iter().any(|row| row.name == only)
        {
            return Err(format!("there is no row {only}").into());
        }
        let setting = Setting {
            plan: if asked.quick { Plan::QUICK } else { Plan::FULL },
            seed: asked.seed,
        };
        if let (Some(row), Some(steps)) = (&asked.only, asked.steps) {
            return if (self.count)(&setting, row, steps).map_err(Into::into)? {
                Ok(())
            } else {
                Err(format!("{row} has no steps to count").into())
            };
        }
        asked.describe();
        (self.describe)();
        if asked.second_thread {
            thread::spawn(sleep_until_the_end);
        }
        // Whole even where the host gave out before its end.
        let mut table = Table::new(self.rows, asked.only);
        let result = (self.run_all)(&setting, &mut table);
        print!("{table}");
        result.map_err(Into::into)
    }
}

fn sleep_until_the_end() {
    loop {
        thread::park();
    }
}
