//! The expression tree, and the values and types that it computes with.
//!
//! Operators and functions share one shape, because both have a fixed number of operands: a node
//! with the wrong number of arguments cannot be built.

use std::fmt;

/// Largest number of distinct variables in one expression.
///
/// AArch64's `LDR` reaches 4,095 eight-byte words from its base register (Arm ARM, C6.2 "LDR
/// (immediate)"), so with this bound one load reads any variable.
pub const MAX_VARIABLES: usize = 4096;

/// Greatest nesting of parentheses, calls and signs in a source.
///
/// The parser recurses for each level. In a build without optimisation a level may take 9 KiB, so
/// hostile input takes little more than a quarter of the 2 MiB of stack that Rust gives a thread.
pub const MAX_NESTING: usize = 64;

/// Greatest number of operations between the result of a tree and one of its leaves.
///
/// Everything that walks a tree recurses for each level, and `a + b + c` needs one for each
/// operator. At 1 KiB a level without optimisation that is a quarter of a thread's stack.
pub const MAX_HEIGHT: usize = 512;

/// The type of a value: known before the expression runs, see [`crate::typing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A 64-bit signed integer with checked arithmetic.
    Int,
    /// An IEEE 754 double.
    Float,
}

/// A number that an expression reads or computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A 64-bit signed integer.
    Int(i64),
    /// An IEEE 754 double.
    Float(f64),
}

impl Value {
    /// Returns the type of the value.
    pub fn kind(self) -> Type {
        match self {
            Self::Int(_) => Type::Int,
            Self::Float(_) => Type::Float,
        }
    }

    /// Returns the value as a double, rounded to nearest (ties to even) if it is an integer.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// Returns the representation that generated code works on.
    pub fn bits(self) -> u64 {
        match self {
            Self::Int(value) => value.cast_unsigned(),
            Self::Float(value) => value.to_bits(),
        }
    }

    /// Rebuilds a value of type `kind` from what [`Value::bits`] returned.
    pub fn from_bits(kind: Type, bits: u64) -> Self {
        match kind {
            Type::Int => Self::Int(bits.cast_signed()),
            Type::Float => Self::Float(f64::from_bits(bits)),
        }
    }

    /// Tells whether both values have the same type and the same bits; every NaN is the same.
    pub fn same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) if a.is_nan() => b.is_nan(),
            _ => self.kind() == other.kind() && self.bits() == other.bits(),
        }
    }
}

impl fmt::Display for Value {
    /// Writes a float always with a point, an exponent or a word, so that it differs from an
    /// integer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
        }
    }
}

/// An operation on one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOperator {
    /// `-x`; of the smallest integer an overflow.
    Negate,
    /// `abs(x)`; of the smallest integer an overflow.
    Abs,
    /// `sqrt(x)`: always a float, NaN for a negative operand.
    Sqrt,
    /// `floor(x)`: always a float, so an integer beyond 2⁵³ may be rounded.
    Floor,
}

/// An operation on two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOperator {
    /// `a + b`
    Add,
    /// `a - b`
    Subtract,
    /// `a * b`
    Multiply,
    /// `a / b`; integers truncate toward zero.
    Divide,
    /// `a % b`; the result has the sign of `a`.
    Remainder,
    /// `min(a, b)`: `if a < b { a } else { b }`.
    Min,
    /// `max(a, b)`: `if a > b { a } else { b }`.
    Max,
}

/// A node of an expression tree as it was written, without types.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A literal. A sign directly before it belongs to it, so `-9223372036854775808` is one.
    Literal(Value),
    /// A variable, by its place in [`Expression::variables`].
    Variable(usize),
    /// An operation on one operand.
    Unary(UnaryOperator, Box<Expr>),
    /// An operation on two operands.
    Binary(BinaryOperator, Box<Expr>, Box<Expr>),
}

/// A whole expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// The tree.
    pub root: Expr,
    /// The names of the variables in order of first appearance, at most [`MAX_VARIABLES`].
    pub variables: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_bits() {
        for value in [
            Value::Int(i64::MIN),
            Value::Int(-1),
            Value::Float(-0.0),
            Value::Float(2.5),
        ] {
            assert!(Value::from_bits(value.kind(), value.bits()).same(value));
        }
    }

    #[test]
    fn same_is_bitwise_but_for_nan() {
        let other_nan = f64::from_bits(f64::NAN.to_bits() ^ (1 << 63) ^ 1);
        assert!(Value::Float(f64::NAN).same(Value::Float(other_nan)));
        assert!(!Value::Float(0.0).same(Value::Float(-0.0)));
        assert!(!Value::Float(0.0).same(Value::Int(0)));
    }

    #[test]
    fn floats_print_as_floats() {
        assert_eq!(Value::Int(7).to_string(), "7");
        assert_eq!(Value::Float(7.0).to_string(), "7.0");
        assert_eq!(Value::Float(f64::NEG_INFINITY).to_string(), "-inf");
    }
}
