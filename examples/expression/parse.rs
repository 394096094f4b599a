//! The parser: precedence climbing over the tokens of [`crate::lex`].
//!
//! ```text
//! expression = unary { ('+' | '-' | '*' | '/' | '%') unary }     '*' '/' '%' bind tighter
//! unary      = '-' unary | primary
//! primary    = number | name | name '(' expression { ',' expression } ')' | '(' expression ')'
//! ```
//!
//! All operators associate to the left. A name is a function only directly before `(`.

use std::collections::HashMap;

use crate::ast::{
    BinaryOperator, Expr, Expression, MAX_HEIGHT, MAX_NESTING, MAX_VARIABLES, UnaryOperator, Value,
};
use crate::lex::{Lexer, Token, TokenKind};
pub use crate::parse_error::ParseError;

/// Parses `source`.
///
/// # Errors
/// The first mistake, with the column where it was noticed. Input of any length and nesting is
/// safe: [`MAX_NESTING`] bounds the recursion here, [`MAX_HEIGHT`] that of whoever walks the tree.
pub fn parse(source: &str) -> Result<Expression, ParseError> {
    let mut lexer = Lexer::new(source);
    let current = lexer.next_token()?;
    let mut parser = Parser {
        lexer,
        current,
        nesting: 0,
        indices: HashMap::new(),
        variables: Vec::new(),
    };
    let tree = parser.expression(0)?;
    match parser.current.kind {
        TokenKind::End => Ok(Expression {
            root: tree.expr,
            variables: parser.variables,
        }),
        _ => Err(parser.unexpected()),
    }
}

/// A tree and its height: how many operations lie between its result and its furthest leaf.
struct Tree {
    expr: Expr,
    height: usize,
}

impl Tree {
    fn leaf(expr: Expr) -> Self {
        Self { expr, height: 0 }
    }

    fn unary(operator: UnaryOperator, operand: Self, column: usize) -> Result<Self, ParseError> {
        let height = height_above(operand.height, column)?;
        Ok(Self {
            expr: Expr::Unary(operator, Box::new(operand.expr)),
            height,
        })
    }

    fn binary(
        operator: BinaryOperator,
        left: Self,
        right: Self,
        column: usize,
    ) -> Result<Self, ParseError> {
        let height = height_above(left.height.max(right.height), column)?;
        let expr = Expr::Binary(operator, Box::new(left.expr), Box::new(right.expr));
        Ok(Self { expr, height })
    }
}

fn height_above(height: usize, column: usize) -> Result<usize, ParseError> {
    if height == MAX_HEIGHT {
        Err(ParseError::TooHigh { column })
    } else {
        Ok(height + 1)
    }
}

struct Parser<'s> {
    lexer: Lexer<'s>,
    current: Token<'s>,
    /// How many calls of [`Parser::unary`] are active; every cycle of the recursion has one.
    nesting: usize,
    indices: HashMap<&'s str, usize>,
    variables: Vec<String>,
}

