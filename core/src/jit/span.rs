//! Tokens and descriptions of executable memory.

use core::{fmt, ptr::NonNull};

/// Executable memory that the caller owns: the token of it. Given back by
/// [`JitAllocator::release`](super::JitAllocator::release).
///
/// Three words, in which the number of its allocator takes what addresses and lengths leave free:
///
/// ```text
///   rx    address, a multiple of 16              │ number, bits 32..36
///   rw    address, a multiple of 16              │ number, bits 36..40
///   len   27 bits of length, 5 of its unit       owner   number, bits 0..32
/// ```
#[must_use = "dropping a span leaks its memory until the allocator is dropped"]
pub struct Span {
    rx: NonNull<u8>,
    rw: NonNull<u8>,
    len: SpanLen,
    owner: u32,
}

/// Bits of an address that are zero, since every span starts at a multiple of the shortest granule.
const SPARE: u32 = 4;

/// The most that the number of an allocator may be.
pub(super) const LAST_OWNER: u64 = (1 << (u32::BITS + 2 * SPARE)) - 1;

/// The length of a span, in units of 16 bytes times a power of two.
#[derive(Clone, Copy)]
struct SpanLen(u32);

impl SpanLen {
    /// Bits of the count of units.
    const BITS: u32 = 27;

    /// Returns the power of two by which the unit of a length is more than 16 bytes.
    #[inline]
    const fn exponent(len: usize) -> u32 {
        if len >> (SPARE + Self::BITS) == 0 {
            return 0;
        }
        let bits = usize::BITS - (len >> SPARE).leading_zeros();
        bits.saturating_sub(Self::BITS)
    }

    #[inline]
    const fn new(len: usize) -> Self {
        let exponent = Self::exponent(len);
        debug_assert!(
            len.trailing_zeros() >= SPARE + exponent,
            "it was rounded up"
        );
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the exponent leaves no more than 27 bits"
        )]
        Self((len >> (SPARE + exponent)) as u32 | exponent << Self::BITS)
    }

    #[inline]
    const fn bytes(self) -> usize {
        let units = self.0 & ((1 << Self::BITS) - 1);
        (units as usize) << (SPARE + (self.0 >> Self::BITS))
    }
}

/// Returns the shortest length from `size` on that a token can tell: `size` itself up to 2 GiB.
#[inline]
pub(super) const fn round_len(size: usize) -> usize {
    if size >> (SPARE + SpanLen::BITS) == 0 {
        return size;
    }
    // The carry may take one bit more, and is a power of two then.
    size.next_multiple_of(1 << (SPARE + SpanLen::exponent(size)))
}

// SAFETY: the token owns its memory, which is not tied to a thread.
unsafe impl Send for Span {}
// SAFETY: shared access gives out addresses only.
unsafe impl Sync for Span {}

impl Span {
    /// Makes the token of a span of the allocator of this number.
    #[inline]
    pub(super) fn new(info: SpanInfo, owner: u64) -> Self {
        debug_assert!(owner <= LAST_OWNER, "numbers end there");
        let spare = (1 << SPARE) - 1;
        let low = (owner & 0xffff_ffff) as u32;
        let high = (owner >> 32 & 0xff) as usize;
        let tagged = |start: NonNull<u8>, tag: usize| {
            debug_assert!(
                start.addr().get() & spare == 0,
                "granules are multiples of 16"
            );
            // SAFETY: a span is 16 bytes long at least, so that this stays inside it.
            unsafe { start.add(tag) }
        };
        Self {
            rx: tagged(info.rx, high & spare),
            rw: tagged(info.rw, high >> SPARE & spare),
            len: SpanLen::new(info.len),
            owner: low,
        }
    }

    /// Returns an address without the bits of a number in it.
    #[inline]
    fn untagged(tagged: NonNull<u8>) -> NonNull<u8> {
        let tag = tagged.addr().get() & ((1 << SPARE) - 1);
        // SAFETY: this is the start of the span, to which as much was added.
        unsafe { tagged.sub(tag) }
    }

    /// Returns where the code is executed.
    #[must_use]
    #[inline]
    pub fn rx(&self) -> NonNull<u8> {
        Self::untagged(self.rx)
    }

    /// Returns where the code is written. Prefer
    /// [`JitAllocator::write`](super::JitAllocator::write), which also publishes what it wrote.
    #[must_use]
    #[inline]
    pub fn rw(&self) -> NonNull<u8> {
        Self::untagged(self.rw)
    }

    /// Returns the length in bytes: what was asked for, rounded up to granules.
    #[must_use]
    #[inline]
    pub const fn len_bytes(&self) -> usize {
        self.len.bytes()
    }

    /// Returns the number of the allocator that the span belongs to.
    #[inline]
    pub(super) fn owner(&self) -> u64 {
        let tag = |tagged: NonNull<u8>| (tagged.addr().get() & ((1 << SPARE) - 1)) as u64;
        let high = tag(self.rx) | tag(self.rw) << SPARE;
        high << u32::BITS | u64::from(self.owner)
    }

    /// Describes the span.
    #[must_use]
    #[inline]
    pub fn info(&self) -> SpanInfo {
        SpanInfo {
            rx: self.rx(),
            rw: self.rw(),
            len: self.len_bytes(),
        }
    }

    #[inline]
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = SpanLen::new(len);
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Span({:p} for {:p}, {} bytes)",
            self.rw(),
            self.rx(),
            self.len_bytes()
        )
    }
}

/// Describes a live span; owns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanInfo {
    /// Where it is executed.
    pub rx: NonNull<u8>,
    /// Where it is written.
    pub rw: NonNull<u8>,
    /// Its length in bytes.
    pub len: usize,
}

// SAFETY: a description; whoever follows the pointers needs a contract of its own.
unsafe impl Send for SpanInfo {}
// SAFETY: a description; whoever follows the pointers needs a contract of its own.
unsafe impl Sync for SpanInfo {}

/// A span that its allocator refused to take back, and why.
#[derive(Debug)]
pub struct Refused {
    /// The span, still the caller's.
    pub span: Span,
    /// Why.
    pub error: super::JitError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "span not released: {}", self.error)
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_what_it_was_made_of() {
        let mut room = [0_u128; 64];
        let start = NonNull::from(&mut room).cast::<u8>();
        for rx in [0, 16, 48, 256] {
            for owner in [
                1,
                15,
                0xffff_ffff,
                0x1_0000_0000,
                0x5a_dead_beef,
                LAST_OWNER,
            ] {
                for len in [16, 64, 1 << 20, (1 << 31) - 16, 1 << 31, 3 << 31, 1 << 46] {
                    // SAFETY: the offset lies inside the array.
                    let rx = unsafe { start.add(rx) };
                    let info = SpanInfo { rx, rw: start, len };
                    let span = Span::new(info, owner);
                    assert_eq!((span.info(), span.owner()), (info, owner));
                }
            }
        }
        assert!(size_of::<Span>() <= 24 && size_of::<Option<Span>>() <= 24);
    }

    #[test]
    fn lengths_that_no_token_tells_are_rounded_up() {
        for bits in 4..50 {
            for size in [1 << bits, (1 << bits) + 1, (3 << bits) - 1, (1 << bits) - 1] {
                let len = round_len(size).next_multiple_of(16);
                assert!(
                    len >= size && len - size <= size >> 25 | 15,
                    "{size}: {len}"
                );
                assert_eq!(SpanLen::new(len).bytes(), len);
            }
        }
    }
}
