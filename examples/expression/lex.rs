//! The lexer: source text to tokens with their columns.

use crate::parse::ParseError;

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenKind {
    /// Decimal digits only. Not yet converted: the range depends on a sign before it.
    Integer,
    /// A number with a point or an exponent.
    Float(f64),
    /// The name of a variable or a function.
    Name,
    /// One of `+ - * / % ( ) ,`.
    Symbol(char),
    /// The end of the source.
    End,
}

/// One token of the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'s> {
    /// Its kind.
    pub kind: TokenKind,
    /// Its text.
    pub text: &'s str,
    /// Where it starts, counted in characters from 1.
    pub column: usize,
}

/// Splits a source text into tokens.
pub struct Lexer<'s> {
    rest: &'s str,
    column: usize,
}

impl<'s> Lexer<'s> {
    /// Starts at the beginning of `source`.
    pub fn new(source: &'s str) -> Self {
        Self {
            rest: source,
            column: 1,
        }
    }

    /// Returns the next token; at the end, [`TokenKind::End`] again and again.
    ///
    /// # Errors
    /// A character that no token starts with, or a number that is malformed or out of range.
    pub fn next_token(&mut self) -> Result<Token<'s>, ParseError> {
        self.skip_space();
        let column = self.column;
        let Some(first) = self.rest.chars().next() else {
            return Ok(Token {
                kind: TokenKind::End,
                text: "",
                column,
            });
        };
        match first {
            '+' | '-' | '*' | '/' | '%' | '(' | ')' | ',' => {
                let text = self.take(1);
                Ok(Token {
                    kind: TokenKind::Symbol(first),
                    text,
                    column,
                })
            }
            '0'..='9' | '.' => {
                let text = self.take(number_length(self.rest.as_bytes()));
                Ok(Token {
                    kind: number_kind(text, column)?,
                    text,
                    column,
                })
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let text = self.take(name_length(self.rest.as_bytes()));
                Ok(Token {
                    kind: TokenKind::Name,
                    text,
                    column,
                })
            }
            found => Err(ParseError::UnknownCharacter { found, column }),
        }
    }

    fn skip_space(&mut self) {
        let trimmed = self.rest.trim_start();
        let space = &self.rest[..self.rest.len() - trimmed.len()];
        self.column += space.chars().count();
        self.rest = trimmed;
    }

    /// Takes `length` bytes, all of them ASCII and so one column each.
    fn take(&mut self, length: usize) -> &'s str {
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.column += length;
        text
    }
}

/// Tells whether `text` can name a variable: a letter or `_`, then letters, digits or `_`.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.as_bytes()[0].is_ascii_digit()
        && name_length(text.as_bytes()) == text.len()
}

fn name_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
        .count()
}

/// Measures everything that looks like it belongs to a number, so that `2e`, `1.2.3` and `12ab`
/// are reported whole instead of as a number and a surprising rest.
fn number_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    while let Some(byte) = bytes.get(length) {
        let exponent_sign = matches!(byte, b'+' | b'-')
            && length > 0
            && matches!(bytes[length - 1], b'e' | b'E')
            && bytes.get(length + 1).is_some_and(u8::is_ascii_digit);
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || exponent_sign) {
            break;
        }
        length += 1;
    }
    length
}

fn number_kind(text: &str, column: usize) -> Result<TokenKind, ParseError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(TokenKind::Integer);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(TokenKind::Float(value)),
        Ok(_) => Err(ParseError::NumberOutOfRange {
            text: text.to_owned(),
            column,
        }),
        Err(_) => Err(ParseError::MalformedNumber {
            text: text.to_owned(),
            column,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Result<Vec<(TokenKind, usize)>, ParseError> {
        let mut lexer = Lexer::new(source);
        let mut tokens = Vec::new();
        loop {
            let token = lexer.next_token()?;
            if token.kind == TokenKind::End {
                return Ok(tokens);
            }
            tokens.push((token.kind, token.column));
        }
    }

    #[test]
    fn numbers_take_their_exponent() {
        use TokenKind::{Float, Integer, Symbol};
        assert_eq!(kinds("1.5"), Ok(vec![(Float(1.5), 1)]));
        assert_eq!(kinds("2e3 .5"), Ok(vec![(Float(2e3), 1), (Float(0.5), 5)]));
        assert_eq!(kinds("2E-3"), Ok(vec![(Float(2e-3), 1)]));
        assert_eq!(kinds("1.e+2"), Ok(vec![(Float(100.0), 1)]));
        assert_eq!(
            kinds("1-2"),
            Ok(vec![(Integer, 1), (Symbol('-'), 2), (Integer, 3)])
        );
    }

    #[test]
    fn malformed_numbers_are_reported_whole() {
        for text in [
            "2e", "1.2.3", "12ab", ".", "0x1f", "1_000", "2ee+5", "0x1e+5", "9x",
        ] {
            let expected = ParseError::MalformedNumber {
                text: text.to_owned(),
                column: 2,
            };
            assert_eq!(kinds(&format!(" {text}")), Err(expected), "{text}");
        }
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        // U+00A0 and U+2003 are spaces of two and three bytes.
        assert_eq!(kinds("\u{a0}\u{2003}x"), Ok(vec![(TokenKind::Name, 3)]));
        let expected = ParseError::UnknownCharacter {
            found: 'é',
            column: 2,
        };
        assert_eq!(kinds("xé"), Err(expected));
    }

    #[test]
    fn names() {
        assert!(is_name("x") && is_name("_a9"));
        assert!(!is_name("") && !is_name("9a") && !is_name("a-b") && !is_name("é"));
    }
}
