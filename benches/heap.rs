//! Runs the benchmark of the heap, which is a package of its own in `benches/heap`, with what the
//! command line says, and ends as it ends.
//!
//! Nothing is measured here. The peers of the heap are written in C and C++ and take minutes to
//! build, which nobody who checks the workspace should wait for; cargo would build them with it if
//! they were dependencies of a member. So this program, which is a member's, has cargo build that
//! package in release and run it. What `CARGO_PROFILE_BENCH_*` says does not reach it:
//! `CARGO_PROFILE_RELEASE_*` does. Without the feature `peers` it has none either.

use std::{
    env,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let mut cargo = Command::new(env!("CARGO"));
    // In that folder, since cargo looks for the flags of the C++ compiler from where it runs.
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/heap"));
    cargo.args(["run", "--quiet", "--release"]);
    if !cfg!(feature = "peers") {
        cargo.arg("--no-default-features");
    }
    cargo.arg("--").args(env::args_os().skip(1));
    match cargo.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("heap: cargo does not run: {error}");
            ExitCode::FAILURE
        }
    }
}