impl<'s> Parser<'s> {
    /// Replaces the current token by the next and returns it.
    fn advance(&mut self) -> Result<Token<'s>, ParseError> {
        let next = self.lexer.next_token()?;
        Ok(std::mem::replace(&mut self.current, next))
    }

    fn at(&self, symbol: char) -> bool {
        self.current.kind == TokenKind::Symbol(symbol)
    }

    fn expect(&mut self, symbol: char) -> Result<(), ParseError> {
        if !self.at(symbol) {
            return Err(self.unexpected());
        }
        self.advance().map(|_| ())
    }

    fn unexpected(&self) -> ParseError {
        let Token { kind, text, column } = self.current;
        match kind {
            TokenKind::End => ParseError::UnexpectedEnd { column },
            _ => ParseError::Unexpected {
                text: text.to_owned(),
                column,
            },
        }
    }

    /// Parses operators that bind at least as tightly as `minimum`.
    fn expression(&mut self, minimum: u8) -> Result<Tree, ParseError> {
        let mut left = self.unary()?;
        while let Some((operator, precedence)) = infix(self.current.kind) {
            if precedence < minimum {
                break;
            }
            let column = self.advance()?.column;
            let right = self.expression(precedence + 1)?;
            left = Tree::binary(operator, left, right, column)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Tree, ParseError> {
        if self.nesting > MAX_NESTING {
            return Err(ParseError::TooDeep {
                column: self.current.column,
            });
        }
        self.nesting += 1;
        let tree = if self.at('-') {
            self.negation()
        } else {
            self.primary()
        }?;
        // After an error the parser is not used again, so only success has to restore this.
        self.nesting -= 1;
        Ok(tree)
    }

    /// Parses `-` and its operand; before a literal the sign becomes part of it.
    fn negation(&mut self) -> Result<Tree, ParseError> {
        let column = self.advance()?.column;
        match self.current.kind {
            TokenKind::Integer => self.integer("-").map(Tree::leaf),
            TokenKind::Float(value) => {
                self.advance()?;
                Ok(Tree::leaf(Expr::Literal(Value::Float(-value))))
            }
            _ => Tree::unary(UnaryOperator::Negate, self.unary()?, column),
        }
    }

    fn primary(&mut self) -> Result<Tree, ParseError> {
        match self.current.kind {
            TokenKind::Integer => self.integer("").map(Tree::leaf),
            TokenKind::Float(value) => {
                self.advance()?;
                Ok(Tree::leaf(Expr::Literal(Value::Float(value))))
            }
            TokenKind::Name => {
                let name = self.advance()?;
                if self.at('(') {
                    self.call(name)
                } else {
                    self.variable(name).map(Tree::leaf)
                }
            }
            TokenKind::Symbol('(') => {
                self.advance()?;
                let tree = self.expression(0)?;
                self.expect(')')?;
                Ok(tree)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn integer(&mut self, sign: &str) -> Result<Expr, ParseError> {
        let Token { text, column, .. } = self.advance()?;
        let text = format!("{sign}{text}");
        match text.parse() {
            Ok(value) => Ok(Expr::Literal(Value::Int(value))),
            // The lexer let only digits through, so nothing but the range can be wrong.
            Err(_) => Err(ParseError::NumberOutOfRange { text, column }),
        }
    }

    fn variable(&mut self, name: Token<'s>) -> Result<Expr, ParseError> {
        if let Some(index) = self.indices.get(name.text) {
            return Ok(Expr::Variable(*index));
        }
        let index = self.variables.len();
        if index == MAX_VARIABLES {
            return Err(ParseError::TooManyVariables {
                column: name.column,
            });
        }
        self.indices.insert(name.text, index);
        self.variables.push(name.text.to_owned());
        Ok(Expr::Variable(index))
    }

    fn call(&mut self, name: Token<'s>) -> Result<Tree, ParseError> {
        let Some(function) = function(name.text) else {
            let Token { text, column, .. } = name;
            return Err(ParseError::UnknownFunction {
                name: text.to_owned(),
                column,
            });
        };
        self.expect('(')?;
        let (first, second, found) = self.arguments()?;
        let wrong_count = |expected| ParseError::ArgumentCount {
            name: name.text.to_owned(),
            expected,
            found,
            column: name.column,
        };
        match (function, first, second) {
            (Function::Unary(operator), Some(operand), None) => {
                Tree::unary(operator, operand, name.column)
            }
            (Function::Binary(operator), Some(left), Some(right)) if found == 2 => {
                Tree::binary(operator, left, right, name.column)
            }
            (Function::Unary(_), ..) => Err(wrong_count(1)),
            (Function::Binary(_), ..) => Err(wrong_count(2)),
        }
    }

    /// Parses arguments and the `)` after them; returns the first two and how many there were.
    fn arguments(&mut self) -> Result<(Option<Tree>, Option<Tree>, usize), ParseError> {
        let (mut first, mut second, mut found) = (None, None, 0);
        if self.at(')') {
            self.advance()?;
            return Ok((first, second, found));
        }
        loop {
            let argument = self.expression(0)?;
            found += 1;
            match found {
                1 => first = Some(argument),
                2 => second = Some(argument),
                _ => {}
            }
            if !self.at(',') {
                break;
            }
            self.advance()?;
        }
        self.expect(')')?;
        Ok((first, second, found))
    }
}

/// Returns the operator that `kind` stands for between two operands, and its precedence.
fn infix(kind: TokenKind) -> Option<(BinaryOperator, u8)> {
    let TokenKind::Symbol(symbol) = kind else {
        return None;
    };
    match symbol {
        '+' => Some((BinaryOperator::Add, 1)),
        '-' => Some((BinaryOperator::Subtract, 1)),
        '*' => Some((BinaryOperator::Multiply, 2)),
        '/' => Some((BinaryOperator::Divide, 2)),
        '%' => Some((BinaryOperator::Remainder, 2)),
        _ => None,
    }
}

enum Function {
    Unary(UnaryOperator),
    Binary(BinaryOperator),
}

fn function(name: &str) -> Option<Function> {
    match name {
        "abs" => Some(Function::Unary(UnaryOperator::Abs)),
        "sqrt" => Some(Function::Unary(UnaryOperator::Sqrt)),
        "floor" => Some(Function::Unary(UnaryOperator::Floor)),
        "min" => Some(Function::Binary(BinaryOperator::Min)),
        "max" => Some(Function::Binary(BinaryOperator::Max)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
