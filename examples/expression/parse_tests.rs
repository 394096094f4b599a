//! Tests of the parser.

use super::*;
use crate::ast::Type;
use crate::compile::{compile_aarch64, compile_x86_64};
use crate::interpret::interpret;
use crate::print::print;
use crate::typing::TypedExpr;

fn message(source: &str) -> String {
    match parse(source) {
        Ok(expression) => format!("parsed as {expression:?}"),
        Err(error) => error.to_string(),
    }
}

fn literal(value: i64) -> Expr {
    Expr::Literal(Value::Int(value))
}

/// Parses and prints with the fewest parentheses that keep the tree.
fn normal(source: &str) -> String {
    parse(source).map_or_else(|error| error.to_string(), |expression| print(&expression))
}

#[test]
fn precedence_and_associativity() {
    let binary = |operator, left, right| Expr::Binary(operator, Box::new(left), Box::new(right));
    use BinaryOperator::{Add, Multiply, Subtract};
    let expected = binary(
        Subtract,
        binary(Add, literal(1), binary(Multiply, literal(2), literal(3))),
        literal(4),
    );
    assert_eq!(parse("1+2*3-4").map(|parsed| parsed.root), Ok(expected));
    assert_eq!(normal("((1+2)+3)"), "1 + 2 + 3");
    assert_eq!(normal("(1+(2+3))"), "1 + (2 + 3)");
    assert_eq!(normal("(a*b)%c/d"), "a * b % c / d");
    assert_eq!(normal("a*(b%c)"), "a * (b % c)");
    assert_eq!(normal("-(a)*b"), "-a * b");
    assert_eq!(normal("-(a*b)"), "-(a * b)");
    assert_eq!(normal("(a-b)-(c-d)"), "a - b - (c - d)");
    assert_eq!(normal("max ( a , min(b,c) )"), "max(a, min(b, c))");
}

#[test]
fn a_sign_belongs_to_the_literal_after_it() {
    let negate = |operand| Expr::Unary(UnaryOperator::Negate, Box::new(operand));
    let root = |source| parse(source).map(|parsed| parsed.root);
    assert_eq!(root("-5"), Ok(literal(-5)));
    assert_eq!(root("--5"), Ok(negate(literal(-5))));
    assert_eq!(root("-(5)"), Ok(negate(literal(5))));
    assert_eq!(root("- 1.5"), Ok(Expr::Literal(Value::Float(-1.5))));
}

#[test]
fn integers_reach_both_ends_of_their_range() {
    assert_eq!(
        parse("-9223372036854775808").map(|parsed| parsed.root),
        Ok(literal(i64::MIN))
    );
    assert_eq!(
        parse("9223372036854775807").map(|parsed| parsed.root),
        Ok(literal(i64::MAX))
    );
    assert_eq!(
        message("1 + 9223372036854775808"),
        "number '9223372036854775808' out of range at column 5"
    );
    assert_eq!(
        message("-9223372036854775809"),
        "number '-9223372036854775809' out of range at column 2"
    );
    assert_eq!(
        message("-(9223372036854775808)"),
        "number '9223372036854775808' out of range at column 3"
    );
    assert_eq!(message("1e999"), "number '1e999' out of range at column 1");
}

#[test]
fn variables_are_numbered_by_first_appearance() {
    let parsed = parse("y + x*y + min").map(|parsed| parsed.variables);
    assert_eq!(
        parsed,
        Ok(vec!["y".to_owned(), "x".to_owned(), "min".to_owned()])
    );
}

#[test]
fn errors_name_the_column() {
    for (source, expected) in [
        ("", "unexpected end of the expression at column 1"),
        ("   ", "unexpected end of the expression at column 4"),
        ("1 + 2 )", "unexpected ')' at column 7"),
        ("(1 + 2", "unexpected end of the expression at column 7"),
        ("1 + * 2", "unexpected '*' at column 5"),
        ("+1", "unexpected '+' at column 1"),
        ("1 2", "unexpected '2' at column 3"),
        ("x y", "unexpected 'y' at column 3"),
        ("()", "unexpected ')' at column 2"),
        ("1, 2", "unexpected ',' at column 2"),
        ("2x", "malformed number '2x' at column 1"),
        ("x $ y", "unknown character '$' at column 3"),
        ("x \u{7} y", "unknown character '\\u{7}' at column 3"),
        ("1 + foo(2)", "unknown function 'foo' at column 5"),
        ("x(2)", "unknown function 'x' at column 1"),
        (
            "sqrt()",
            "function 'sqrt' takes 1 argument, 0 given at column 1",
        ),
        (
            "abs(1, 2)",
            "function 'abs' takes 1 argument, 2 given at column 1",
        ),
        (
            "abs(1, 2, 3)",
            "function 'abs' takes 1 argument, 3 given at column 1",
        ),
        (
            "2*min(1)",
            "function 'min' takes 2 arguments, 1 given at column 3",
        ),
        (
            "max(1, 2, 3)",
            "function 'max' takes 2 arguments, 3 given at column 1",
        ),
        ("min(1,)", "unexpected ')' at column 7"),
        ("min(,1)", "unexpected ',' at column 5"),
        ("min(1, 2", "unexpected end of the expression at column 9"),
    ] {
        assert_eq!(message(source), expected, "{source:?}");
    }
}

