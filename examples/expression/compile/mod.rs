//! The compiler: a typed tree to machine code.
//!
//! The code is that of a stack machine with two registers. [`generate`] walks the tree and tells a
//! [`Target`] what to do; the targets, one file for each CPU, only know instructions. Every target
//! is built on every host, so that none is forgotten; [`compile`] chooses the host's.
//!
//! The generated function is position independent and has the type [`Function`]: it reads the raw
//! bits of the variables, in order of first appearance, from its first argument, and returns one
//! of the `STATUS` constants. With [`STATUS_OK`] it has stored the raw bits of the result through
//! its second argument; else it has stored nothing.

use std::{error, fmt};

use dynasmrt::DynasmError;

use crate::ast::{BinaryOperator, MAX_VARIABLES, Type, UnaryOperator, Value};
use crate::interpret::EvalError;
use crate::typing::{Node, TypedExpr};

mod aarch64;
mod x86_64;

/// The generated function.
///
/// # Safety
/// A caller passes a pointer to the bits of every variable and one to a writable `u64`, for an
/// expression of whose variables the types are those that it was compiled for.
pub type Function = unsafe extern "C" fn(variables: *const u64, result: *mut u64) -> u32;

/// The expression has a value, and it was stored.
pub const STATUS_OK: u32 = 0;
/// See [`EvalError::DivisionByZero`].
pub const STATUS_DIVISION_BY_ZERO: u32 = 1;
/// See [`EvalError::Overflow`].
pub const STATUS_OVERFLOW: u32 = 2;

/// Why there is no code for an expression.
#[derive(Debug)]
pub enum CompileError {
    /// There is no code generator for the host's CPU.
    UnsupportedCpu,
    /// A branch would be too long: on AArch64 beyond 1 MiB, some 10,000 operators.
    TooLarge,
    /// The assembler refused an instruction for another reason, which is a bug in the generator.
    Assembler(DynasmError),
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedCpu => write!(f, "no code generator for this CPU"),
            Self::TooLarge => write!(f, "expression too large to compile"),
            Self::Assembler(error) => write!(f, "assembler: {error}"),
        }
    }
}

impl error::Error for CompileError {}

impl From<DynasmError> for CompileError {
    fn from(error: DynasmError) -> Self {
        match error {
            DynasmError::ImpossibleRelocation(_) => Self::TooLarge,
            other => Self::Assembler(other),
        }
    }
}

/// Compiles `expression` for the host's CPU.
///
/// # Errors
/// [`CompileError::UnsupportedCpu`] on a CPU other than x86-64 and AArch64, and what
/// [`compile_x86_64`] and [`compile_aarch64`] return.
pub fn compile(expression: &TypedExpr) -> Result<Vec<u8>, CompileError> {
    if cfg!(target_arch = "x86_64") {
        compile_x86_64(expression)
    } else if cfg!(target_arch = "aarch64") {
        compile_aarch64(expression)
    } else {
        Err(CompileError::UnsupportedCpu)
    }
}

/// Compiles `expression` for x86-64, for any CPU of that kind and the System V calling convention.
///
/// The code calls helpers at the addresses that they have in this process.
///
/// # Errors
/// [`CompileError::TooLarge`].
pub fn compile_x86_64(expression: &TypedExpr) -> Result<Vec<u8>, CompileError> {
    generate(x86_64::X86_64::new(), expression)
}

/// Compiles `expression` for AArch64, for any CPU of that kind and the AAPCS64 calling convention.
///
/// The code calls helpers at the addresses that they have in this process.
///
/// # Errors
/// [`CompileError::TooLarge`].
pub fn compile_aarch64(expression: &TypedExpr) -> Result<Vec<u8>, CompileError> {
    generate(aarch64::Aarch64::new(), expression)
}

