//! Measures `examples/emulator` beside qemu's user emulation, native code and its own interpreter,
//! by whole runs of its guests.
//!
//! ```text
//! cargo bench -p hostmem-bench --bench emulator -- --quick
//! ```
//!
//! A number is the CPU time of a process, start and end included, in nanoseconds; the median of
//! some rounds, in which all that is compared runs in turns. `qemu-riscv32` is looked for in the
//! path, and native programs are made of the guests' sources by `cc -O2`; what is not there is
//! absent. `HOSTMEM_STRANGERS` names the folder in which `examples/emulator/strangers/run.sh` has
//! built Lua and SQLite; without it their rows are skipped.

use hostmem_bench::{
    program::{Program, Setting},
    row::{Row, Table, Target},
};
use std::{
    env,
    error::Error,
    ffi::OsStr,
    io,
    path::{self, Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

type Failure = Box<dyn Error>;

/// Nanoseconds an instruction: 150 million a second.
const INTERPRETED: f64 = 1000.0 / 150.0;

const ROWS: &[Row] = &[
    Row::new("sieve-qemu", "qemu", Target::Ratio(1.0)),
    Row::new("sieve-native", "native", Target::Ratio(3.0)),
    Row::new("sieve-interpreter", "interpreter", Target::Ratio(1.0 / 6.0)),
    Row::new("sha256-qemu", "qemu", Target::Ratio(1.0)),
    Row::new("sha256-native", "native", Target::Ratio(3.0)),
    Row::new(
        "sha256-interpreter",
        "interpreter",
        Target::Ratio(1.0 / 15.0),
    ),
    Row::new("quicksort-qemu", "qemu", Target::Ratio(1.0)),
    Row::new("quicksort-native", "native", Target::Ratio(3.0)),
    Row::new("matrix-qemu", "qemu", Target::Ratio(1.0)),
    Row::new("matrix-native", "native", Target::Ratio(3.0)),
    Row::new("tree-qemu", "qemu", Target::Ratio(1.0)),
    Row::new("threads-qemu", "qemu", Target::Ratio(1.0)),
    Row::new("lua-qemu", "qemu", Target::Ratio(1.0)),
    Row::new("sqlite-qemu", "qemu", Target::Ratio(1.0)),
    Row::new(
        "interpreted-instruction",
        "none",
        Target::Value(INTERPRETED),
    ),
    Row::new("translated-instruction", "none", Target::Value(1000.0)),
    Row::new("start", "qemu", Target::Value(10_000_000.0)),
];

/// A guest, with arguments for a run of a second, and for a quick one.
struct Guest {
    name: &'static str,
    /// The name of a program that somebody else wrote.
    stranger: Option<&'static str>,
    full: &'static [&'static str],
    quick: &'static [&'static str],
}

const GUESTS: &[Guest] = &[
    Guest {
        name: "sieve",
        stranger: None,
        full: &["5000000", "5"],
        quick: &["1000000", "4"],
    },
    Guest {
        name: "sha256",
        stranger: None,
        full: &["400000"],
        quick: &["50000"],
    },
    Guest {
        name: "quicksort",
        stranger: None,
        full: &["2000000"],
        quick: &["300000"],
    },
    Guest {
        name: "matrix",
        stranger: None,
        full: &["60"],
        quick: &["10"],
    },
    Guest {
        name: "tree",
        stranger: None,
        full: &["2000"],
        quick: &["200"],
    },
    Guest {
        name: "threads",
        stranger: None,
        full: &["100000"],
        quick: &["20000"],
    },
    Guest {
        name: "lua",
        stranger: Some("lua"),
        full: &["test.lua"],
        quick: &["test.lua"],
    },
    Guest {
        name: "sqlite",
        stranger: Some("speedtest1"),
        full: &["--size", "50", "--memdb"],
        quick: &["--size", "5", "--memdb"],
    },
];

fn main() -> ExitCode {
    let program = Program {
        name: "emulator",
        rows: ROWS,
        describe: || (),
        count: |_: &Setting, _: &str, _| Ok::<_, Failure>(false),
        run_all,
    };
    program.main()
}

