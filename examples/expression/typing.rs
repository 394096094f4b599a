//! Static types: which arithmetic each node uses, decided before anything runs.
//!
//! A literal without point and exponent is an integer, a variable has the type of its value. An
//! operation on two integers is integer arithmetic; if either operand is a float, the other is
//! converted first. `sqrt` and `floor` always convert and give a float.

use crate::ast::{BinaryOperator, Expr, Expression, Type, UnaryOperator, Value};

/// A node whose operands already have the type that its operation works on.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A number known in advance.
    Constant(Value),
    /// A variable, by its place among the values.
    Variable(usize, Type),
    /// An integer operand converted to a float, rounded to nearest.
    ToFloat(Box<Node>),
    /// An operation on one operand of the given type, with a result of the same type.
    Unary(UnaryOperator, Type, Box<Node>),
    /// An operation on two operands of the given type, with a result of the same type.
    Binary(BinaryOperator, Type, Box<Node>, Box<Node>),
}

impl Node {
    /// Returns the type of the result.
    pub fn kind(&self) -> Type {
        match self {
            Self::Constant(value) => value.kind(),
            Self::ToFloat(_) => Type::Float,
            Self::Variable(_, kind) | Self::Unary(_, kind, _) | Self::Binary(_, kind, ..) => *kind,
        }
    }

    /// Converts to `kind` where that is necessary; a float is never asked to become an integer.
    fn converted(self, kind: Type) -> Self {
        match (kind, self.kind()) {
            (Type::Float, Type::Int) => match self {
                Self::Constant(value) => Self::Constant(Value::Float(value.to_f64())),
                other => Self::ToFloat(Box::new(other)),
            },
            _ => self,
        }
    }
}

/// An expression with a type for each node: what the compiler takes.
#[derive(Clone, Debug, PartialEq)]
pub struct TypedExpr {
    root: Node,
}

impl TypedExpr {
    /// Decides the types of `expression` for values of the types `kinds`.
    ///
    /// # Panics
    /// Panics unless there is one type for each variable.
    pub fn new(expression: &Expression, kinds: &[Type]) -> Self {
        assert_eq!(
            kinds.len(),
            expression.variables.len(),
            "one type for each variable"
        );
        Self {
            root: typed(&expression.root, kinds),
        }
    }

    /// Returns the tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Returns the type of the result.
    pub fn kind(&self) -> Type {
        self.root.kind()
    }
}

fn typed(expr: &Expr, kinds: &[Type]) -> Node {
    match expr {
        Expr::Literal(value) => Node::Constant(*value),
        Expr::Variable(index) => Node::Variable(*index, kinds[*index]),
        Expr::Unary(operator, operand) => {
            let operand = typed(operand, kinds);
            let kind = match operator {
                UnaryOperator::Negate | UnaryOperator::Abs => operand.kind(),
                UnaryOperator::Sqrt | UnaryOperator::Floor => Type::Float,
            };
            Node::Unary(*operator, kind, Box::new(operand.converted(kind)))
        }
        Expr::Binary(operator, left, right) => {
            let (left, right) = (typed(left, kinds), typed(right, kinds));
            let kind = match (left.kind(), right.kind()) {
                (Type::Int, Type::Int) => Type::Int,
                _ => Type::Float,
            };
            let (left, right) = (left.converted(kind), right.converted(kind));
            Node::Binary(*operator, kind, Box::new(left), Box::new(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn kind(source: &str, kinds: &[Type]) -> Option<Type> {
        parse(source)
            .ok()
            .map(|parsed| TypedExpr::new(&parsed, kinds).kind())
    }

    #[test]
    fn floats_spread_and_integers_stay() {
        use Type::{Float, Int};
        assert_eq!(kind("1 + 2", &[]), Some(Int));
        assert_eq!(kind("1 + 2.0", &[]), Some(Float));
        assert_eq!(kind("7 / 2 % 3", &[]), Some(Int));
        assert_eq!(kind("x * y", &[Int, Int]), Some(Int));
        assert_eq!(kind("x * y", &[Int, Float]), Some(Float));
        assert_eq!(kind("min(x, 1) + abs(-2)", &[Int]), Some(Int));
        assert_eq!(kind("max(x, 1)", &[Float]), Some(Float));
        assert_eq!(kind("sqrt(4)", &[]), Some(Float));
        assert_eq!(kind("floor(x)", &[Int]), Some(Float));
    }

    #[test]
    fn conversions_are_where_the_types_meet() {
        // The integer quotient is computed as such; only its result is converted.
        let typed = parse("x / 2 + 0.5")
            .ok()
            .map(|parsed| TypedExpr::new(&parsed, &[Type::Int]));
        let quotient = Node::Binary(
            BinaryOperator::Divide,
            Type::Int,
            Box::new(Node::Variable(0, Type::Int)),
            Box::new(Node::Constant(Value::Int(2))),
        );
        let expected = Node::Binary(
            BinaryOperator::Add,
            Type::Float,
            Box::new(Node::ToFloat(Box::new(quotient))),
            Box::new(Node::Constant(Value::Float(0.5))),
        );
        assert_eq!(typed.as_ref().map(TypedExpr::root), Some(&expected));
    }

    #[test]
    fn literals_are_converted_in_advance() {
        let typed = parse("x * 3")
            .ok()
            .map(|parsed| TypedExpr::new(&parsed, &[Type::Float]));
        let expected = Node::Binary(
            BinaryOperator::Multiply,
            Type::Float,
            Box::new(Node::Variable(0, Type::Float)),
            Box::new(Node::Constant(Value::Float(3.0))),
        );
        assert_eq!(typed.as_ref().map(TypedExpr::root), Some(&expected));
    }
}
