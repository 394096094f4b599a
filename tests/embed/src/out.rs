//! Printing, without a library.

use crate::cpu;
use core::fmt::{self, Write};

/// Standard output.
pub(crate) struct Out;

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        cpu::print(text.as_bytes());
        Ok(())
    }
}

/// Prints a line.
macro_rules! say {
    ($($arguments:tt)*) => {{
        use core::fmt::Write;
        // Nothing can be done about a report that cannot be printed.
        let _ = writeln!($crate::out::Out, $($arguments)*);
    }};
}

pub(crate) use say;
