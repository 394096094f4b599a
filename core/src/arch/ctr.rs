//! The AArch64 cache-maintenance sequence as data: which operations on which lines, in which order,
//! for what `CTR_EL0` says. Apart from the instructions, so that every case runs on any machine.

/// What `CTR_EL0` says (Arm ARM, D24.2.34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheType {
    /// Bytes of the smallest data-cache line.
    pub data_line: usize,
    /// Bytes of the smallest instruction-cache line.
    pub instruction_line: usize,
    /// `IDC`: stores need no cleaning to be seen by instruction fetches.
    pub clean_not_needed: bool,
    /// `DIC`: instruction caches need no invalidating.
    pub invalidate_not_needed: bool,
}

impl CacheType {
    /// Decodes the register.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        const WORD: usize = 4; // The fields count words as powers of two.
        Self {
            data_line: WORD << (raw >> 16 & 0xf),
            instruction_line: WORD << (raw & 0xf),
            clean_not_needed: raw >> 28 & 1 == 1,
            invalidate_not_needed: raw >> 29 & 1 == 1,
        }
    }
}

/// The operations of the sequence.
pub trait CacheOps {
    /// `DC CVAU`: cleans the data line of `addr` to the point of unification.
    fn clean_data(&mut self, addr: usize);
    /// `IC IVAU`: invalidates the instruction line of `addr` to the point of unification.
    fn invalidate_instructions(&mut self, addr: usize);
    /// `DSB ISH`: waits until what came before is seen by all cores.
    fn data_barrier(&mut self);
    /// `ISB`: throws away what this core has fetched.
    fn instruction_barrier(&mut self);
}

/// Runs the sequence for `len` bytes at `addr`, touching no line outside them.
pub fn maintain(cache: CacheType, addr: usize, len: usize, ops: &mut impl CacheOps) {
    if !cache.clean_not_needed {
        for line in lines(addr, len, cache.data_line) {
            ops.clean_data(line);
        }
    }
    // Also without cleaning: the stores must be seen before a fetch that follows.
    ops.data_barrier();
    if !cache.invalidate_not_needed {
        for line in lines(addr, len, cache.instruction_line) {
            ops.invalidate_instructions(line);
        }
        ops.data_barrier();
    }
    ops.instruction_barrier();
}

/// Yields the start of every line that holds one of `len` bytes at `addr`.
fn lines(addr: usize, len: usize, line: usize) -> impl Iterator<Item = usize> {
    let first = addr & !(line - 1);
    let count = if len == 0 {
        0
    } else {
        (addr - first + len).div_ceil(line)
    };
    (0..count).map(move |n| first + n * line)
}
