//! Places generated code with the JIT allocator and runs it.

use crate::compile::Function;
use hostmem::{
    JitAllocator, JitConfig,
    jit::{JitError, JitStatistics, Refused, Span},
};

/// Executable memory for programs.
pub struct Runner {
    jit: JitAllocator,
}

/// A program in executable memory.
pub struct Program {
    span: Span,
}

impl Runner {
    /// Makes a runner without any memory yet.
    pub fn new() -> Result<Self, JitError> {
        Ok(Self {
            jit: JitAllocator::new(JitConfig::new())?,
        })
    }

    /// Copies `code` into executable memory.
    pub fn load(&self, code: &[u8]) -> Result<Program, JitError> {
        let mut span = self.jit.alloc(code.len())?;
        match self.jit.write(&mut span, 0, code) {
            Ok(()) => Ok(Program { span }),
            Err(error) => {
                // The first error is the one to report.
                let _ = self.jit.release(span);
                Err(error)
            }
        }
    }

    /// Runs a program; returns its status and the bits that it stored.
    ///
    /// # Safety
    ///
    /// The program was loaded from what the compiler made, for as many variables as given.
    pub unsafe fn call(&self, program: &Program, variables: &[u64]) -> (u32, u64) {
        let code = program.span.rx().as_ptr();
        // SAFETY: the span starts with a whole function of this type, as the compiler made it, by
        // this function's condition.
        let function = unsafe { core::mem::transmute::<*mut u8, Function>(code) };
        let mut result = 0;
        // SAFETY: as many variables as the function reads, and a place for its result.
        let status = unsafe { function(variables.as_ptr(), &raw mut result) };
        (status, result)
    }

    /// Gives a program's memory back.
    #[expect(
        clippy::result_large_err,
        reason = "it carries the span, as the allocator's does"
    )]
    pub fn release(&self, program: Program) -> Result<(), Refused> {
        self.jit.release(program.span)
    }

    /// Says whether a program's memory is found by an address inside it.
    pub fn finds(&self, program: &Program) -> bool {
        let inside = program.span.rx().addr().get() + program.span.len_bytes() - 1;
        self.jit
            .query(inside)
            .is_some_and(|info| info.rx == program.span.rx())
    }

    /// Returns what the programs take.
    pub fn statistics(&self) -> JitStatistics {
        self.jit.statistics()
    }
}

impl Program {
    /// Returns the memory.
    pub const fn span(&self) -> &Span {
        &self.span
    }
}

/// Runs `code` once on `variables`, in memory of its own; for tests.
#[cfg(test)]
pub fn run(code: &[u8], variables: &[u64]) -> (u32, u64) {
    use std::sync::OnceLock;
    static RUNNER: OnceLock<Runner> = OnceLock::new();
    let runner = RUNNER.get_or_init(|| Runner::new().expect("the host has executable memory"));
    let program = runner.load(code).expect("the host has executable memory");
    // SAFETY: tests pass what the compiler made and its variables.
    let result = unsafe { runner.call(&program, variables) };
    runner.release(program).expect("released once");
    result
}
