//! Measures the JIT allocator beside its peers.
//!
//! ```text
//! cargo bench -p hostmem-bench --bench jit -- --quick
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `rows` | the table: what must be reached |
//! | `ours` | all contact with the allocator's interface |
//! | `trace`, `workloads` | what is asked of every subject alike |
//! | `experiments` | which workloads make which rows |
//! | `count` | one workload, for a profiler |

mod count;
mod experiments;
mod ours;
mod rows;
mod trace;
mod workloads;

use hostmem_bench::{asmjit::AsmJit, program::Program};
use std::{
    panic,
    process::{ExitCode, abort},
};

fn main() -> ExitCode {
    abort_on_panic();
    let program = Program {
        name: "jit",
        rows: rows::ROWS,
        describe: name_the_peer,
        count: count::count,
        run_all: experiments::run_all,
    };
    program.main()
}

fn name_the_peer() {
    match AsmJit::version() {
        Some(version) => println!("note: asmjit {version:#08x}, as 0xMMmmpp"),
        None => println!("note: asmjit was not found when this was built"),
    }
}

/// A worker that dies would leave the other one waiting at their barrier.
fn abort_on_panic() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        say(info);
        abort();
    }));
}
