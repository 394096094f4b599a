//! Runs the body of a test in a process of its own.
//!
//! Filters, MDWE and namespaces cannot be taken back, so a test that wants them must not share its
//! process with others. The parent starts the test binary again, restricted to that one test, with
//! [`ENV`] set; there the same `#[test]` function runs its body instead of starting a process.
//!
//! The harness knows a test by its path: the modules, without the name of the crate. The macros
//! [`isolated!`] and [`test_path!`] put it together from a name and the module that they stand in.

use core::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::{Command, Output};
use std::{env, thread};

use crate::Unavailable;

/// Names the environment variable that tells a process which test it isolates.
pub const ENV: &str = "HOSTMEM_ISOLATED_TEST";

/// Names the environment variable that is `1` where a skip is a failure: on machines that have all
/// that the tests need.
pub const STRICT: &str = "HOSTMEM_STRICT";

/// Names the environment variable with the file that skips are added to, so that they are read at
/// the end of a run.
pub const SKIPS: &str = "HOSTMEM_SKIPS";

pub use crate::{isolated, test_path};

/// Runs a body in a process of its own: `isolated!("name", || ...)`, in the module of that test.
///
/// The function [`isolated()`] takes the test's path instead.
#[macro_export]
macro_rules! isolated {
    ($name:expr, $body:expr $(,)?) => {
        $crate::isolate::isolated(&$crate::isolate::test_path!($name), $body)
    };
}

/// Returns the path, as the harness lists it, of the test of that name in this module: a `String`.
#[macro_export]
macro_rules! test_path {
    ($name:expr) => {
        $crate::isolate::path_in(module_path!(), $name)
    };
}

/// Returns the path of a test in the module at `module_path`, which begins with the crate's name.
pub fn path_in(module_path: &str, test_name: &str) -> String {
    match module_path.split_once("::") {
        Some((_, modules)) => format!("{modules}::{test_name}"),
        None => test_name.to_owned(),
    }
}

/// Begins the line that [`skip`] writes.
const SKIPPED: &str = "SKIPPED: ";

/// Runs `body` in a process of its own and panics if it failed there.
///
/// `test_name` is the path of the calling test as the harness lists it: `module::test` (without the
/// name of the crate). It works with the harness of `cargo test` and with `cargo nextest`, and also
/// for tests marked `#[ignore]`.
///
/// # Panics
///
/// In the parent, with the whole output of the child, if the child failed, was killed, or did not
/// run `body` to its end (as when `test_name` names no test).
pub fn isolated(test_name: &str, body: impl FnOnce()) {
    isolated_by(test_name, |mut command| Ok(run(&mut command)), body);
}

/// Runs `body` in a process that `start` starts from the given command: traced, or in namespaces.
///
/// If `start` reports [`Unavailable`], the test is skipped aloud.
///
/// # Panics
///
/// As [`isolated()`].
pub fn isolated_by(
    test_name: &str,
    start: impl FnOnce(Command) -> Result<Output, Unavailable>,
    body: impl FnOnce(),
) {
    if is_isolated(test_name) {
        body();
        // Written to the descriptor: the harness does not capture it, and the parent looks for it.
        say(&end_marker(test_name));
        return;
    }
    match start(isolated_command(test_name)) {
        Ok(output) => check(test_name, &output),
        Err(reason) => skip(reason),
    }
}

/// Says whether this process was started to isolate `test_name`.
pub fn is_isolated(test_name: &str) -> bool {
    env::var_os(ENV).is_some_and(|name| name == test_name)
}

/// Makes the command that runs `test_name` isolated, for a parent that starts it in its own way.
///
/// # Panics
///
/// If the path of the running test binary is unknown.
pub fn isolated_command(test_name: &str) -> Command {
    let binary = env::current_exe().expect("the path of the test binary is in /proc/self/exe");
    let mut command = Command::new(binary);
    command.args([
        "--exact",
        test_name,
        "--nocapture",
        "--test-threads=1",
        "--include-ignored",
    ]);
    command.env(ENV, test_name);
    command
}

/// Runs `command` and returns its output.
///
/// # Panics
///
/// If the command cannot be started.
pub fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"))
}

/// Passes on what an isolated process skipped, and panics unless it ran its body to the end.
///
/// # Panics
///
/// As [`isolated()`].
pub fn check(test_name: &str, output: &Output) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    stderr
        .lines()
        .filter(|line| line.starts_with(SKIPPED))
        .for_each(say);
    // A wrong name makes the harness run no test and succeed; so does a body that calls exit(0).
    let marker = end_marker(test_name);
    let ended = stderr.lines().any(|line| line == marker);
    assert!(
        output.status.success() && ended,
        "isolated test {test_name}: {status}{note}\n\
         --- stdout ---\n{stdout}\n--- stderr ---\n{stderr}",
        status = output.status,
        note = if ended {
            ""
        } else {
            ", its body did not run to its end"
        },
    );
}

/// Writes `SKIPPED: <test>: <reason>` to standard error, past the capture of the harness.
///
/// # Panics
///
/// Where [`STRICT`] is `1`.
pub fn skip(reason: impl Display) {
    let line = note_skip(&reason);
    let is_strict = env::var_os(STRICT).is_some_and(|value| value == "1");
    assert!(!is_strict, "{STRICT} is set: {line}");
}

/// Writes what [`skip`] does, and is no failure anywhere: of what has a long form that runs it, and
/// of what no privileges give, since the kernel was built without it.
pub fn leave_out(reason: impl Display) {
    note_skip(&reason);
}

/// Says what was skipped and why, and adds it to the file of [`SKIPS`].
fn note_skip(reason: &dyn Display) -> String {
    let isolated = env::var(ENV).ok();
    let current = thread::current();
    let name = isolated
        .as_deref()
        .or(current.name())
        .unwrap_or("unnamed test");
    let line = format!("{SKIPPED}{name}: {reason}");
    say(&line);
    let file = env::var_os(SKIPS).filter(|path| !path.is_empty());
    let file = file.and_then(|path| OpenOptions::new().append(true).create(true).open(path).ok());
    if let Some(mut file) = file {
        // In one write; where it fails the line above has said it.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
    line
}

/// Returns the value, or [skips](skip) aloud and returns none.
pub fn or_skip<T>(result: Result<T, Unavailable>) -> Option<T> {
    result.map_err(skip).ok()
}

/// Makes the line that an isolated process ends with.
fn end_marker(test_name: &str) -> String {
    format!("isolated test {test_name} ran to its end")
}

/// Writes a line to standard error, not to the capture that `eprintln!` would use.
fn say(line: &str) {
    // One write, so that lines of parallel tests stay whole; with stderr closed there is no one
    // to tell.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
