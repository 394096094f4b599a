//! What the benchmarks of hostmem share. Not published: peers and their build scripts never touch
//! what users build.
//!
//! | file | what it has |
//! |---|---|
//! | `program`, `arguments` | the program of every benchmark, and what can be asked of it |
//! | `clock` | the time that a thread runs |
//! | `random` | the seeded numbers that traces are made of |
//! | `lane` | who is measured, and how: alternate rounds, medians |
//! | `row` | the table that a benchmark ends with |
//! | `subject` | what is measured: memory in pieces |
//! | `asmjit`, `malloc` | the peers |
//!
//! `docs/PERFORMANCE.md` says how to run them and how to read the table.

pub mod arguments;
pub mod clock;
pub mod lane;
pub mod malloc;
pub mod program;
pub mod random;
pub mod row;
pub mod subject;

#[cfg(asmjit)]
pub mod asmjit;
#[cfg(not(asmjit))]
#[path = "asmjit_absent.rs"]
pub mod asmjit;

/// Asks for the cache line of `value`, where that can be done without waiting for it: the harness
/// uses it for its own tables, so that their misses are not charged to whom it measures.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is no access, and this CPU has SSE as all of its kind.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
