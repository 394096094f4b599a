//! A plain interpreter: the oracle that generated code is compared with.
//!
//! It walks the untyped tree and looks at the values it meets, so it shares neither the static
//! types nor the code generators with the compiler.
//!
//! Operands are evaluated from left to right and the first error ends the evaluation. Integer
//! arithmetic is checked; float arithmetic is IEEE 754 and may give infinities and NaN, except
//! that a division or remainder by (positive or negative) zero is an error, as it is for integers.

use std::{error, fmt};

use crate::ast::{BinaryOperator, Expr, Expression, UnaryOperator, Value};

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// The right operand of `/` or `%` is zero.
    DivisionByZero,
    /// The result of integer arithmetic does not fit 64 bits.
    Overflow,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DivisionByZero => "division by zero",
            Self::Overflow => "integer overflow",
        })
    }
}

impl error::Error for EvalError {}

/// Evaluates `expression` with `values` for its variables.
///
/// # Errors
/// The first error in evaluation order.
///
/// # Panics
/// Panics unless there is one value for each variable.
pub fn interpret(expression: &Expression, values: &[Value]) -> Result<Value, EvalError> {
    assert_eq!(
        values.len(),
        expression.variables.len(),
        "one value for each variable"
    );
    evaluate(&expression.root, values)
}

fn evaluate(expr: &Expr, values: &[Value]) -> Result<Value, EvalError> {
    match expr {
        Expr::Literal(value) => Ok(*value),
        Expr::Variable(index) => Ok(values[*index]),
        Expr::Unary(operator, operand) => unary(*operator, evaluate(operand, values)?),
        Expr::Binary(operator, left, right) => {
            let left = evaluate(left, values)?;
            let right = evaluate(right, values)?;
            match (left, right) {
                (Value::Int(a), Value::Int(b)) => integer(*operator, a, b).map(Value::Int),
                _ => float(*operator, left.to_f64(), right.to_f64()).map(Value::Float),
            }
        }
    }
}

fn unary(operator: UnaryOperator, operand: Value) -> Result<Value, EvalError> {
    let checked = |result: Option<i64>| result.map(Value::Int).ok_or(EvalError::Overflow);
    match (operator, operand) {
        (UnaryOperator::Negate, Value::Int(value)) => checked(value.checked_neg()),
        (UnaryOperator::Abs, Value::Int(value)) => checked(value.checked_abs()),
        (UnaryOperator::Negate, Value::Float(value)) => Ok(Value::Float(-value)),
        (UnaryOperator::Abs, Value::Float(value)) => Ok(Value::Float(value.abs())),
        (UnaryOperator::Sqrt, value) => Ok(Value::Float(value.to_f64().sqrt())),
        (UnaryOperator::Floor, value) => Ok(Value::Float(value.to_f64().floor())),
    }
}

fn integer(operator: BinaryOperator, a: i64, b: i64) -> Result<i64, EvalError> {
    let result = match operator {
        BinaryOperator::Add => a.checked_add(b),
        BinaryOperator::Subtract => a.checked_sub(b),
        BinaryOperator::Multiply => a.checked_mul(b),
        BinaryOperator::Divide | BinaryOperator::Remainder if b == 0 => {
            return Err(EvalError::DivisionByZero);
        }
        // The smallest integer over -1 does not fit, so it is an overflow ...
        BinaryOperator::Divide => a.checked_div(b),
        // ... but its remainder does: 0, which `checked_rem` would refuse.
        BinaryOperator::Remainder => Some(a.wrapping_rem(b)),
        BinaryOperator::Min => Some(if a < b { a } else { b }),
        BinaryOperator::Max => Some(if a > b { a } else { b }),
    };
    result.ok_or(EvalError::Overflow)
}

fn float(operator: BinaryOperator, a: f64, b: f64) -> Result<f64, EvalError> {
    match operator {
        BinaryOperator::Add => Ok(a + b),
        BinaryOperator::Subtract => Ok(a - b),
        BinaryOperator::Multiply => Ok(a * b),
        // True for -0.0 too, and false for NaN.
        BinaryOperator::Divide | BinaryOperator::Remainder if b == 0.0 => {
            Err(EvalError::DivisionByZero)
        }
        BinaryOperator::Divide => Ok(a / b),
        BinaryOperator::Remainder => Ok(a % b),
        // Unlike `f64::min` and `f64::max` these are exact about NaN and signed zeros: the second
        // operand, unless the first is truly less (or greater).
        BinaryOperator::Min => Ok(if a < b { a } else { b }),
        BinaryOperator::Max => Ok(if a > b { a } else { b }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn run(source: &str, values: &[Value]) -> String {
        match parse(source).map(|parsed| interpret(&parsed, values)) {
            Ok(Ok(value)) => value.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn integers() {
        for (source, expected) in [
            ("1 + 2*3 - 4", "3"),
            ("7 / 2", "3"),
            ("-7 / 2", "-3"),
            ("-7 % 2", "-1"),
            ("7 % -2", "1"),
            ("min(3, -4) * max(3, -4)", "-12"),
            ("abs(-5)", "5"),
            ("-9223372036854775808 % -1", "0"),
            ("-9223372036854775808 / -1", "integer overflow"),
            ("-9223372036854775808 / 1", "-9223372036854775808"),
            ("--9223372036854775808", "integer overflow"),
            ("abs(-9223372036854775808)", "integer overflow"),
            ("9223372036854775807 + 1", "integer overflow"),
            ("3037000500 * 3037000500", "integer overflow"),
            ("5 / 0", "division by zero"),
            ("5 % (2 - 2)", "division by zero"),
        ] {
            assert_eq!(run(source, &[]), expected, "{source}");
        }
    }

    #[test]
    fn floats() {
        for (source, expected) in [
            ("7 / 2.0", "3.5"),
            ("7 / 2 + 0.5", "3.5"),
            ("-7.5 % 2", "-1.5"),
            ("sqrt(16)", "4.0"),
            ("sqrt(-1)", "NaN"),
            ("floor(-1.5)", "-2.0"),
            ("floor(3)", "3.0"),
            ("-0.0 + 0", "0.0"),
            ("--0.0", "0.0"),
            ("1e308 * 10", "inf"),
            ("1.0 / 0", "division by zero"),
            ("1.0 / -0.0", "division by zero"),
            ("1 % 0.0", "division by zero"),
            ("9007199254740993 + 0.0", "9007199254740992.0"),
        ] {
            assert_eq!(run(source, &[]), expected, "{source}");
        }
    }

    #[test]
    fn min_and_max_prefer_the_second_operand() {
        let nan = Value::Float(f64::NAN);
        assert_eq!(run("min(x, 1)", &[nan]), "1.0");
        assert_eq!(run("min(1, x)", &[nan]), "NaN");
        assert_eq!(run("max(x, 1)", &[nan]), "1.0");
        assert_eq!(run("max(1, x)", &[nan]), "NaN");
        assert_eq!(run("min(-0.0, 0.0)", &[]), "0.0");
        assert_eq!(run("max(0.0, -0.0)", &[]), "-0.0");
    }

    #[test]
    fn the_first_error_from_the_left_counts() {
        assert_eq!(
            run("(1 / 0) + (9223372036854775807 + 1)", &[]),
            "division by zero"
        );
        assert_eq!(
            run("(9223372036854775807 + 1) + (1 / 0)", &[]),
            "integer overflow"
        );
        // An operand that is not needed for the result is evaluated all the same.
        assert_eq!(run("0 * (1 / 0)", &[]), "division by zero");
    }
}
