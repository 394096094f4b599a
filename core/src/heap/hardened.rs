//! Hardening: what writes outside of live blocks is found.
//!
//! ```text
//!   a live block of a slab          a free one          a large or huge block
//!   ┌──────────────────┬────────┐   ┌───────────────┐   ┌ ─ ─ ─ ┬─────────────┬───┬ ─ ─ ─ ┐
//!   │ what was asked   │ canary │   │ pattern, or 0 │     guard │ asked       │ c.  guard
//!   └──────────────────┴────────┘   └───────────────┘   └ ─ ─ ─ ┴─────────────┴───┴ ─ ─ ─ ┘
//!     8 … 128 bytes of canary         zero if never       a granule without memory on both sides,
//!     in the rest of the block        handed out          and a canary up to the last page's end
//! ```
//!
//! | | [`Canaries`](super::Hardening::Canaries) | [`Full`](super::Hardening::Full) |
//! |---|---|---|
//! | canary | 8 bytes, one of 256 by where it lies | up to 128 bytes, made of the block's address |
//! | pattern | the first 16 bytes, and where the canary was | the block |
//! | freed blocks serve again | the last one first | after a quarantine, in any order |
//! | guards | none | as long as there are mappings |
//!
//! The sizes that were asked for lie with the states, where no stray write into blocks reaches
//! them. The magazines of quick calls have no room, and blocks come from another set, so that
//! nothing of it costs the quick calls of other heaps a step. The lower level has quick calls of
//! its own ([`CacheRef::alloc_sealed`](super::cache::CacheRef::alloc_sealed)), which do no more
//! than compare, and leave to the calls here what is not as it should be.
//!
//! A freed block has no canary at the lower level. So where one is found is where the block was
//! asked for to end, and quick calls compare no other number by which to tell a wrong layout.
//!
//! Canaries and the order of blocks have a key each, of 16 bytes. What is made of them is what
//! SipHash-1-3 makes of them (Aumasson and Bernstein, 2012), a pseudorandom function: who learns
//! some of its values knows neither the key nor others. The first byte of a canary is zero, so that
//! text that lacks its end is not read with the canary.
//!
//! | room | what it has |
//! |---|---|
//! | `quick` | the quick calls of the higher level |
//! | `calls` | all other calls of hardened heaps |
//! | `seals` | canaries and patterns of the lower level |
//! | `tail` | those of the higher level |
//! | `sip` | the function that makes canaries |
//! | `quarantine` | freed blocks that wait |
//! | `make` | how the state of a hardened heap is made |

mod calls;
mod make;
pub(super) mod quarantine;
mod quick;
mod seals;
mod sip;
mod tail;

pub(super) use calls::{can_note, check_layout, class_for};
pub(super) use make::make;
use quarantine::Quarantine;
use seals::{CANARIES, HEAD, take_canary};
pub(super) use seals::{Canaries, Seals, is_clean, mark_free};
use sip::Sip;
use tail::WORDS_MOST;
pub(super) use tail::{Tail, fill, is_all};

use super::{
    cache::{Cache, Magazine},
    slab::{Entry, Handle},
};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The byte that fills blocks which were in use and are free. An access through a pointer of such
/// bytes faults.
pub(super) const PATTERN: u8 = 0xdf;

/// Bytes of a canary at least, where another block may follow.
pub(super) const CANARY_LEAST: usize = WORD;

/// The state of a hardened heap.
pub(super) struct Hardened {
    canary: Sip,
    order: Sip,
    /// The canaries of the lower level, if this is that.
    pub(super) seals: Option<Seals>,
    /// How many random numbers were drawn.
    drawn: AtomicU64,
    /// Blocks that were found corrupt, and are never used again.
    corrupt: AtomicUsize,
    pub(super) quarantine: Option<Quarantine>,
    /// Bytes of addresses of large and huge blocks that wait at most.
    pub(super) most_addresses: usize,
    /// Mappings that guards may cost.
    pub(super) mappings: usize,
}

impl Hardened {
    pub(super) const fn is_full(&self) -> bool {
        self.seals.is_none()
    }

    /// Returns another random number of 16 bits, of those that a cache has drawn.
    #[inline]
    fn draw(&self, cache: &Cache) -> u16 {
        let mut pool = cache.random.load(Relaxed);
        if pool <= 1 {
            // Three numbers, and above them a bit that tells when they are used up.
            pool = self.random() >> 16 | 1 << 48;
        }
        cache.random.store(pool >> 16, Relaxed);
        let [low, high, ..] = pool.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Returns another random number.
    #[cold]
    #[inline(never)]
    pub(super) fn random(&self) -> u64 {
        let count = self.drawn.fetch_add(1, Relaxed);
        self.order.hash(count)
    }

    /// Takes a block out of a magazine: the last one, or any.
    #[inline]
    pub(super) fn pop(&self, cache: &Cache, class: usize) -> Option<Entry> {
        let magazine = cache.stack(class);
        if self.is_full() {
            self.pop_any(cache, class, magazine)
        } else {
            magazine.pop()
        }
    }

    /// Takes any block out of a magazine of a class.
    #[inline]
    pub(super) fn pop_any(&self, cache: &Cache, class: usize, from: &Magazine) -> Option<Entry> {
        // A call that a handler leaves for good may have written half of an entry.
        let _changing = cache.changing(class);
        from.pop_any(self.draw(cache))
    }

    #[inline]
    pub(super) fn corrupt_blocks(&self) -> usize {
        self.corrupt.load(Relaxed)
    }

    pub(super) fn quarantined(&self) -> usize {
        self.quarantine.as_ref().map_or(0, Quarantine::bytes)
    }

    /// Notes the canaries of a slab's blocks, each of which takes as long as the rest of a call
    /// does.
    pub(super) fn note_canaries(&self, slab: Handle) {
        slab.set_canaries(|addr| self.canary.canary(addr));
    }

    /// Describes the canary behind what was asked for of a block.
    fn tail(&self, slab: Handle, entry: Entry, asked: usize) -> Tail {
        let (addr, size) = (entry.block.addr().get(), slab.block_bytes());
        debug_assert!(asked <= size, "not more than there is");
        let asked = asked.min(size);
        if let Some(seals) = self.seals {
            // SAFETY: the block is as long as `size` says, and `asked` is at most that.
            return unsafe { Tail::new(entry.block, size, asked, seals.at(addr + asked), 1) };
        }
        let canary = slab.canary(entry);
        let canary = canary.unwrap_or_else(|| self.canary.canary(addr));
        // SAFETY: the block is as long as `size` says, and `asked` is at most that.
        unsafe { Tail::new(entry.block, size, asked, canary, WORDS_MOST) }
    }
}

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