#[test]
fn the_limits_are_exact() {
    let nested = |levels: usize| format!("{}x{}", "(".repeat(levels), ")".repeat(levels));
    assert!(parse(&nested(MAX_NESTING)).is_ok());
    assert_eq!(
        message(&nested(65)),
        "more than 64 levels of nesting at column 66"
    );

    let signs = |count: usize| format!("{}x", "-".repeat(count));
    assert!(parse(&signs(MAX_NESTING)).is_ok());
    assert_eq!(
        message(&signs(65)),
        "more than 64 levels of nesting at column 66"
    );

    let sum = |operators: usize| format!("x{}", "+x".repeat(operators));
    assert!(parse(&sum(MAX_HEIGHT)).is_ok());
    assert_eq!(
        message(&sum(513)),
        "more than 512 operations in a chain at column 1026"
    );
}

#[test]
fn hostile_length_is_an_error_and_no_crash() {
    const LONG: usize = 100_000;
    for unit in [
        "(",
        "-",
        "- ",
        "abs(",
        "min(x,",
        "x+(",
        "x+x*(-",
        "x+x*min(x,x+x*",
    ] {
        let result = parse(&unit.repeat(LONG));
        assert!(
            matches!(result, Err(ParseError::TooDeep { .. })),
            "{unit}: {result:?}"
        );
    }
    for unit in ["x+", "x*-", "x-(x)*", "1.5%2/"] {
        let result = parse(&(unit.repeat(LONG) + "x"));
        assert!(
            matches!(result, Err(ParseError::TooHigh { .. })),
            "{unit}: {result:?}"
        );
    }
    let digits = "9".repeat(LONG);
    assert!(matches!(
        parse(&digits),
        Err(ParseError::NumberOutOfRange { .. })
    ));
    let arguments = format!("min(1{})", ",1".repeat(LONG));
    assert!(matches!(
        parse(&arguments),
        Err(ParseError::ArgumentCount { found: 100_001, .. })
    ));
}

#[test]
fn the_limits_fit_half_the_stack_of_a_thread() {
    let work = || {
        let chain = format!("x{}", " - 1".repeat(MAX_HEIGHT));
        // Of all constructs this one has the most active calls of the parser for each level.
        let nested = "x+x*min(x,x+x*".repeat(MAX_NESTING) + "x" + &")".repeat(MAX_NESTING);
        for source in [chain, nested] {
            let expression = parse(&source);
            let result = expression.as_ref().map(|expression| {
                let typed = TypedExpr::new(expression, &[Type::Float]);
                assert!(compile_x86_64(&typed).is_ok());
                assert!(compile_aarch64(&typed).is_ok());
                assert!(parse(&print(expression)).as_ref() == Ok(expression));
                interpret(expression, &[Value::Float(2.0)]).map(Value::kind)
            });
            assert_eq!(result, Ok(Ok(Type::Float)));
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(work);
    assert!(thread.is_ok_and(|handle| handle.join().is_ok()));
}

#[test]
fn variables_are_bounded() {
    // A balanced tree, so that only the number of variables is large.
    fn balanced(first: usize, count: usize) -> String {
        if count == 1 {
            return format!("v{first}");
        }
        let half = count / 2;
        format!(
            "({}+{})",
            balanced(first, half),
            balanced(first + half, count - half)
        )
    }
    let parsed = parse(&balanced(0, MAX_VARIABLES));
    assert_eq!(
        parsed.map(|parsed| parsed.variables.len()),
        Ok(MAX_VARIABLES)
    );
    assert!(message(&balanced(0, MAX_VARIABLES + 1)).starts_with("more than 4096 variables at"));
}
