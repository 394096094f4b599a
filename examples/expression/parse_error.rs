//! Errors in an expression's source.

use std::{error, fmt};

use crate::ast::{MAX_HEIGHT, MAX_NESTING, MAX_VARIABLES};

/// A mistake in the source of an expression. Columns count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// A token that cannot stand where it does.
    Unexpected {
        /// The token.
        text: String,
        /// Where it starts.
        column: usize,
    },
    /// The source ends where an operand or a `)` was still due.
    UnexpectedEnd {
        /// The column after the last character.
        column: usize,
    },
    /// A character that no token starts with.
    UnknownCharacter {
        /// The character.
        found: char,
        /// Where it is.
        column: usize,
    },
    /// Something that starts like a number but is none.
    MalformedNumber {
        /// The text.
        text: String,
        /// Where it starts.
        column: usize,
    },
    /// A literal that its type cannot hold.
    NumberOutOfRange {
        /// The text, with the sign that belongs to it.
        text: String,
        /// Where its digits start.
        column: usize,
    },
    /// A call of a function that does not exist.
    UnknownFunction {
        /// The name.
        name: String,
        /// Where it starts.
        column: usize,
    },
    /// A call with too few or too many arguments.
    ArgumentCount {
        /// The function.
        name: String,
        /// How many arguments it takes.
        expected: usize,
        /// How many it was given.
        found: usize,
        /// Where its name starts.
        column: usize,
    },
    /// More than [`MAX_NESTING`] levels of parentheses, calls and signs.
    TooDeep {
        /// Where the limit was passed.
        column: usize,
    },
    /// More than [`MAX_HEIGHT`] operations, each on the result of the one before.
    TooHigh {
        /// Where the operation over the limit is.
        column: usize,
    },
    /// More than [`MAX_VARIABLES`] variables.
    TooManyVariables {
        /// Where the first one too many is.
        column: usize,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected { text, column } => {
                write!(f, "unexpected '{text}' at column {column}")
            }
            Self::UnexpectedEnd { column } => {
                write!(f, "unexpected end of the expression at column {column}")
            }
            Self::UnknownCharacter { found, column } => {
                write!(f, "unknown character {found:?} at column {column}")
            }
            Self::MalformedNumber { text, column } => {
                write!(f, "malformed number '{text}' at column {column}")
            }
            Self::NumberOutOfRange { text, column } => {
                write!(f, "number '{text}' out of range at column {column}")
            }
            Self::UnknownFunction { name, column } => {
                write!(f, "unknown function '{name}' at column {column}")
            }
            Self::ArgumentCount {
                name,
                expected,
                found,
                column,
            } => {
                let plural = if *expected == 1 { "" } else { "s" };
                write!(
                    f,
                    "function '{name}' takes {expected} argument{plural}, \
                     {found} given at column {column}"
                )
            }
            Self::TooDeep { column } => {
                write!(
                    f,
                    "more than {MAX_NESTING} levels of nesting at column {column}"
                )
            }
            Self::TooHigh { column } => {
                write!(
                    f,
                    "more than {MAX_HEIGHT} operations in a chain at column {column}"
                )
            }
            Self::TooManyVariables { column } => {
                write!(f, "more than {MAX_VARIABLES} variables at column {column}")
            }
        }
    }
}

impl error::Error for ParseError {}
