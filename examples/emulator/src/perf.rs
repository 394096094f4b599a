//! Names of translated code for `perf`: `/tmp/perf-PID.map` says which guest function each block is
//! of (`tools/perf/Documentation/jit-interface.txt` of Linux). `perf report` reads it later, so that
//! the file stays.

use crate::{
    code,
    elf::{self, Symbol},
};
use std::{
    fs::File,
    io::{self, Write},
};

/// Where blocks are noted.
struct Names {
    file: File,
    /// The guest's functions, in the order of their addresses.
    functions: Vec<(u32, u32, String)>,
}

impl Names {
    /// Makes the file, and reads the names of a program's functions, of which there may be none.
    ///
    /// # Errors
    ///
    /// Where the file cannot be made.
    fn new(program: &[u8]) -> io::Result<Self> {
        let path = format!("/tmp/perf-{}.map", std::process::id());
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let symbols = elf::symbols(program).into_iter();
        let mut functions: Vec<_> = symbols
            .map(|Symbol { addr, len, name }| (addr, len, text(name)))
            .collect();
        functions.sort();
        Ok(Self {
            // Not one that another user put there.
            file: File::create_new(path)?,
            functions,
        })
    }

    /// Notes a block's code, of the guest's instructions at `pc`.
    fn note(&self, code: usize, len: usize, pc: u32) {
        let line = format!("{code:x} {len:x} {}\n", self.name_of(pc));
        // What cannot be written is missing from the report.
        let _ = (&self.file).write_all(line.as_bytes());
    }

    fn name_of(&self, pc: u32) -> String {
        let behind = self.functions.partition_point(|(addr, ..)| *addr <= pc);
        let found = behind.checked_sub(1).map(|index| &self.functions[index]);
        match found {
            // Functions of assembly have no length.
            Some((addr, len, name)) if *len == 0 || pc - addr < *len => {
                format!("guest:{name}+{:#x}", pc - addr)
            }
            _ => format!("guest:{pc:#x}"),
        }
    }
}

/// Makes what notes the blocks of a program.
///
/// # Errors
///
/// Where the file cannot be made.
pub(crate) fn names(program: &[u8]) -> io::Result<code::Names> {
    let names = Names::new(program)?;
    Ok(Box::new(move |code, len, pc| names.note(code, len, pc)))
}