/// Where everything is.
struct Place {
    emulator: PathBuf,
    guests: PathBuf,
    /// Where other people's programs are.
    strangers: Option<PathBuf>,
    /// Where native programs go.
    built: PathBuf,
}

impl Place {
    fn find() -> Result<Self, Failure> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(&workspace).args(["build", "--release"]);
        cargo.args(["-p", "hostmem-emulator", "--example", "emulator"]);
        if !cargo.status()?.success() {
            return Err("the emulator cannot be built".into());
        }
        // This program lies in the folder of a profile, in `deps`.
        let own = env::current_exe()?;
        let folder = own.ancestors().nth(2).ok_or("no folder")?;
        Ok(Self {
            emulator: folder.join("examples/emulator"),
            guests: workspace.join("examples/emulator/guests"),
            strangers: env::var_os("HOSTMEM_STRANGERS")
                .map(path::absolute)
                .transpose()?,
            built: folder.to_path_buf(),
        })
    }

    /// Returns where a guest is, if it is there.
    fn elf(&self, guest: &Guest) -> Option<PathBuf> {
        let Some(name) = guest.stranger else {
            return Some(self.guests.join(guest.name).with_extension("elf"));
        };
        let built = self.strangers.as_ref()?.join("built");
        Some(built.join(name).with_extension("elf")).filter(|elf| elf.exists())
    }

    /// Builds a guest of ours for the host; `None` without a compiler.
    fn native(&self, guest: &Guest) -> Option<PathBuf> {
        if guest.stranger.is_some() {
            return None;
        }
        let source = self.guests.join(guest.name).with_extension("c");
        let program = self.built.join(format!("native-{}", guest.name));
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-w", "-pthread", "-o"]);
        let status = compiler.arg(&program).arg(source).status();
        status
            .is_ok_and(|status| status.success())
            .then_some(program)
    }
}

/// Runs a program, where scripts for strangers' programs are; returns the CPU time that it took, in
/// nanoseconds.
fn time(program: &OsStr, args: &[&OsStr]) -> io::Result<f64> {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/emulator/strangers"
        ))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let before = of_children()?;
    let status = command.status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{}: {status}", program.display())));
    }
    Ok(of_children()? - before)
}

/// Returns the CPU time of all children that have ended.
fn of_children() -> io::Result<f64> {
    // SAFETY: zero is a value of every field.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is valid.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let nanoseconds = |time: libc::timeval| time.tv_sec as f64 * 1e9 + time.tv_usec as f64 * 1e3;
    Ok(nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime))
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}

/// Who runs a guest: the program, and what comes before the guest's arguments.
struct Runner {
    name: &'static str,
    program: PathBuf,
    args: Vec<PathBuf>,
}

/// Returns the ways to run a guest; none where its file is missing.
fn runners(place: &Place, guest: &Guest) -> Vec<Runner> {
    let Some(elf) = place.elf(guest) else {
        return Vec::new();
    };
    let runner = |name, program: &Path, args: &[&Path]| Runner {
        name,
        program: program.to_path_buf(),
        args: args.iter().map(|arg| arg.to_path_buf()).collect(),
    };
    let mut all = vec![runner("ours", &place.emulator, &[&elf])];
    if guest.stranger.is_none() {
        let interpret = Path::new("--interpret");
        all.push(runner("interpreter", &place.emulator, &[interpret, &elf]));
    }
    let qemu = Path::new("qemu-riscv32");
    if Command::new(qemu).arg("--version").output().is_ok() {
        all.push(runner("qemu", qemu, &[&elf]));
    }
    if let Some(program) = place.native(guest) {
        all.push(runner("native", &program, &[]));
    }
    all
}

