//! Validated page sizes, page ranges, address ranges and access rights.
//!
//! Everything here is a *description*: none of these values owns memory, and none of them touches
//! it.

use core::{fmt, num::NonZeroUsize, ptr::NonNull};

/// The size of a page in bytes: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(NonZeroUsize);

impl PageSize {
    /// 4 KiB, the page of x86-64 and of most AArch64 hosts.
    pub const KIB_4: Self = Self::or_panic(4 << 10);
    /// 16 KiB, a page size of AArch64 hosts.
    pub const KIB_16: Self = Self::or_panic(16 << 10);
    /// 64 KiB, a page size of AArch64 hosts.
    pub const KIB_64: Self = Self::or_panic(64 << 10);

    /// Makes a page size of `bytes`; `None` unless that is a power of two.
    #[must_use]
    pub const fn new(bytes: usize) -> Option<Self> {
        match NonZeroUsize::new(bytes) {
            Some(n) if n.is_power_of_two() => Some(Self(n)),
            _ => None,
        }
    }

    const fn or_panic(bytes: usize) -> Self {
        match Self::new(bytes) {
            Some(size) => size,
            None => panic!("a page size is a power of two"),
        }
    }

    /// Returns how many bytes a page of 8-byte entries maps that has one for each page: the size of
    /// the next larger pages of most CPUs.
    #[must_use]
    pub const fn of_table(self) -> Self {
        let page = self.bytes();
        match page.checked_mul(page / size_of::<u64>()) {
            Some(bytes) if bytes > page => Self::or_panic(bytes),
            _ => self,
        }
    }

    /// Returns the size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0.get()
    }

    /// Rounds `n` up to a multiple of the page size; `None` on overflow.
    #[must_use]
    pub const fn round_up(self, n: usize) -> Option<usize> {
        align_up(n, self.bytes())
    }

    /// Rounds `n` down to a multiple of the page size.
    #[must_use]
    pub const fn round_down(self, n: usize) -> usize {
        n & !(self.bytes() - 1)
    }

    /// Says whether `n` is a multiple of the page size.
    #[must_use]
    pub const fn is_aligned(self, n: usize) -> bool {
        n & (self.bytes() - 1) == 0
    }
}

/// Rounds `n` up to a multiple of `align`, a power of two; `None` on overflow.
#[must_use]
pub(crate) const fn align_up(n: usize, align: usize) -> Option<usize> {
    debug_assert!(align.is_power_of_two(), "alignments are powers of two");
    match n.checked_add(align - 1) {
        Some(x) => Some(x & !(align - 1)),
        None => None,
    }
}

/// A page-aligned, non-empty range that does not wrap: a description, not ownership.
///
/// The start keeps its provenance, so that a pointer into the range can be made from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PageRange {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the pointer is never dereferenced by this type; whoever does needs a contract of its own.
unsafe impl Send for PageRange {}
// SAFETY: the pointer is never dereferenced by this type: all methods take the value by copy and
// only compute.
unsafe impl Sync for PageRange {}

impl PageRange {
    /// Describes `len` bytes at `start`.
    ///
    /// `None` unless start and length are multiples of the page size, the length is not zero and
    /// the end is representable.
    #[must_use]
    pub fn new(start: NonNull<u8>, len: usize, page: PageSize) -> Option<Self> {
        let addr = start.addr().get();
        let valid = page.is_aligned(addr)
            && page.is_aligned(len)
            && len != 0
            && addr.checked_add(len).is_some();
        valid.then_some(Self { start, len })
    }

    /// Returns a pointer to the first byte.
    #[must_use]
    pub const fn start(self) -> NonNull<u8> {
        self.start
    }

    /// Returns the address of the first byte.
    #[must_use]
    pub fn addr(self) -> usize {
        self.start.addr().get()
    }

    /// Returns the length in bytes.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        self.len
    }

    /// Returns the address just past the last byte.
    #[must_use]
    pub fn end(self) -> usize {
        self.addr() + self.len
    }

    /// Describes `len` bytes that begin `offset` bytes into this range.
    ///
    /// `None` where [`PageRange::new`] would refuse, or where the part would leave the range.
    #[must_use]
    pub fn part(self, offset: usize, len: usize, page: PageSize) -> Option<Self> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // The part is only described here: wrapping_add keeps provenance and asks for no liveness.
        let start = NonNull::new(self.start.as_ptr().wrapping_add(offset))?;
        Self::new(start, len, page)
    }

    /// Describes this range and `next`, which begins where this ends; `None` where it does not.
    ///
    /// The whole keeps the provenance of this range's start, as suits ranges that one host mapped.
    #[must_use]
    pub(crate) fn joined(self, next: Self) -> Option<Self> {
        let len = self.len.checked_add(next.len)?;
        (self.end() == next.addr()).then_some(Self { len, ..self })
    }

    /// Says whether `addr` lies in the range.
    #[must_use]
    pub fn contains(self, addr: usize) -> bool {
        addr.wrapping_sub(self.addr()) < self.len
    }

    /// Says whether `other` lies wholly in this range.
    #[must_use]
    pub fn contains_range(self, other: Self) -> bool {
        other.addr() >= self.addr() && other.end() <= self.end()
    }

    /// Says whether the two ranges share a byte.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.addr() < other.end() && other.addr() < self.end()
    }

    /// Returns the addresses of the range.
    #[must_use]
    pub fn addresses(self) -> AddressRange {
        AddressRange {
            start: self.addr(),
            last: self.end() - 1,
        }
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.addr(), self.end())
    }
}

