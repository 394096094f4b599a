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

/// Runs the sequence for ranges of so many bytes each, touching no line outside them.
pub fn maintain<A: Address>(cache: CacheType, ranges: &[(A, usize)], ops: &mut impl CacheOps) {
    if !cache.clean_not_needed {
        for (start, len) in ranges {
            lines(start.address(), *len, cache.data_line).for_each(|line| ops.clean_data(line));
        }
    }
    // Also without cleaning: the stores must be seen before a fetch that follows.
    ops.data_barrier();
    if !cache.invalidate_not_needed {
        for (start, len) in ranges {
            lines(start.address(), *len, cache.instruction_line)
                .for_each(|line| ops.invalidate_instructions(line));
        }
        ops.data_barrier();
    }
    ops.instruction_barrier();
}

/// What a range can start with.
pub trait Address {
    /// Returns the address.
    fn address(&self) -> usize;
}

impl Address for usize {
    fn address(&self) -> usize {
        *self
    }
}

impl Address for *const u8 {
    fn address(&self) -> usize {
        self.addr()
    }
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