fn run_all(setting: &Setting, table: &mut Table) -> Result<(), Failure> {
    let place = Place::find()?;
    let rounds = setting.plan.rounds.min(5);
    let quick = setting.plan.haste > 1;
    for guest in GUESTS {
        let rows: Vec<_> = ROWS
            .iter()
            .filter(|row| row.name.starts_with(guest.name))
            .collect();
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        if !table.wants(&names) {
            continue;
        }
        let runners = runners(&place, guest);
        if runners.is_empty() {
            println!(
                "note: {}: HOSTMEM_STRANGERS says where to find it",
                guest.name
            );
            continue;
        }
        let args = if quick { guest.quick } else { guest.full };
        let mut times = vec![Vec::new(); runners.len()];
        for round in 0..rounds {
            for (runner, times) in runners.iter().zip(&mut times) {
                // It takes long, and varies little.
                if runner.name == "interpreter" && round > 0 {
                    continue;
                }
                let mut all: Vec<&OsStr> = runner.args.iter().map(|arg| arg.as_os_str()).collect();
                all.extend(args.iter().map(OsStr::new));
                times.push(time(runner.program.as_os_str(), &all)?);
            }
        }
        let medians: Vec<(&str, Option<f64>)> = runners
            .iter()
            .zip(times)
            .map(|(runner, times)| (runner.name, median(times)))
            .collect();
        let of = |name: &str| medians.iter().find(|(who, _)| *who == name)?.1;
        for row in rows {
            table.enter(row.name, of("ours").unwrap_or(f64::NAN), of(row.peer));
        }
    }
    instructions(&place, table)?;
    start(&place, table)
}

/// Returns the first number of the line that begins with a word, or the one behind another word.
fn number_behind(text: &str, line: &str, word: &str) -> Option<f64> {
    let line = text.lines().find(|found| found.starts_with(line))?;
    let mut words = line.split_whitespace();
    words.find(|found| *found == word)?;
    words.next()?.parse().ok()
}

/// What an instruction costs to interpret, and to translate, as `--stats` counts them.
fn instructions(place: &Place, table: &mut Table) -> Result<(), Failure> {
    let elf = place.elf(&GUESTS[1]).ok_or("no guest")?;
    if table.wants(&["interpreted-instruction"]) {
        let mut command = Command::new(&place.emulator);
        command
            .args(["--interpret", "--stats"])
            .arg(&elf)
            .arg("20000");
        let before = of_children()?;
        let output = command.output()?;
        let took = of_children()? - before;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let count = number_behind(&text, "interpreted", "interpreted").ok_or("no count")?;
        table.enter("interpreted-instruction", took / count, None);
    }
    if table.wants(&["translated-instruction"]) {
        // With a cache that is too small for anything, all is translated again and again.
        let elf = place.elf(&GUESTS[2]).ok_or("no guest")?;
        let run = |budget: &str| {
            let mut command = Command::new(&place.emulator);
            command.args(["--stats", "--budget", budget]);
            let before = of_children()?;
            let output = command.arg(&elf).arg("200000").output()?;
            let took = of_children()? - before;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let count = number_behind(&text, "translated", "translated").ok_or("no count")?;
            Ok::<_, Failure>((took, count))
        };
        let ((small, many), (large, few)) = (run("10000")?, run("67108864")?);
        let each = (small - large) / (many - few);
        table.enter("translated-instruction", each, None);
    }
    Ok(())
}

/// What a program costs that does nearly nothing.
fn start(place: &Place, table: &mut Table) -> Result<(), Failure> {
    if !table.wants(&["start"]) {
        return Ok(());
    }
    let runners = runners(place, &GUESTS[0]);
    let mut medians = Vec::new();
    for runner in &runners {
        let mut all: Vec<&OsStr> = runner.args.iter().map(|arg| arg.as_os_str()).collect();
        all.push(OsStr::new("10"));
        let times: io::Result<Vec<f64>> = (0..21)
            .map(|_| time(runner.program.as_os_str(), &all))
            .collect();
        medians.push((runner.name, median(times?)));
    }
    let of = |name: &str| medians.iter().find(|(who, _)| *who == name)?.1;
    table.enter("start", of("ours").unwrap_or(f64::NAN), of("qemu"));

    Ok(())
}