/// A non-empty range of addresses, both ends included, so that the top byte can be named.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    start: usize,
    last: usize,
}

impl AddressRange {
    /// Every address.
    pub const ALL: Self = Self {
        start: 0,
        last: usize::MAX,
    };
    /// What a 32-bit guest can see: the addresses below 4 GiB.
    pub const LOW_4G: Self = Self {
        start: 0,
        last: 0xffff_ffff,
    };
    /// What a 32-bit guest cannot see: the addresses from 4 GiB upwards.
    #[cfg(target_pointer_width = "64")]
    pub const ABOVE_4G: Self = Self {
        start: 0x1_0000_0000,
        last: usize::MAX,
    };

    /// Describes the addresses from `start` to `last`, both included; `None` if there are none.
    #[must_use]
    pub const fn new(start: usize, last: usize) -> Option<Self> {
        if start <= last {
            Some(Self { start, last })
        } else {
            None
        }
    }

    /// As [`AddressRange::new`], of ends that are known to be in order.
    #[inline]
    pub(crate) const fn spanning(start: usize, last: usize) -> Self {
        debug_assert!(start <= last, "ranges are not empty");
        Self { start, last }
    }

    /// Describes the `len` addresses from `start`; `None` if there are none or they would wrap.
    #[must_use]
    pub const fn from_len(start: usize, len: usize) -> Option<Self> {
        match len.checked_sub(1) {
            Some(n) => match start.checked_add(n) {
                Some(last) => Some(Self { start, last }),
                None => None,
            },
            None => None,
        }
    }

    /// Describes the addresses at most `reach` bytes from `anchor`, cut off at both ends of the
    /// address space.
    #[must_use]
    pub const fn around(anchor: usize, reach: usize) -> Self {
        Self {
            start: anchor.saturating_sub(reach),
            last: anchor.saturating_add(reach),
        }
    }

    /// Returns the first address.
    #[must_use]
    pub const fn start(self) -> usize {
        self.start
    }

    /// Returns the last address.
    #[must_use]
    pub const fn last(self) -> usize {
        self.last
    }

    /// Says whether `addr` lies in the range.
    #[must_use]
    pub const fn contains(self, addr: usize) -> bool {
        self.start <= addr && addr <= self.last
    }

    /// Says whether `other` lies wholly in this range.
    #[must_use]
    pub const fn contains_range(self, other: Self) -> bool {
        self.start <= other.start && other.last <= self.last
    }

    /// Returns the addresses that lie in both ranges, if any do.
    #[must_use]
    pub const fn intersect(self, other: Self) -> Option<Self> {
        let start = if self.start > other.start {
            self.start
        } else {
            other.start
        };
        let last = if self.last < other.last {
            self.last
        } else {
            other.last
        };
        Self::new(start, last)
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.start, self.last)
    }
}

/// What may be done with a page.
///
/// There is no writable and executable access but by [`RwxOptIn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// Nothing: every access faults.
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Reading and executing.
    ReadExec,
    /// Everything at once: what hardened systems refuse, and an attacker hopes for.
    ReadWriteExec(RwxOptIn),
}

impl Access {
    /// Says whether reading is allowed.
    #[must_use]
    pub const fn readable(self) -> bool {
        !matches!(self, Self::None)
    }

    /// Says whether writing is allowed.
    #[must_use]
    pub const fn writable(self) -> bool {
        matches!(self, Self::ReadWrite | Self::ReadWriteExec(_))
    }

    /// Says whether executing is allowed.
    #[must_use]
    pub const fn executable(self) -> bool {
        matches!(self, Self::ReadExec | Self::ReadWriteExec(_))
    }
}

/// The most that a committed page may ever be given by `protect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ceiling {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Reading and executing.
    ReadExec,
    /// Writing or executing, never both at once.
    WriteXorExec,
    /// Everything at once.
    ReadWriteExec(RwxOptIn),
}

impl Ceiling {
    /// Says whether `access` keeps below the ceiling.
    #[must_use]
    pub const fn allows(self, access: Access) -> bool {
        match self {
            Self::Read => !access.writable() && !access.executable(),
            Self::ReadWrite => !access.executable(),
            Self::ReadExec => !access.writable(),
            Self::WriteXorExec => !(access.writable() && access.executable()),
            Self::ReadWriteExec(_) => true,
        }
    }
}

/// Consent to memory that is writable and executable at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RwxOptIn(());

impl RwxOptIn {
    /// Gives the consent.
    ///
    /// # Safety
    ///
    /// Whoever can write such memory can run what they wrote. The caller vouches that no untrusted
    /// data reaches it unchecked, and accepts that hardened hosts will refuse it.
    #[must_use]
    pub const unsafe fn accept() -> Self {
        Self(())
    }
}
