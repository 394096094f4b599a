//! Arenas with holes, purging, and allocators that are made, used once and dropped.

use hostmem::{
    OsLock, OsProvider,
    arena::Arena,
    jit::{JitAllocator, JitConfig},
    page::PageRange,
    provider::{Commit, Error, PageProvider, Request},
};
use hostmem_bench::{
    asmjit::AsmJit,
    clock::CpuTime,
    lane::{Lane, count as count_steps},
    program::Setting,
    subject::Subject,
};
use std::{alloc::Layout, ptr::NonNull, time::Duration};

const OS: OsProvider = OsProvider::new();

/// Objects of an arena every second of which was freed.
const OBJECTS: usize = 200_000;

const OBJECT: Layout = match Layout::from_size_align(64, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("a size"),
};

/// An arena with a hundred thousand holes; a step allocates 64 bytes and frees them.
pub struct Holes(Arena<OsProvider, OsLock>);

impl Holes {
    pub fn new() -> Result<Self, Error> {
        let arena = Arena::new(OS, 1 << 30)?;
        let objects: Result<Vec<_>, Error> = (0..OBJECTS).map(|_| arena.alloc(OBJECT)).collect();
        for object in objects?.into_iter().step_by(2) {
            // SAFETY: allocated above with this layout, and not used.
            unsafe { arena.free(object, OBJECT) };
        }
        Ok(Self(arena))
    }
}

impl Lane for Holes {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            let object: NonNull<u8> = self.0.alloc(OBJECT).expect("there are holes");
            // SAFETY: allocated just now with this layout.
            unsafe { self.0.free(object, OBJECT) };
        }
        start.elapsed()
    }
}

/// The same by the C library's malloc.
pub struct MallocHoles;

impl MallocHoles {
    pub fn new() -> Self {
        let objects: Vec<_> = (0..OBJECTS)
            // SAFETY: any size may be asked for.
            .map(|_| unsafe { libc::malloc(OBJECT.size()) })
            .collect();
        for object in objects.into_iter().step_by(2) {
            // SAFETY: allocated above; the others stay as long as the program.
            unsafe { libc::free(object) };
        }
        Self
    }
}

impl Lane for MallocHoles {
    fn name(&self) -> &'static str {
        "malloc"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            // SAFETY: any size may be asked for.
            let object = std::hint::black_box(unsafe { libc::malloc(OBJECT.size()) });
            // SAFETY: allocated just now.
            unsafe { libc::free(object) };
        }
        start.elapsed()
    }
}

/// Bytes that are purged.
const PURGED: usize = 64 << 10;

/// Sixteen pages that are written, and then purged by `how`; only that is measured.
pub struct Purges {
    range: PageRange,
    how: How,
}

/// Who purges.
#[derive(Clone, Copy)]
pub enum How {
    Ours,
    Madvise,
}

impl Purges {
    pub fn new(how: How) -> Result<Self, Error> {
        let range = OS.reserve(&Request::bytes(PURGED))?;
        // SAFETY: reserved just now.
        unsafe { OS.commit(range, Commit::READ_WRITE)? };
        Ok(Self { range, how })
    }
}

impl Drop for Purges {
    fn drop(&mut self) {
        // SAFETY: reserved by new, and not used any more. A failure wastes 64 KiB.
        let _ = unsafe { OS.release(self.range) };
    }
}

impl Lane for Purges {
    fn name(&self) -> &'static str {
        match self.how {
            How::Ours => "ours",
            How::Madvise => "madvise",
        }
    }

    fn run(&mut self, steps: usize) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..steps {
            // SAFETY: committed by new, this long, and this value's.
            unsafe { self.range.start().write_bytes(1, PURGED) };
            let start = CpuTime::now();
            match self.how {
                // SAFETY: committed by new; the contents are not needed.
                How::Ours => drop(unsafe { OS.purge(self.range) }.expect("private memory")),
                How::Madvise => {
                    let start = self.range.start().as_ptr().cast();
                    // SAFETY: as above.
                    let failed = unsafe { libc::madvise(start, PURGED, libc::MADV_DONTNEED) };
                    assert_eq!(failed, 0, "private memory");
                }
            }
            took += start.elapsed();
        }
        took
    }
}

/// Bytes of a small piece of code.
const SMALL: usize = 64;

/// Makes a JIT allocator, allocates once, releases that, and drops it, in each step.
pub struct Made;

impl Lane for Made {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            let jit = JitAllocator::<_, _, OsLock>::on(OS, OS, JitConfig::new());
            let jit = jit.expect("the defaults are valid");
            let span = jit.alloc(SMALL).expect("memory");
            jit.release(span).expect("once");
        }
        start.elapsed()
    }
}

/// The same by AsmJit.
pub struct MadeByAsmJit;

impl Lane for MadeByAsmJit {
    fn name(&self) -> &'static str {
        "asmjit"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        for _ in 0..steps {
            if let Some(jit) = AsmJit::bare() {
                let piece = jit.alloc(SMALL);
                // SAFETY: allocated just now.
                unsafe { jit.release(piece) };
            }
        }
        start.elapsed()
    }
}

/// Does `steps` steps of the workload of `row`, for a profiler.
pub fn count(_: &Setting, row: &str, steps: usize) -> Result<bool, Error> {
    match row {
        "arena-beside-holes" => count_steps(&mut Holes::new()?, steps),
        "purge-64k" => count_steps(&mut Purges::new(How::Ours)?, steps),
        "jit-make" => count_steps(&mut Made, steps),
        _ => return Ok(false),
    }
    Ok(true)
}
