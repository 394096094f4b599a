//! Compiles an arithmetic expression to machine code, places it with the JIT allocator and runs it.
//!
//! ```text
//! cargo run --release --example expression -- 'x*x - 3*y + 7' x=6 y=5
//! ```

#![expect(
    clippy::cast_possible_truncation,
    reason = "offsets are bounded by MAX_VARIABLES, and the rest are random numbers"
)]

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the expression example generates code for x86-64 and AArch64 only");

mod ast;
mod bench;
mod cli;
mod compile;
mod interpret;
mod lex;
mod parse;
mod parse_error;
mod print;
mod random;
mod runner;
mod typing;

use std::{env, error::Error, process::ExitCode};

use ast::{Type, Value};
use cli::Command;
use runner::Runner;

/// The exit code where the host gives no executable memory, or a result is wrong.
const FAILURE: u8 = 1;
/// The exit code for any mistake of the user's.
const USER_ERROR: u8 = 2;

/// An error and the exit code that it means.
struct Failure {
    error: Box<dyn Error>,
    code: u8,
}

/// Marks an error as the user's.
fn user(error: impl Into<Box<dyn Error>>) -> Failure {
    Failure {
        error: error.into(),
        code: USER_ERROR,
    }
}

/// Marks an error as the host's.
fn host(error: impl Into<Box<dyn Error>>) -> Failure {
    Failure {
        error: error.into(),
        code: FAILURE,
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { error, code }) => {
            eprintln!("expression: {error}");
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<(), Failure> {
    match cli::parse_arguments(env::args_os().skip(1)).map_err(user)? {
        Command::Help => {
            print!("{}", cli::USAGE);
            Ok(())
        }
        Command::Evaluate { source, values } => evaluate(&source, &values),
        Command::Bench { count, seed } => bench::bench(count.get(), seed).map_err(host),
    }
}

fn evaluate(source: &str, values: &[(String, Value)]) -> Result<(), Failure> {
    let expression = parse::parse(source).map_err(user)?;
    let values = cli::bind(&expression, values).map_err(user)?;
    let kinds: Vec<Type> = values.iter().map(|value| value.kind()).collect();
    let typed = typing::TypedExpr::new(&expression, &kinds);
    let code = compile::compile(&typed).map_err(user)?;
    let runner = Runner::new().map_err(host)?;
    let program = runner.load(&code).map_err(host)?;
    let bits: Vec<u64> = values.iter().map(|value| value.bits()).collect();
    // SAFETY: loaded from what the compiler made of this expression, with its variables.
    let (status, result) = unsafe { runner.call(&program, &bits) };
    let value = compile::outcome(status, result, typed.kind()).map_err(user)?;
    let span = program.span();
    println!("value  {value}");
    println!(
        "code   {} bytes in a span of {}",
        code.len(),
        span.len_bytes()
    );
    println!("runs   at {:p}", span.rx());
    println!("writes at {:p}", span.rw());
    runner.release(program).map_err(host)
}
