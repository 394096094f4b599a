//! Runs static RV32IMAC programs for Linux on hostmem.
//!
//! ```text
//! cargo run --release --example emulator
//! cargo run --release --example emulator -- path/to/program arguments…
//! ```
//!
//! `docs/EMULATOR.md` is the tour: from an ELF file to host code, with the files that do it.

extern crate alloc;

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
        mod sys;
        mod syscalls;
        mod system;
        mod thunks;

        fn main() -> ExitCode {
            use std::os::unix::ffi::OsStringExt;

            let args = std::env::args_os().skip(1).map(OsStringExt::into_vec);
            sys::exit(cli::main(args))
        }
    }
    _ => {
        fn main() -> ExitCode {
            eprintln!("this example runs on x86-64 and AArch64 Linux");
            ExitCode::FAILURE
        }
    }
}
