//! A seeded generator of expressions and of values for their variables.

use crate::ast::{BinaryOperator, Expr, Expression, UnaryOperator, Value};

/// Greatest height of a generated tree: up to 127 nodes, enough for several live stack slots.
const HEIGHT: u32 = 7;

/// The names of the variables.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

const UNARY: [UnaryOperator; 4] = [
    UnaryOperator::Negate,
    UnaryOperator::Abs,
    UnaryOperator::Sqrt,
    UnaryOperator::Floor,
];

const BINARY: [BinaryOperator; 7] = [
    BinaryOperator::Add,
    BinaryOperator::Subtract,
    BinaryOperator::Multiply,
    BinaryOperator::Divide,
    BinaryOperator::Remainder,
    BinaryOperator::Min,
    BinaryOperator::Max,
];

/// Integers where arithmetic and its checks change their behaviour.
pub const EDGE_INTEGERS: [i64; 12] = [
    0,
    1,
    -1,
    2,
    -2,
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
    3_037_000_500,
    1 << 32,
    (1 << 53) + 1,
    -0x1234_5678_9abc,
];

/// Floats where arithmetic and its checks change their behaviour; the last three are no literals.
pub const EDGE_FLOATS: [f64; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    f64::MAX,
    f64::MIN_POSITIVE,
    -5e-324,
    4_503_599_627_370_497.5,
    1e300,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

/// How many of [`EDGE_FLOATS`] are finite.
const FINITE_EDGES: usize = EDGE_FLOATS.len() - 3;

/// A small generator of random numbers, SplitMix64 (Steele, Lea, Flood: "Fast splittable
/// pseudorandom number generators", OOPSLA 2014). The same seed gives the same sequence.
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is not zero.
    ///
    /// Small numbers are very slightly preferred, which does not matter for tests.
    pub fn below(&mut self, bound: usize) -> usize {
        // The remainder is below a `usize`, so the cast keeps it.
        (self.bits() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Makes a well-formed expression of at most [`HEIGHT`] levels.
///
/// Its variables are numbered by first appearance, as the parser does it, so that parsing the
/// printed expression gives it back.
pub fn random_expression(random: &mut Random) -> Expression {
    let mut variables = Vec::new();
    let height = 1 + random.below(HEIGHT as usize) as u32;
    let root = random_expr(random, height, &mut variables);
    Expression { root, variables }
}

/// Makes `count` values, of both types and often from the edges of their range.
pub fn random_values(random: &mut Random, count: usize) -> Vec<Value> {
    (0..count).map(|_| random_value(random)).collect()
}

fn random_expr(random: &mut Random, height: u32, variables: &mut Vec<String>) -> Expr {
    if height <= 1 {
        return random_leaf(random, variables);
    }
    match random.below(10) {
        0 => random_leaf(random, variables),
        1 | 2 => {
            let operator = random.pick(&UNARY);
            Expr::Unary(
                operator,
                Box::new(random_expr(random, height - 1, variables)),
            )
        }
        _ => {
            let operator = random.pick(&BINARY);
            let left = random_expr(random, height - 1, variables);
            let right = random_expr(random, height - 1, variables);
            Expr::Binary(operator, Box::new(left), Box::new(right))
        }
    }
}

fn random_leaf(random: &mut Random, variables: &mut Vec<String>) -> Expr {
    if random.below(3) == 0 {
        return Expr::Literal(random_literal(random));
    }
    let name = random.pick(&NAMES);
    let known = variables.iter().position(|variable| variable == name);
    Expr::Variable(known.unwrap_or_else(|| {
        variables.push(name.to_owned());
        variables.len() - 1
    }))
}

fn random_literal(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Int(random.pick(&EDGE_INTEGERS)),
        1 => Value::Float(random.pick(&EDGE_FLOATS[..FINITE_EDGES])),
        2..5 => Value::Float(small_integer(random) as f64 / 8.0),
        _ => Value::Int(small_integer(random)),
    }
}

fn random_value(random: &mut Random) -> Value {
    match random.below(16) {
        0 => Value::Int(random.pick(&EDGE_INTEGERS)),
        1 => Value::Int(random.bits().cast_signed()),
        2 => Value::Float(random.pick(&EDGE_FLOATS)),
        3 => Value::Float(f64::from_bits(random.bits())),
        4..8 => Value::Float(small_integer(random) as f64 / 8.0),
        _ => Value::Int(small_integer(random)),
    }
}

/// Small numbers, so that a good part of the expressions has a value and not an overflow.
fn small_integer(random: &mut Random) -> i64 {
    random.below(201) as i64 - 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Type;
    use crate::interpret::{EvalError, interpret};

    #[test]
    fn splitmix64_matches_its_reference() {
        // The first outputs of the reference implementation for the seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_same_seed_gives_the_same_expressions() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        for _ in 0..100 {
            assert_eq!(random_expression(&mut one), random_expression(&mut two));
        }
    }

    #[test]
    fn every_outcome_is_common() {
        let mut random = Random::new(1);
        let (mut ints, mut floats, mut zeros, mut overflows) = (0, 0, 0, 0);
        for _ in 0..2_000 {
            let expression = random_expression(&mut random);
            let values = random_values(&mut random, expression.variables.len());
            match interpret(&expression, &values).map(Value::kind) {
                Ok(Type::Int) => ints += 1,
                Ok(Type::Float) => floats += 1,
                Err(EvalError::DivisionByZero) => zeros += 1,
                Err(EvalError::Overflow) => overflows += 1,
            }
        }
        let smallest = [ints, floats, zeros, overflows].into_iter().min();
        assert!(smallest >= Some(50), "{ints} {floats} {zeros} {overflows}");
    }
}
