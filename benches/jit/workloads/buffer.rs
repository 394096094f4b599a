//! Code that is put one piece behind the other into a code range, beside a plain buffer that is
//! writable and executable at once. Pages get their memory as they are written.

use core::ptr::{NonNull, copy_nonoverlapping, null_mut};
use hostmem::{
    CodeRange, CodeRangeConfig,
    jit::{Barrier, JitError},
};
use hostmem_bench::{clock::CpuTime, lane::Lane};
use std::time::Duration;

/// The code: it is never executed.
static CODE: [u8; 128] = [0xcc; 128];

/// Pieces in a buffer.
const PIECES: usize = 8192;

/// Bytes of a buffer.
const LEN: usize = PIECES * CODE.len();

/// Writes to a code range by `begin_write` and `end_write`, and publishes each piece.
pub struct Range;

impl Range {
    fn fill(range: &CodeRange, count: usize) -> Result<(), JitError> {
        for at in (0..count * CODE.len()).step_by(CODE.len()) {
            let part = at..at + CODE.len();
            // SAFETY: no other thread uses the range.
            let rw = unsafe { range.begin_write(part.clone())? };
            // SAFETY: as many bytes can be written there.
            unsafe { rw.copy_from_nonoverlapping(NonNull::from(&CODE).cast(), CODE.len()) };
            // SAFETY: no other thread uses the range.
            unsafe { range.end_write(part.clone())? };
            range.publish(part, Barrier::Now)?;
        }
        Ok(())
    }
}

impl Lane for Range {
    fn name(&self) -> &'static str {
        "range"
    }

    /// Times `steps` pieces in a range of their own.
    fn run(&mut self, steps: usize) -> Duration {
        let range = CodeRange::new(CodeRangeConfig::new(LEN)).expect("memory");
        let start = CpuTime::now();
        Self::fill(&range, steps).expect("memory");
        start.elapsed()
    }

    fn batch(&self) -> Option<usize> {
        Some(PIECES)
    }
}

/// Copies to private memory that is writable and executable.
pub struct Plain;

impl Lane for Plain {
    fn name(&self) -> &'static str {
        "memcpy"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, which replaces nothing.
        let buffer = unsafe { libc::mmap(null_mut(), LEN, access, flags, -1, 0) };
        assert_ne!(buffer, libc::MAP_FAILED, "this host allows such memory");
        let start = CpuTime::now();
        for at in (0..steps * CODE.len()).step_by(CODE.len()) {
            let to = buffer.cast::<u8>().wrapping_add(at);
            // SAFETY: within the buffer, which is this lane's alone.
            unsafe { copy_nonoverlapping((&raw const CODE).cast(), to, CODE.len()) };
        }
        let took = start.elapsed();
        // SAFETY: mapped above, and not used any more.
        unsafe { libc::munmap(buffer, LEN) };
        took
    }

    fn batch(&self) -> Option<usize> {
        Some(PIECES)
    }
}
