//! What can be asked of a benchmark.

use std::{env, fmt, fs, thread};

/// The seed that is taken where none is given.
const SEED: u64 = 0x686f_7374_6d65_6d21;

/// How to ask.
pub const USAGE: &str = "\
usage: cargo bench -p hostmem-bench --bench NAME -- [--quick] [--seed N] [--only ROW]
                                              [--second-thread]
       ... -- --only ROW --ours --steps N    do N steps of that row's workload, and nothing else
       ... -- --list                         print the rows' names";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Less than a minute in all.
    pub quick: bool,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The only row that is wanted.
    pub only: Option<String>,
    /// No peers and no table: these many steps of ours, to be watched by a profiler.
    pub steps: Option<usize>,
    /// Print the rows' names, and no more.
    pub list: bool,
    /// Have another thread sleep meanwhile: glibc's locks are cheaper in a process that has one.
    pub second_thread: bool,
}

/// A command line that means nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct BadArgument(String);

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{USAGE}", self.0)
    }
}

impl std::error::Error for BadArgument {}

impl Arguments {
    /// Reads the process's command line.
    ///
    /// # Errors
    ///
    /// For what [`USAGE`] does not have.
    pub fn from_command_line() -> Result<Self, BadArgument> {
        Self::parse(env::args().skip(1))
    }

    /// Notes what a reader of the numbers has to know.
    pub fn describe(&self) {
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().filter(|load| !load.is_empty());
        println!("note: seed {:#x}, quick {}", self.seed, self.quick);
        if self.second_thread {
            println!("note: a second thread sleeps");
        }
        println!("note: {cores} cores, load {}", load.unwrap_or("unknown"));
    }

    fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, BadArgument> {
        let mut words = words.into_iter();
        let mut ours = false;
        let mut asked = Self {
            quick: false,
            seed: SEED,
            only: None,
            steps: None,
            list: false,
            second_thread: false,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => asked.quick = true,
                "--list" => asked.list = true,
                "--second-thread" => asked.second_thread = true,
                "--ours" => ours = true,
                "--only" => asked.only = Some(value(&word, words.next())?),
                "--seed" => asked.seed = value(&word, words.next())?,
                "--steps" => asked.steps = Some(value(&word, words.next())?),
                // Cargo says this to every benchmark.
                "--bench" => {}
                _ => return Err(BadArgument(format!("unknown argument {word}"))),
            }
        }
        if ours != asked.steps.is_some() || (ours && asked.only.is_none()) {
            let rule = "--ours and --steps go together, and need --only";
            return Err(BadArgument(rule.into()));
        }
        Ok(asked)
    }
}

fn value<T: std::str::FromStr>(word: &str, next: Option<String>) -> Result<T, BadArgument> {
    let next = next.ok_or_else(|| BadArgument(format!("{word} needs a value")))?;
    let bad = |_| BadArgument(format!("{word} {next} is no value"));
    next.parse().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::{Arguments, BadArgument, SEED};

    fn parse(line: &str) -> Result<Arguments, BadArgument> {
        Arguments::parse(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn everything_has_a_default() {
        let asked = parse("--bench").expect("cargo says so");
        assert!(!asked.quick && !asked.list && asked.only.is_none() && asked.steps.is_none());
        assert_eq!(asked.seed, SEED);
        assert!(!asked.second_thread && parse("--second-thread").is_ok_and(|a| a.second_thread));
    }

    #[test]
    fn one_workload_can_be_singled_out() {
        let asked = parse("--only a --ours --steps 7 --seed 3").expect("well formed");
        assert_eq!(
            (asked.only.as_deref(), asked.steps, asked.seed),
            (Some("a"), Some(7), 3)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--fast",
            "--seed",
            "--seed x",
            "--ours",
            "--steps 7",
            "--ours --steps 7",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
