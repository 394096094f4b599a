//! Tests of the command line.

use super::*;
use crate::parse::parse;

fn command(arguments: &[&str]) -> Result<Command, CliError> {
    parse_arguments(arguments.iter().map(OsString::from))
}

fn message(arguments: &[&str]) -> String {
    command(arguments).map_or_else(|error| error.to_string(), |command| format!("{command:?}"))
}

fn value_of(text: &str) -> Option<Value> {
    match command(&["x", &format!("x={text}")]) {
        Ok(Command::Evaluate { values, .. }) => values.first().map(|(_, value)| *value),
        _ => None,
    }
}

#[test]
fn an_expression_with_values() {
    let expected = Command::Evaluate {
        source: "x*x - 3*y + 7".to_owned(),
        values: vec![
            ("x".to_owned(), Value::Int(6)),
            ("y".to_owned(), Value::Int(5)),
        ],
    };
    assert_eq!(command(&["x*x - 3*y + 7", "x=6", "y=5"]), Ok(expected));
}

#[test]
fn values_have_the_type_they_look_like() {
    assert_eq!(value_of("-3"), Some(Value::Int(-3)));
    assert_eq!(value_of("+3"), Some(Value::Int(3)));
    assert_eq!(value_of("-9223372036854775808"), Some(Value::Int(i64::MIN)));
    assert_eq!(value_of("1e3"), Some(Value::Float(1000.0)));
    assert_eq!(value_of("-2.5"), Some(Value::Float(-2.5)));
    assert_eq!(value_of("99999999999999999999.0"), Some(Value::Float(1e20)));
    assert_eq!(value_of("inf"), Some(Value::Float(f64::INFINITY)));
    assert_eq!(value_of("-inf"), Some(Value::Float(f64::NEG_INFINITY)));
    assert!(value_of("nan").is_some_and(|value| value.to_f64().is_nan()));
}

#[test]
fn options() {
    let bench = |count, seed| NonZeroUsize::new(count).map(|count| Command::Bench { count, seed });
    assert_eq!(command(&["--bench", "9"]).ok(), bench(9, DEFAULT_SEED));
    assert_eq!(command(&["--bench", "9", "--seed", "4"]).ok(), bench(9, 4));
    assert_eq!(command(&["--seed", "0", "--bench", "1"]).ok(), bench(1, 0));
    assert_eq!(command(&["--help"]), Ok(Command::Help));
    assert_eq!(command(&["x", "--help"]), Ok(Command::Help));
}

#[test]
fn an_expression_may_start_with_a_sign() {
    let source = |arguments: &[&str]| match command(arguments) {
        Ok(Command::Evaluate { source, .. }) => source,
        other => format!("{other:?}"),
    };
    assert_eq!(source(&["-x", "x=1"]), "-x");
    assert_eq!(source(&["--(x)", "x=1"]), "--(x)");
    assert_eq!(source(&["--", "--x", "x=1"]), "--x");
    assert_eq!(source(&["--", "--help"]), "--help");
}

#[test]
fn mistakes_have_clear_messages() {
    for (arguments, expected) in [
        (&[] as &[&str], "no expression given"),
        (&["--"], "no expression given"),
        (&["--speed"], "unknown option '--speed'"),
        (&["--bench"], "option '--bench' needs a number from 1"),
        (&["--bench", "0"], "option '--bench' needs a number from 1"),
        (&["--bench", "x"], "option '--bench' needs a number from 1"),
        (
            &["--bench", "1", "--bench", "2"],
            "option '--bench' given twice",
        ),
        (
            &["--bench", "1", "--seed", "-1"],
            "option '--seed' needs a number from 0",
        ),
        (&["--seed", "1"], "option '--seed' needs '--bench'"),
        (&["--seed", "1", "x"], "option '--seed' needs '--bench'"),
        (
            &["--bench", "1", "x"],
            "option '--bench' takes no expression",
        ),
        (&["x", "x"], "malformed argument 'x', expected NAME=VALUE"),
        (&["x", "=1"], "malformed argument '=1', expected NAME=VALUE"),
        (
            &["x", "1x=1"],
            "malformed argument '1x=1', expected NAME=VALUE",
        ),
        (&["x", "x="], "malformed value '' of variable 'x'"),
        (&["x", "x=1=2"], "malformed value '1=2' of variable 'x'"),
        (&["x", "x=one"], "malformed value 'one' of variable 'x'"),
        (&["x", "x=1", "x=2"], "variable 'x' given twice"),
        (
            &["x", "x=9223372036854775808"],
            "value '9223372036854775808' of variable 'x' out of range",
        ),
        (
            &["x", "x=1e999"],
            "value '1e999' of variable 'x' out of range",
        ),
    ] {
        assert_eq!(message(arguments), expected, "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_unicode_is_an_error() {
    use std::os::unix::ffi::OsStringExt;
    let result = parse_arguments([OsString::from_vec(vec![b'x', 0xff])]);
    assert_eq!(result, Err(CliError::NotUnicode("x\u{fffd}".to_owned())));
}

#[test]
fn values_are_bound_in_the_order_of_the_expression() {
    let given = [
        ("x".to_owned(), Value::Int(1)),
        ("y".to_owned(), Value::Int(2)),
        ("z".to_owned(), Value::Int(3)),
    ];
    let bound = |source| parse(source).ok().map(|parsed| bind(&parsed, &given));
    assert_eq!(bound("z - x"), Some(Ok(vec![Value::Int(3), Value::Int(1)])));
    let unknown = bound("x + w").and_then(Result::err);
    assert_eq!(
        unknown.map(|error| error.to_string()),
        Some("unknown variable 'w'".to_owned())
    );
}
