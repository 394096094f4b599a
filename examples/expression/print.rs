//! The inverse of the parser: a tree back to source text.

use crate::ast::{BinaryOperator, Expr, Expression, UnaryOperator, Value};

/// How tightly the loosest part of a text binds; the same order as in the parser.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Binding {
    Sum,
    Product,
    Operand,
}

/// Writes `expression` as source text with the fewest parentheses.
///
/// Parsing the text gives an equal expression, provided that the literals are finite (there is no
/// source for others) and that the variables are numbered by first appearance.
pub fn print(expression: &Expression) -> String {
    let mut text = String::new();
    write_expr(
        &mut text,
        &expression.root,
        &expression.variables,
        Binding::Sum,
    );
    text
}

fn write_expr(text: &mut String, expr: &Expr, names: &[String], minimum: Binding) {
    match expr {
        Expr::Literal(value) => text.push_str(&value.to_string()),
        Expr::Variable(index) => text.push_str(&names[*index]),
        Expr::Unary(UnaryOperator::Negate, operand) => {
            text.push('-');
            // Without parentheses the sign would become part of the literal.
            let literal = matches!(**operand, Expr::Literal(value) if !is_signed(value));
            parenthesised(text, literal, |text| {
                write_expr(text, operand, names, Binding::Operand);
            });
        }
        Expr::Unary(operator, operand) => {
            text.push_str(function(*operator));
            parenthesised(text, true, |text| {
                write_expr(text, operand, names, Binding::Sum)
            });
        }
        Expr::Binary(operator, left, right) => {
            write_binary(text, *operator, [left, right], names, minimum);
        }
    }
}

fn write_binary(
    text: &mut String,
    operator: BinaryOperator,
    [left, right]: [&Expr; 2],
    names: &[String],
    minimum: Binding,
) {
    let (symbol, binding, above) = match operator {
        BinaryOperator::Add => (" + ", Binding::Sum, Binding::Product),
        BinaryOperator::Subtract => (" - ", Binding::Sum, Binding::Product),
        BinaryOperator::Multiply => (" * ", Binding::Product, Binding::Operand),
        BinaryOperator::Divide => (" / ", Binding::Product, Binding::Operand),
        BinaryOperator::Remainder => (" % ", Binding::Product, Binding::Operand),
        BinaryOperator::Min | BinaryOperator::Max => {
            text.push_str(if operator == BinaryOperator::Min {
                "min"
            } else {
                "max"
            });
            return parenthesised(text, true, |text| {
                write_expr(text, left, names, Binding::Sum);
                text.push_str(", ");
                write_expr(text, right, names, Binding::Sum);
            });
        }
    };
    parenthesised(text, binding < minimum, |text| {
        write_expr(text, left, names, binding);
        text.push_str(symbol);
        // Operators associate to the left, so an equally tight right operand needs parentheses.
        write_expr(text, right, names, above);
    });
}

fn parenthesised(text: &mut String, needed: bool, content: impl FnOnce(&mut String)) {
    if needed {
        text.push('(');
    }
    content(text);
    if needed {
        text.push(')');
    }
}

fn is_signed(value: Value) -> bool {
    match value {
        Value::Int(value) => value.is_negative(),
        Value::Float(value) => value.is_sign_negative(),
    }
}

fn function(operator: UnaryOperator) -> &'static str {
    match operator {
        UnaryOperator::Negate => "-",
        UnaryOperator::Abs => "abs",
        UnaryOperator::Sqrt => "sqrt",
        UnaryOperator::Floor => "floor",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::random::{Random, random_expression};

    #[test]
    fn signs_and_literals_keep_apart() {
        for source in [
            "-(5)",
            "--5",
            "-(-x)",
            "-(1.5) * -2",
            "x - -3",
            "-(0.0)",
            "--0.0",
        ] {
            let parsed = parse(source);
            let again = parsed.as_ref().map(|parsed| parse(&print(parsed)));
            assert_eq!(again, Ok(parsed.clone()), "{source}");
        }
    }

    #[test]
    fn random_expressions_survive_printing_and_parsing() {
        const SEED: u64 = 0x5eed;
        let mut random = Random::new(SEED);
        for round in 0..5_000 {
            let expression = random_expression(&mut random);
            let text = print(&expression);
            let parsed = parse(&text);
            assert_eq!(
                parsed.as_ref(),
                Ok(&expression),
                "seed {SEED:#x} round {round}: {text}"
            );
            // Equality takes 0.0 and -0.0 for the same, the text does not.
            assert_eq!(parsed.map(|parsed| print(&parsed)), Ok(text));
        }
    }
}
