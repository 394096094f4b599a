//! Runs static RV32IMAC programs for Linux on hostmem.
//!
//! ```text
//! cargo run --release --example emulator
//! cargo run --release --example emulator -- path/to/program arguments…
//! ```
//!
//! `docs/EMULATOR.md` is the tour: from an ELF file to host code, with the files that do it.

use std::process::ExitCode;

cfg_select! {
    all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")) => {
        mod access;
        mod arch;
        mod cli;
        mod code;
        mod decode;
        mod elf;
        mod faults;
        mod gdb;
        mod host;
        mod inst;
        mod interpret;
        mod load;
        mod machine;
        mod perf;
        mod picture;
        mod progress;
        mod signals;
        mod space;
        mod syscalls;
        mod thunks;

        fn main() -> ExitCode {
            cli::main()
        }
    }
    _ => {
        fn main() -> ExitCode {
            eprintln!("this example runs on x86-64 and AArch64 Linux");
            ExitCode::FAILURE
        }
    }
}
