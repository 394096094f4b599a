//! The bins of a pool: where spans of each length were released just now.

use super::Pool;
use crate::{arena::Arena, jit::tables, provider::PageProvider, sync::RawMutex};
use core::{ops::Range, ptr::NonNull};

/// The longest span that has a bin, in granules.
pub(super) const BINS: usize = 128;

/// Spans in a bin. Random requests of evenly mixed lengths find an empty bin, or a full one, once
/// in `DEPTH + 1` times.
const DEPTH: usize = 64;

/// Granules that a bin holds at most, so that long spans are joined soon.
const BIN_GRANULES: usize = 512;

/// Where a span was released: the block's slot in 8 bits, the granule in 24. Spans that these do
/// not tell are joined at once: of a pool's 256th block and its like, and behind the first 16 Mi
/// granules of one.
#[derive(Clone, Copy)]
pub(in crate::jit) struct Hint(u32);

impl Hint {
    /// Bits of a granule.
    const BITS: u32 = 24;

    /// What zero bytes stand for.
    pub(in crate::jit) const ZERO: Self = Self(0);

    #[inline]
    pub(super) fn new(slot: usize, granule: usize) -> Option<Self> {
        if slot >> (u32::BITS - Self::BITS) != 0 || granule >> Self::BITS != 0 {
            return None;
        }
        u32::try_from(slot << Self::BITS | granule).ok().map(Self)
    }

    #[inline]
    pub(super) const fn slot(self) -> usize {
        (self.0 >> Self::BITS) as usize
    }

    /// Returns the run of `len` granules.
    #[inline]
    pub(super) const fn run(self, len: usize) -> Range<usize> {
        let start = (self.0 & ((1 << Self::BITS) - 1)) as usize;
        start..start + len
    }
}

/// Returns how many hints the bin for spans of `len` granules has room for.
const fn room(len: usize) -> usize {
    let most = BIN_GRANULES / len;
    match most {
        0..2 => 2,
        2..DEPTH => most,
        _ => DEPTH,
    }
}

/// Where the bins begin among the hints of all, the shortest length first; and where the last one
/// ends.
const STARTS: [u16; BINS + 1] = {
    let mut starts = [0; BINS + 1];
    let mut n = 0;
    while n < BINS {
        #[expect(clippy::cast_possible_truncation, reason = "no bin has more than 64")]
        {
            starts[n + 1] = starts[n] + room(n + 1) as u16;
        }
        n += 1;
    }
    starts
};

/// The hints of all bins, in each the last one on top.
pub(super) const HINTS: usize = STARTS[BINS] as usize;

/// Returns the place of a hint: of the nth of the bin for spans of `len` granules.
#[inline]
fn place(len: usize, n: usize) -> usize {
    usize::from(STARTS[len - 1]) + n
}

/// The bins of a pool.
#[derive(Clone, Copy)]
pub(super) struct Bins {
    /// How many hints each bin has: apart from these, so that an empty bin is not touched.
    pub(super) counts: NonNull<[u8; BINS]>,
    pub(super) hints: NonNull<[Hint; HINTS]>,
}

impl Pool {
    /// Returns how many hints each bin has, and the bins, if there are any.
    #[inline]
    pub(super) fn bins(&mut self) -> Option<(&mut [u8; BINS], &mut [Hint; HINTS])> {
        let Bins {
            mut counts,
            mut hints,
        } = self.bins?;
        // SAFETY: they live in the arena and belong to this pool alone; self is borrowed.
        let counts = unsafe { counts.as_mut() };
        // SAFETY: it lives in the arena and belongs to this pool alone; self is borrowed.
        Some((counts, unsafe { hints.as_mut() }))
    }

    /// Makes bins, if there are none and there is memory. They come behind what every allocation
    /// touches, since most of them are never used. Without them spans are joined at once.
    pub(in crate::jit) fn make_bins<P: PageProvider + Copy, R: RawMutex>(
        &mut self,
        arena: &Arena<P, R>,
    ) {
        if self.bins.is_some() {
            return;
        }
        let Ok(counts) = tables::zeroed::<u8, _, _>(arena, BINS) else {
            return;
        };
        match tables::zeroed::<Hint, _, _>(arena, HINTS) {
            Ok(hints) => {
                self.bins = Some(Bins {
                    counts: counts.cast(),
                    hints: hints.cast(),
                });
            }
            // SAFETY: allocated just now, and used by no other code.
            Err(_) => unsafe { tables::free(arena, counts) },
        }
    }

    /// Takes the last hint of the bin for spans of `len` granules.
    #[inline]
    pub(super) fn pop_hint(&mut self, len: usize) -> Option<Hint> {
        let (counts, hints) = self.bins()?;
        let count = counts.get_mut(len - 1)?;
        *count = count.checked_sub(1)?;
        hints.get(place(len, usize::from(*count))).copied()
    }

    /// Adds a hint to the bin for spans of `len` granules; says whether there was room.
    #[inline]
    pub(super) fn push_hint(&mut self, len: usize, hint: Hint) -> bool {
        let Some((counts, hints)) = self.bins() else {
            return false;
        };
        let Some(count) = counts.get_mut(len - 1) else {
            return false;
        };
        let at = place(len, usize::from(*count));
        let has_room = at < usize::from(STARTS[len]);
        if has_room {
            hints[at] = hint;
            *count += 1;
        }
        has_room
    }

    /// Returns the first bin with a hint from the nth on. Most are empty, so that they are looked
    /// through eight at a time.
    pub(super) fn next_hinted(&mut self, n: usize) -> Option<usize> {
        let (counts, _) = self.bins()?;
        let (eights, _) = counts.as_chunks::<8>();
        let first = eights.get(n / 8)?[n % 8..]
            .iter()
            .position(|&count| count != 0);
        first.map(|at| n + at).or_else(|| {
            let behind = n / 8 + 1;
            let some = |eight: &[u8; 8]| u64::from_ne_bytes(*eight) != 0;
            let eight = behind + eights[behind..].iter().position(some)?;
            let at = eights[eight].iter().position(|&count| count != 0)?;
            Some(8 * eight + at)
        })
    }

    /// Returns the hint of the bin for spans of `len` granules that is so far from the top.
    #[inline]
    pub(super) fn hint(&mut self, len: usize, back: usize) -> Option<Hint> {
        let (counts, hints) = self.bins()?;
        let n = usize::from(*counts.get(len - 1)?).checked_sub(back)?;
        hints.get(place(len, n)).copied()
    }

    /// Drops that hint; the one on top takes its place.
    #[inline]
    pub(super) fn drop_hint(&mut self, len: usize, back: usize) {
        let Some(top) = self.pop_hint(len) else {
            return;
        };
        if let Some((counts, hints)) = self.bins()
            && back > 1
            && let Some(n) = (usize::from(counts[len - 1]) + 1).checked_sub(back)
        {
            hints[place(len, n)] = top;
        }
    }

    /// Forgets what was released and what run was active, as a new pool does not know any.
    pub(in crate::jit) fn forget_hints(&mut self) {
        if let Some((counts, _)) = self.bins() {
            counts.fill(0);
        }
        self.active = None;
    }
}
