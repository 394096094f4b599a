//! Tests of the code generators: generated code against the interpreter.
//!
//! Code runs only for the host's CPU; the other generator must at least produce code.

use super::*;
use crate::ast::{Expr, Expression, MAX_HEIGHT, MAX_NESTING};
use crate::interpret::interpret;
use crate::parse::parse;
use crate::print::print;
use crate::random::{EDGE_FLOATS, EDGE_INTEGERS, Random, random_expression, random_values};
use crate::runner;

const BINARY: [&str; 7] = ["a+b", "a-b", "a*b", "a/b", "a%b", "min(a,b)", "max(a,b)"];
const UNARY: [&str; 4] = ["-a", "abs(a)", "sqrt(a)", "floor(a)"];

fn edge_values() -> impl Iterator<Item = Value> + Clone {
    let integers = EDGE_INTEGERS.into_iter().map(Value::Int);
    integers.chain(EDGE_FLOATS.into_iter().map(Value::Float))
}

fn expression(source: &str) -> Expression {
    parse(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

/// Compiles and runs `expression`, and compares the outcome with the interpreter's.
fn check(expression: &Expression, values: &[Value], context: &str) -> Result<Value, EvalError> {
    let kinds: Vec<Type> = values.iter().map(|value| value.kind()).collect();
    let typed = TypedExpr::new(expression, &kinds);
    let code = compile(&typed).unwrap_or_else(|error| panic!("{context}: {error}"));
    let bits: Vec<u64> = values.iter().map(|value| value.bits()).collect();
    let (status, result) = runner::run(&code, &bits);
    let compiled = outcome(status, result, typed.kind());
    let interpreted = interpret(expression, values);
    let same = match (compiled, interpreted) {
        (Ok(a), Ok(b)) => a.same(b),
        (a, b) => a == b,
    };
    let text = || print(expression);
    assert!(
        same,
        "{context}: {compiled:?}, not {interpreted:?}: {} with {values:?}",
        text()
    );
    compiled
}

#[test]
fn random_expressions_agree_with_the_interpreter() {
    const SEED: u64 = 0x1dea;
    let mut random = Random::new(SEED);
    let (mut values_seen, mut zeros, mut overflows) = (0, 0, 0);
    for round in 0..20_000 {
        let expression = random_expression(&mut random);
        let values = random_values(&mut random, expression.variables.len());
        match check(
            &expression,
            &values,
            &format!("seed {SEED:#x} round {round}"),
        ) {
            Ok(_) => values_seen += 1,
            Err(EvalError::DivisionByZero) => zeros += 1,
            Err(EvalError::Overflow) => overflows += 1,
        }
    }
    // Else the expressions would prove little.
    assert!(
        values_seen > 10_000 && zeros > 500 && overflows > 500,
        "{zeros} {overflows}"
    );
}

#[test]
fn every_operation_agrees_on_all_edge_values() {
    for source in UNARY {
        for value in edge_values() {
            let _ = check(&expression(source), &[value], source);
        }
    }
    for source in BINARY {
        for a in edge_values() {
            for b in edge_values() {
                let _ = check(&expression(source), &[a, b], source);
            }
        }
    }
}

#[test]
fn every_operation_agrees_with_operands_from_the_stack() {
    // No right operand is a leaf, so the left ones are pushed; the helpers of `%` and `floor` are
    // called with none, one and two operands on the stack.
    for right in ["b+0", "b-0.0", "b%3.0", "b-(b%3.0)", "b*floor(b%2)"] {
        for source in BINARY {
            let source = source.replace('b', &format!("({right})"));
            for (a, b) in edge_values().flat_map(|a| edge_values().map(move |b| (a, b))) {
                let _ = check(&expression(&source), &[a, b], &source);
            }
        }
    }
}

#[test]
fn literals_agree_like_variables() {
    for source in BINARY {
        let Expr::Binary(operator, ..) = expression(source).root else {
            panic!("not binary: {source}");
        };
        for a in edge_values() {
            for b in edge_values() {
                let (left, right) = (Box::new(Expr::Literal(a)), Box::new(Expr::Literal(b)));
                let root = Expr::Binary(operator, left, right);
                let _ = check(
                    &Expression {
                        root,
                        variables: Vec::new(),
                    },
                    &[],
                    source,
                );
            }
        }
    }
}

#[test]
fn the_smallest_integer_over_minus_one_does_not_trap() {
    let run = |source: &str| check(&expression(source), &[Value::Int(i64::MIN)], source);
    assert_eq!(run("x / -1"), Err(EvalError::Overflow));
    assert_eq!(run("x % -1"), Ok(Value::Int(0)));
    assert_eq!(run("x / (0 - 1)"), Err(EvalError::Overflow));
}

#[test]
fn the_last_variable_is_reached() {
    let variables: Vec<String> = (0..MAX_VARIABLES)
        .map(|index| format!("v{index}"))
        .collect();
    let values: Vec<Value> = (0..MAX_VARIABLES as i64)
        .map(|index| Value::Int(-index))
        .collect();
    for index in [0, 15, 16, 4094, MAX_VARIABLES - 1] {
        let expression = Expression {
            root: Expr::Variable(index),
            variables: variables.clone(),
        };
        let result = check(&expression, &values, "the last variables");
        assert_eq!(result, Ok(Value::Int(-(index as i64))));
    }
}

#[test]
fn the_deepest_trees_run() {
    // Each level leaves two operands on the stack when the innermost helper is called; adding 0.5
    // keeps the divisors from zero.
    let right = "0.5 + x % (".repeat(MAX_NESTING) + "x" + &")".repeat(MAX_NESTING);
    let left = format!("x{}", " * 1.5".repeat(MAX_HEIGHT));
    for source in [right, left] {
        let result = check(
            &expression(&source),
            &[Value::Float(9.0)],
            "the deepest trees",
        );
        assert!(result.is_ok());
    }
}

#[test]
fn both_generators_take_everything() {
    let mut random = Random::new(2);
    for _ in 0..1_000 {
        let expression = random_expression(&mut random);
        let values = random_values(&mut random, expression.variables.len());
        let kinds: Vec<Type> = values.iter().map(|value| value.kind()).collect();
        let typed = TypedExpr::new(&expression, &kinds);
        let x86_64 = compile_x86_64(&typed).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            x86_64.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]),
            "ENDBR64 comes first"
        );
        let aarch64 = compile_aarch64(&typed).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            aarch64.starts_with(&[0x5f, 0x24, 0x03, 0xd5]),
            "BTI c comes first"
        );
        assert!(aarch64.len().is_multiple_of(4));
    }
}

#[test]
fn too_long_a_branch_is_an_error() {
    // A balanced tree of 2^17 divisions: B.cond cannot reach from the first check to the end.
    fn balanced(levels: u32) -> Expr {
        if levels == 0 {
            return Expr::Literal(Value::Int(1));
        }
        let (left, right) = (balanced(levels - 1), balanced(levels - 1));
        Expr::Binary(BinaryOperator::Divide, Box::new(left), Box::new(right))
    }
    let expression = Expression {
        root: balanced(17),
        variables: Vec::new(),
    };
    let typed = TypedExpr::new(&expression, &[]);
    assert!(matches!(
        compile_aarch64(&typed),
        Err(CompileError::TooLarge)
    ));
    assert!(compile_x86_64(&typed).is_ok());
}
