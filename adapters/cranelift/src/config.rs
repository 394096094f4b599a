//! The configuration of a module's memory.

use hostmem::{jit::Mapping, page::PageSize, provider::Placement};

/// Bytes that a module takes together at most: x86-64 reaches 2 GiB in either direction, less the
/// few bytes from a displacement to the end of its instruction.
const REACH: usize = (1 << 31) - 1;

/// The configuration of a [`CraneliftMemory`](super::CraneliftMemory).
///
/// ```
/// use hostmem::jit::Mapping;
/// use hostmem_cranelift::CraneliftConfig;
/// let small = CraneliftConfig::new().sizes(16 << 20, 1 << 20, 1 << 20).mapping(Mapping::Toggle);
/// assert_eq!(small.mapping_wanted(), Mapping::Toggle);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CraneliftConfig {
    sizes: [usize; 3],
    placement: Placement,
    mapping: Mapping,
}

impl CraneliftConfig {
    /// The defaults: 256 MiB of code, 256 MiB of read-only and 512 MiB of writable data, which are
    /// addresses until they are used; anywhere; [`Mapping::Auto`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sizes: [256 << 20, 256 << 20, 512 << 20],
            placement: Placement::ANYWHERE,
            mapping: Mapping::Auto,
        }
    }

    /// Sets the most bytes of code, of read-only and of writable data, less than 2 GiB together.
    #[must_use]
    pub const fn sizes(mut self, code: usize, read_only: usize, writable: usize) -> Self {
        self.sizes = [code, read_only, writable];
        self
    }

    /// Sets where all of it goes: near what code calls, or out of a guest's addresses.
    #[must_use]
    pub const fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Sets how code becomes executable. There is no [`Mapping::ReadWriteExec`]: cranelift-jit
    /// never changes what it finalized, so nothing would be won.
    #[must_use]
    pub const fn mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// Returns the most bytes of code, of read-only and of writable data.
    #[must_use]
    pub const fn size_bytes(&self) -> (usize, usize, usize) {
        let [code, read_only, writable] = self.sizes;
        (code, read_only, writable)
    }

    /// Returns where all of it goes.
    #[must_use]
    pub const fn placement_wanted(&self) -> Placement {
        self.placement
    }

    /// Returns how code is asked to become executable.
    #[must_use]
    pub const fn mapping_wanted(&self) -> Mapping {
        self.mapping
    }

    /// Returns the sizes in whole pages, if they are valid.
    pub(super) fn parts(&self, page: PageSize) -> Option<[usize; 3]> {
        let mut total = 0usize;
        let mut parts = self.sizes;
        for part in &mut parts {
            *part = page.round_up(*part).filter(|&len| len != 0)?;
            total = total.checked_add(*part)?;
        }
        (total <= REACH).then_some(parts)
    }
}

impl Default for CraneliftConfig {
    fn default() -> Self {
        Self::new()
    }
}
