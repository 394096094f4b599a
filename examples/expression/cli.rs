//! The command line.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::{error, fmt};

use crate::ast::{Expression, Value};
use crate::lex::is_name;

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: expression EXPRESSION [NAME=VALUE]...
       expression --bench N [--seed S]
       expression --help

Compiles EXPRESSION to machine code, runs it and prints the value.

  operators   + - * / %  unary -  ( )
  functions   abs(x) sqrt(x) floor(x) min(a, b) max(a, b)
  numbers     42 is an integer (64 bits, checked); 1.5 .5 2e3 are floats
  values      an integer or a float, also inf, -inf and nan

An operation is on integers if both operands are, else on floats. Values for
variables that EXPRESSION does not use are ignored.

  --bench N   compile and run N random expressions and compare each result
              with the interpreter
  --seed S    where the random sequence starts (default 1)
  --          what follows is no option: expression -- '--x' x=3
";

/// The seed if none is given.
pub const DEFAULT_SEED: u64 = 1;

/// The user's request.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Print [`USAGE`].
    Help,
    /// Evaluate one expression.
    Evaluate {
        /// The expression.
        source: String,
        /// The values given, each name once.
        values: Vec<(String, Value)>,
    },
    /// Compile and run random expressions.
    Bench {
        /// How many.
        count: NonZeroUsize,
        /// Where the random sequence starts.
        seed: u64,
    },
}

/// A mistake on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CliError {
    /// No expression and no option.
    NothingToDo,
    /// An argument that is not Unicode, shown as well as it can be.
    NotUnicode(String),
    /// An option that does not exist.
    UnknownOption(String),
    /// An option twice.
    RepeatedOption(&'static str),
    /// An option without the number that it needs, or with something else.
    BadNumber(&'static str),
    /// `--seed` without `--bench`.
    SeedWithoutBench,
    /// `--bench` and an expression.
    BenchWithExpression,
    /// An argument after the expression that is not `NAME=VALUE`.
    MalformedAssignment(String),
    /// A value that is no number.
    MalformedValue {
        /// The variable.
        name: String,
        /// The text given.
        text: String,
    },
    /// A value beyond the range of its type.
    ValueOutOfRange {
        /// The variable.
        name: String,
        /// The text given.
        text: String,
    },
    /// Two values for one variable.
    RepeatedVariable(String),
    /// A variable of the expression without a value.
    UnknownVariable(String),
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToDo => write!(f, "no expression given"),
            Self::NotUnicode(text) => write!(f, "argument '{text}' is not Unicode"),
            Self::UnknownOption(option) => write!(f, "unknown option '{option}'"),
            Self::RepeatedOption(option) => write!(f, "option '{option}' given twice"),
            Self::BadNumber("--bench") => write!(f, "option '--bench' needs a number from 1"),
            Self::BadNumber(option) => write!(f, "option '{option}' needs a number from 0"),
            Self::SeedWithoutBench => write!(f, "option '--seed' needs '--bench'"),
            Self::BenchWithExpression => write!(f, "option '--bench' takes no expression"),
            Self::MalformedAssignment(text) => {
                write!(f, "malformed argument '{text}', expected NAME=VALUE")
            }
            Self::MalformedValue { name, text } => {
                write!(f, "malformed value '{text}' of variable '{name}'")
            }
            Self::ValueOutOfRange { name, text } => {
                write!(f, "value '{text}' of variable '{name}' out of range")
            }
            Self::RepeatedVariable(name) => write!(f, "variable '{name}' given twice"),
            Self::UnknownVariable(name) => write!(f, "unknown variable '{name}'"),
        }
    }
}

impl error::Error for CliError {}

/// Interprets the arguments after the program's name.
///
/// An argument that starts with `--` and a letter is an option; `-x` and `--(x)` are expressions.
/// `--help` counts wherever it stands before `--`.
///
/// # Errors
/// The first mistake.
pub fn parse_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, CliError> {
    let mut arguments = arguments.into_iter();
    let (mut count, mut seed, mut positional) = (None, None, Vec::new());
    let mut options = true;
    while let Some(argument) = arguments.next() {
        let text = unicode(argument)?;
        match text.as_str() {
            _ if !options => positional.push(text),
            "--" => options = false,
            "--help" => return Ok(Command::Help),
            "--bench" => set("--bench", &mut count, arguments.next())?,
            "--seed" => set("--seed", &mut seed, arguments.next())?,
            option if is_option(option) => return Err(CliError::UnknownOption(text)),
            _ => positional.push(text),
        }
    }
    match (count, seed) {
        (Some(_), _) if !positional.is_empty() => Err(CliError::BenchWithExpression),
        (Some(count), seed) => Ok(Command::Bench {
            count,
            seed: seed.unwrap_or(DEFAULT_SEED),
        }),
        (None, Some(_)) => Err(CliError::SeedWithoutBench),
        (None, None) => evaluation(positional),
    }
}

/// Looks up the value of each variable of `expression`, in its order.
///
/// # Errors
/// [`CliError::UnknownVariable`] for the first variable without a value.
pub fn bind(expression: &Expression, values: &[(String, Value)]) -> Result<Vec<Value>, CliError> {
    let lookup = |name: &String| {
        let found = values.iter().find(|(given, _)| given == name);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| CliError::UnknownVariable(name.clone()))
    };
    expression.variables.iter().map(lookup).collect()
}

fn unicode(argument: OsString) -> Result<String, CliError> {
    argument
        .into_string()
        .map_err(|raw| CliError::NotUnicode(raw.to_string_lossy().into_owned()))
}

fn is_option(text: &str) -> bool {
    text.strip_prefix("--")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn set<T: std::str::FromStr>(
    option: &'static str,
    slot: &mut Option<T>,
    argument: Option<OsString>,
) -> Result<(), CliError> {
    if slot.is_some() {
        return Err(CliError::RepeatedOption(option));
    }
    let text = unicode(argument.ok_or(CliError::BadNumber(option))?)?;
    *slot = Some(text.parse().map_err(|_| CliError::BadNumber(option))?);
    Ok(())
}

fn evaluation(positional: Vec<String>) -> Result<Command, CliError> {
    let mut positional = positional.into_iter();
    let source = positional.next().ok_or(CliError::NothingToDo)?;
    let mut values: Vec<(String, Value)> = Vec::new();
    for text in positional {
        let (name, value) = assignment(&text)?;
        if values.iter().any(|(given, _)| *given == name) {
            return Err(CliError::RepeatedVariable(name));
        }
        values.push((name, value));
    }
    Ok(Command::Evaluate { source, values })
}

fn assignment(argument: &str) -> Result<(String, Value), CliError> {
    match argument.split_once('=') {
        Some((name, text)) if is_name(name) => Ok((name.to_owned(), value(name, text)?)),
        _ => Err(CliError::MalformedAssignment(argument.to_owned())),
    }
}

/// Reads digits as an integer, and anything else that Rust reads as a float: that includes `inf`,
/// `-inf` and `nan`. Digits that overflow to infinity are an error, as they are in an expression.
fn value(name: &str, text: &str) -> Result<Value, CliError> {
    let (owned_name, owned_text) = (name.to_owned(), text.to_owned());
    let out_of_range = CliError::ValueOutOfRange {
        name: owned_name,
        text: owned_text,
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Value::Int).map_err(|_| out_of_range);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_infinite() && digits.contains(|c: char| c.is_ascii_digit()) => {
            Err(out_of_range)
        }
        Ok(value) => Ok(Value::Float(value)),
        Err(_) => Err(CliError::MalformedValue {
            name: name.to_owned(),
            text: text.to_owned(),
        }),
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