/// Translates what a generated function returned and stored.
///
/// # Errors
/// The error that `status` stands for.
///
/// # Panics
/// Panics if `status` is none of the `STATUS` constants.
pub fn outcome(status: u32, bits: u64, kind: Type) -> Result<Value, EvalError> {
    match status {
        STATUS_OK => Ok(Value::from_bits(kind, bits)),
        STATUS_DIVISION_BY_ZERO => Err(EvalError::DivisionByZero),
        STATUS_OVERFLOW => Err(EvalError::Overflow),
        other => panic!("generated code returned the unknown status {other}"),
    }
}

/// One of the two registers of the stack machine.
#[derive(Clone, Copy)]
enum Operand {
    /// The left or only operand, and every result.
    Left,
    /// The right operand.
    Right,
}

/// The instructions of one CPU.
///
/// Both registers hold raw bits. An operation takes its operands from them, leaves its result in
/// [`Operand::Left`], and may lose what is in [`Operand::Right`].
trait Target {
    /// Starts the function: landing pad, stack frame, saved arguments.
    fn prologue(&mut self);
    /// Loads a constant.
    fn constant(&mut self, operand: Operand, bits: u64);
    /// Loads a variable; `index` is below [`MAX_VARIABLES`].
    fn variable(&mut self, operand: Operand, index: usize);
    /// Saves the left register on the stack.
    fn push(&mut self);
    /// Moves left to right, then restores left from the stack.
    fn pop(&mut self);
    /// Converts an integer to a float.
    fn to_float(&mut self);
    /// Applies `operator` to one operand of type `kind`.
    fn unary(&mut self, operator: UnaryOperator, kind: Type);
    /// Applies `operator` to two operands of type `kind`.
    fn binary(&mut self, operator: BinaryOperator, kind: Type);
    /// Stores the result, ends the function and returns its code.
    fn finish(self) -> Result<Vec<u8>, DynasmError>;
}

fn generate(mut target: impl Target, expression: &TypedExpr) -> Result<Vec<u8>, CompileError> {
    target.prologue();
    emit(&mut target, expression.root());
    Ok(target.finish()?)
}

fn emit(target: &mut impl Target, node: &Node) {
    match node {
        Node::Constant(_) | Node::Variable(..) => load(target, Operand::Left, node),
        Node::ToFloat(operand) => {
            emit(target, operand);
            target.to_float();
        }
        Node::Unary(operator, kind, operand) => {
            emit(target, operand);
            target.unary(*operator, *kind);
        }
        Node::Binary(operator, kind, left, right) => {
            emit(target, left);
            if matches!(**right, Node::Constant(_) | Node::Variable(..)) {
                // Loading a leaf leaves the other register alone, so nothing has to be saved.
                load(target, Operand::Right, right);
            } else {
                target.push();
                emit(target, right);
                target.pop();
            }
            target.binary(*operator, *kind);
        }
    }
}

/// Loads a leaf; other nodes are none of its business.
fn load(target: &mut impl Target, operand: Operand, leaf: &Node) {
    match leaf {
        Node::Constant(value) => target.constant(operand, value.bits()),
        Node::Variable(index, _) => {
            assert!(
                *index < MAX_VARIABLES,
                "the parser bounds the number of variables"
            );
            target.variable(operand, *index);
        }
        _ => unreachable!("not a leaf: {leaf:?}"),
    }
}

/// Computes the remainder of floats, for which neither CPU has an instruction.
extern "C" fn fmod_helper(a: f64, b: f64) -> f64 {
    a % b
}

/// Rounds down, for x86-64: its `ROUNDSD` needs SSE4.1, which not every CPU has.
extern "C" fn floor_helper(value: f64) -> f64 {
    value.floor()
}

/// Returns the address of [`fmod_helper`] in this process.
fn fmod_address() -> u64 {
    fmod_helper as extern "C" fn(f64, f64) -> f64 as *const () as u64
}

/// Returns the address of [`floor_helper`] in this process.
fn floor_address() -> u64 {
    floor_helper as extern "C" fn(f64) -> f64 as *const () as u64
}

#[cfg(test)]
mod tests;
