//! What these tests share: allocators on this system, and functions in their spans.

use crate::common::{CODE_LEN, call, code_returning};
use hostmem::{
    OsLock, OsProvider,
    jit::{CodeProvider, JitAllocator, JitConfig, Span},
};

pub(crate) const OS: OsProvider = OsProvider::new();

pub(crate) type Jit<P = OsProvider> = JitAllocator<P, OsProvider, OsLock>;

pub(crate) fn allocator(config: JitConfig) -> Jit {
    allocator_on(OS, config)
}

/// Makes an allocator whose blocks come from `provider`, and its metadata from the system.
pub(crate) fn allocator_on<P: CodeProvider>(provider: P, config: JitConfig) -> Jit<P> {
    JitAllocator::on(provider, OS, config).expect("the configuration is valid")
}

/// Allocates a span with a function in it that returns `value`.
pub(crate) fn place<P: CodeProvider>(jit: &Jit<P>, value: u32) -> Span {
    let mut span = jit.alloc(CODE_LEN).expect("memory");
    jit.write(&mut span, 0, &code_returning(value))
        .expect("ours");
    span
}

/// Runs a function that lies at the start of a span.
pub(crate) fn run(span: &Span) -> u32 {
    // SAFETY: the tests run spans that hold such a function.
    unsafe { call(span.rx().as_ptr()) }
}
