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
//! | | [`Hardening::Canaries`](super::Hardening::Canaries) | [`Hardening::Full`](super::Hardening::Full) |
//! |---|---|---|
//! | canary | 8 bytes, one of 256 by the block's address | up to 128 bytes, made of the block's address |
//! | pattern | the first 16 bytes | the block |
//! | freed blocks serve again | the last one first | after a quarantine, in any order |
//! | guards | none | as long as there are mappings |
//!
//! What was asked for lies with the states, where no stray write into blocks reaches it. The magazines of quick calls
//! have no room, so that every call comes here, and nothing of it costs the quick calls of other heaps a step: blocks
//! come from magazines of another set.
//!
//! Canaries and the order of blocks have a key each, of 16 bytes. What is made of them is what SipHash-1-3 makes of them
//! (Aumasson and Bernstein, 2012), a pseudorandom function: who learns some of its values knows neither the key nor
//! others. The first byte of a canary is zero, so that text that lacks its end is not read with the canary.

use super::{
    Heap, HeapConfig,
    cache::Cache,
    class::{self, CLASSES, GRANULE},
    error::{BlockAddr, HeapError},
    large::Big,
    quarantine::{Quarantine, WAITING},
    slab::{CLAIMED, CORRUPT, Entry, FREED, Handle, LIVE, ZERO},
};
use crate::{
    arena::Arena,
    provider::{PageProvider, Resource, reserve_ahead},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    array,
    ptr::{NonNull, null_mut},
    slice,
    sync::atomic::{
        AtomicPtr, AtomicU64, AtomicUsize,
        Ordering::{Relaxed, Release},
    },
};

/// What free blocks hold that were in use. No pointer: an access through one faults.
pub(super) const PATTERN: u8 = 0xdf;

/// Bytes of a canary at least, where another block may follow.
const CANARY_LEAST: usize = size_of::<u64>();

/// Words of a canary at most: what runs over writes the first of them.
const WORDS_MOST: usize = 16;

/// How many canaries there are at the lower level.
const CANARIES: usize = 256;

const PATTERN_WORD: u64 = u64::from_ne_bytes([PATTERN; 8]);

/// Bytes of the pattern at the lower level.
const HEAD: usize = 16;

/// SipHash-1-3 of one word, by a key whose part of the state is computed once. The crate `siphasher`, which tests compare
/// it with, takes longer for a word, as it hashes bytes of any number.
struct Sip([u64; 4]);

impl Sip {
    const fn new(key: &[u8; 16]) -> Self {
        let key = u128::from_le_bytes(*key);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let (low, high) = (key as u64, (key >> 64) as u64);
        Self([
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline]
    const fn hash(&self, word: u64) -> u64 {
        const LENGTH: u64 = 8 << 56;
        let mut v = self.0;
        v[3] ^= word;
        v = Self::round(v);
        v[0] ^= word;
        v[3] ^= LENGTH;
        v = Self::round(v);
        v[0] ^= LENGTH;
        v[2] ^= 0xff;
        v = Self::round(Self::round(Self::round(v)));
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }

    #[inline]
    const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        [a, b, c, d]
    }
}

/// The state of a hardened heap.
pub(super) struct Hard {
    is_full: bool,
    canary: Sip,
    order: Sip,
    /// The canaries of the lower level.
    canaries: [u64; CANARIES],
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

/// Makes the state of a heap whose metadata lies around `addr`, if it is hardened.
pub(super) fn make<P: PageProvider, M: PageProvider + Copy, R: RawMutex>(
    provider: &P,
    metadata: &M,
    arena: &Arena<M, R>,
    config: &HeapConfig,
    addr: usize,
) -> Result<Option<Hard>, HeapError> {
    if config.level() == super::Hardening::Checked {
        return Ok(None);
    }
    let random = || metadata.random_key().or_else(|| provider.random_key());
    let keys = config.own_keys().or_else(random);
    let keys = keys.unwrap_or_else(|| {
        let bytes = addr.to_le_bytes();
        array::from_fn(|n| bytes[n % bytes.len()])
    });
    let [canary, order] = [0, 16].map(|from| {
        let key: [u8; 16] = array::from_fn(|n| keys[from + n]);
        Sip::new(&key)
    });
    let is_full = config.is_full();
    let (bytes, addresses) = config.waiting();
    let quarantine = if bytes == 0 {
        None
    } else {
        let slots = arena.alloc_slice(WAITING, || AtomicPtr::new(null_mut()));
        Some(Quarantine::new(slots.map_err(HeapError::Metadata)?, bytes))
    };
    // A question of mappings costs a walk over all of them.
    let left = || {
        provider
            .left(Resource::Mappings)
            .map_or(usize::MAX, |left| left / 2)
    };
    let mappings = match config.mapping_count() {
        Some(count) => count,
        None if is_full => left(),
        None => 0,
    };
    let mut hard = Hard {
        is_full,
        canary,
        order,
        canaries: [0; CANARIES],
        drawn: AtomicU64::new(0),
        corrupt: AtomicUsize::new(0),
        quarantine,
        most_addresses: if is_full {
            reserve_ahead(provider, 0, addresses)
        } else {
            0
        },
        mappings,
    };
    // No block starts there.
    hard.canaries = array::from_fn(|n| hard.of_addr(n + 1));
    Ok(Some(hard))
}

impl Hard {
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
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
    #[inline]
    pub(super) fn random(&self) -> u64 {
        let count = self.drawn.fetch_add(1, Relaxed);
        self.order.hash(count)
    }

    /// Takes a block out of a magazine: the last one, or any.
    #[inline]
    pub(super) fn pop(&self, cache: &Cache, class: usize) -> Option<Entry> {
        let magazine = cache.stack(class);
        if self.is_full {
            // A call that a handler leaves for good may have written half of an entry.
            let _changing = cache.changing(class);
            magazine.pop_any(self.draw(cache))
        } else {
            magazine.pop()
        }
    }

    #[inline]
    pub(super) fn corrupt_blocks(&self) -> usize {
        self.corrupt.load(Relaxed)
    }

    pub(super) fn quarantined(&self) -> usize {
        self.quarantine.as_ref().map_or(0, Quarantine::bytes)
    }

    /// Returns the canary of an address as it lies in memory, the first byte of which is zero.
    #[inline]
    fn of_addr(&self, addr: usize) -> u64 {
        let hash = self.canary.hash(addr as u64);
        (hash & !0xff).to_le()
    }

    /// Returns what the canary of the block that starts at `block` repeats.
    #[inline]
    fn canary(&self, block: usize) -> u64 {
        if self.is_full {
            self.of_addr(block)
        } else {
            self.one_of(block)
        }
    }

    /// Returns the canary of the lower level.
    #[inline]
    fn one_of(&self, block: usize) -> u64 {
        // Spread by Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4).
        let spread = (block as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.canaries[(spread >> 56) as usize % CANARIES]
    }

    /// Returns where the canary of a block of `size` bytes begins, and how many words it has.
    #[inline]
    fn place(&self, block: NonNull<u8>, size: usize, asked: usize) -> (NonNull<u64>, usize) {
        debug_assert!(asked <= size, "not more than there is");
        let asked = asked.min(size);
        let most = if self.is_full { WORDS_MOST } else { 1 };
        // SAFETY: at most the length of the block.
        let first = unsafe { block.add(asked) };
        (first.cast(), ((size - asked) / size_of::<u64>()).min(most))
    }
}

impl Hard {
    /// Returns where the last word of a block lies, and what it holds, if the canary does not end with a whole one there:
    /// the canary goes on, so that a write before the next block is found.
    #[inline]
    fn last(
        &self,
        block: NonNull<u8>,
        size: usize,
        asked: usize,
        canary: u64,
    ) -> Option<(NonNull<u64>, u64)> {
        const WORD: usize = size_of::<u64>();
        let len = size.checked_sub(asked)?;
        let rest = len % WORD;
        if !self.is_full || rest == 0 || !(WORD..=WORD * WORDS_MOST).contains(&len) {
            return None;
        }
        // SAFETY: inside the block, which has a word behind what was asked for.
        let place = unsafe { block.add(size - WORD) };
        let bits = u32::from(rest.to_le_bytes()[0]) * u8::BITS;
        // The bytes in memory move down by so many.
        let word = if cfg!(target_endian = "little") {
            canary.rotate_right(bits)
        } else {
            canary.rotate_left(bits)
        };
        Some((place.cast(), word))
    }
}

/// Returns the class for a block and its canary.
#[inline]
pub(super) fn class_for(layout: Layout) -> Option<usize> {
    let size = layout.size().checked_add(CANARY_LEAST)?;
    let layout = Layout::from_size_align(size, layout.align()).ok()?;
    class::quick(layout).or_else(|| class::of(layout))
}

/// Fills a free block.
///
/// # Safety
///
/// `len` bytes of memory that is the heap's, and nobody else's.
#[inline]
pub(super) unsafe fn fill(block: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { block.write_bytes(PATTERN, len) };
}

/// Says whether each byte of a free block is `byte`.
///
/// # Safety
///
/// `len` bytes of memory at `block` that were written, or read zero as they were never; both are multiples
/// of 16.
#[inline]
unsafe fn is_all(block: NonNull<u8>, len: usize, byte: u8) -> bool {
    debug_assert!(block.addr().get().is_multiple_of(align_of::<u64>()) && len.is_multiple_of(8));
    // SAFETY: the caller's promise; blocks are aligned to more than a word, and whole words long.
    let words = unsafe { slice::from_raw_parts(block.cast::<u64>().as_ptr(), len / 8) };
    let expected = u64::from_ne_bytes([byte; 8]);
    words
        .iter()
        .fold(0, |other, word| other | (word ^ expected))
        == 0
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    #[inline]
    pub(super) const fn is_hard(&self) -> bool {
        self.hard.is_some()
    }

    #[inline]
    pub(super) const fn is_full(&self) -> bool {
        match &self.hard {
            Some(hard) => hard.is_full(),
            None => false,
        }
    }

    /// Allocates a block, and says whether it reads zero.
    #[cold]
    pub(super) fn alloc_hard(&self, shard: usize, layout: Layout) -> Result<Big, HeapError> {
        let Some(class) = class_for(layout) else {
            return self.alloc_big_sealed(layout);
        };
        let entry = self.take_one(shard, class)?;
        self.hand_out(entry, class, layout)
    }

    /// Allocates a block without a class, and says whether it reads zero.
    pub(super) fn alloc_big_sealed(&self, layout: Layout) -> Result<Big, HeapError> {
        let (block, zero) = self.alloc_big_or_reclaim(layout)?;
        if let (Some(hard), Some(slab)) = (&self.hard, self.slab_at(block.addr().get())) {
            seal(hard, slab, block, layout.size());
        }
        Ok((block, zero))
    }

    /// Makes a block live that was taken from its slab, and says whether it reads zero.
    ///
    /// # Errors
    ///
    /// [`HeapError::WriteAfterFree`] where somebody wrote into it meanwhile.
    pub(super) fn hand_out(
        &self,
        entry: Entry,
        class: usize,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        let addr = entry.block.addr().get();
        let zero = entry.state().load(Relaxed) == ZERO;
        let slab = self.slab_at(addr).ok_or(HeapError::NotOwned)?;
        let hard = self.hard.as_ref().ok_or(HeapError::Config)?;
        if !is_intact(hard, entry.block, class::size(class), zero) {
            self.retire(entry);
            return Err(HeapError::WriteAfterFree(BlockAddr::new(addr)));
        }
        seal(hard, slab, entry.block, layout.size());
        entry.state().store(LIVE, Release);
        Ok((entry.block, zero))
    }

    /// Makes a block of a slab live at the lower level.
    ///
    /// # Errors
    ///
    /// Those of [`Heap::hand_out`].
    #[inline]
    pub(super) fn hand_out_light(
        &self,
        hard: &Hard,
        slab: Handle,
        entry: Entry,
        asked: usize,
    ) -> Result<NonNull<u8>, HeapError> {
        let addr = entry.block.addr().get();
        let zero = entry.state().load(Relaxed) == ZERO;
        if !is_intact(hard, entry.block, HEAD, zero) {
            self.retire(entry);
            return Err(HeapError::WriteAfterFree(BlockAddr::new(addr)));
        }
        slab.set_asked_of(entry, asked);
        // SAFETY: the class has room for a canary behind what was asked for.
        let place = unsafe { entry.block.add(asked) };
        // SAFETY: as above; the block is this call's.
        unsafe { place.cast::<u64>().write_unaligned(hard.one_of(addr)) };
        entry.state().store(LIVE, Release);
        Ok(entry.block)
    }

    /// Frees a live and intact block of a slab at the lower level, if the layout is what was asked for.
    #[inline]
    pub(super) fn take_light(
        &self,
        hard: &Hard,
        slab: Handle,
        block: NonNull<u8>,
        layout: Layout,
    ) -> Option<Entry> {
        let (addr, asked) = (block.addr().get(), layout.size());
        let entry = slab.live(addr)?;
        let fits = slab.asked_of(entry) == Some(asked) && addr & (layout.align() - 1) == 0;
        if !fits
            || slab.class() >= CLASSES
            || slab.block_bytes().saturating_sub(asked) < CANARY_LEAST
        {
            return None;
        }
        // SAFETY: as was just seen, there is room for a canary behind what was asked for.
        let place = unsafe { entry.block.add(asked) };
        // SAFETY: as above; written when the block was made live.
        if unsafe { place.cast::<u64>().read_unaligned() } != hard.one_of(addr) {
            return None;
        }
        entry.state().store(FREED, Relaxed);
        let head = entry.block.cast::<[u64; HEAD / 8]>();
        // SAFETY: every block is as long and aligned so; it is free, and this call's.
        unsafe { head.write([PATTERN_WORD; HEAD / 8]) };
        Some(entry)
    }

    /// Frees a block by a call without a handle, or says why not.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`](super::LocalHeap::free).
    #[cold]
    pub(super) unsafe fn free_hard_by(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        let slab = self.slab_at(block.addr().get());
        let give = |class, entry| self.flush(class, &[entry]);
        // SAFETY: the caller's promise.
        unsafe { self.free_hard(block, slab, layout, give) }
    }

    /// Frees a block, or says why not, and tells `give` of blocks to bring back: this one, or those that have waited.
    /// `slab` is the one that it lies in, if that is known.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`](super::LocalHeap::free).
    #[inline]
    pub(super) unsafe fn free_hard(
        &self,
        block: NonNull<u8>,
        slab: Option<Handle>,
        layout: Option<Layout>,
        give: impl FnMut(usize, Entry),
    ) -> Result<(), HeapError> {
        let addr = block.addr().get();
        let found = slab.and_then(|slab| Some((slab, slab.live(addr)?)));
        let (slab, entry) = match found {
            Some(found) => found,
            None => self.live_at(addr)?,
        };
        self.check_layout(slab, addr, layout)?;
        if slab.class() >= CLASSES {
            if !self.claim_big(slab, addr) {
                return Err(HeapError::NotLive);
            }
            self.check_seal(slab, entry, true)?;
            self.free_claimed(slab);
            return Ok(());
        }
        if self.is_full() {
            // One of two that free it at the same moment.
            entry.take_live(CLAIMED)?;
            if self.slab_at(addr) != Some(slab) {
                // It was freed since it was looked up, and its descriptor is that of other blocks now.
                entry.state().store(LIVE, Release);
                return Err(HeapError::NotLive);
            }
        }
        self.check_seal(slab, entry, true)?;
        entry.state().store(FREED, Relaxed);
        self.release_hard(slab, entry, give);
        Ok(())
    }

    /// Compares a layout with what was asked for.
    #[inline]
    pub(super) fn check_layout(
        &self,
        slab: Handle,
        addr: usize,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        let Some(layout) = layout else {
            return Ok(());
        };
        // The alignment is not kept, but the address tells of some that they were not asked for.
        let asked = slab.usable(addr, slab.block_bytes());
        if asked == layout.size() && addr & (layout.align() - 1) == 0 {
            return Ok(());
        }
        Err(HeapError::WrongLayout(BlockAddr::new(addr)))
    }

    /// Marks the contents of a block whose state is that of a free one, and has it wait; tells `give` of blocks to bring
    /// back: this one, or those that have waited.
    #[inline]
    pub(super) fn release_hard(
        &self,
        slab: Handle,
        entry: Entry,
        mut give: impl FnMut(usize, Entry),
    ) {
        let is_full = self.is_full();
        let len = if is_full { slab.block_bytes() } else { HEAD };
        // SAFETY: a block that is free, and that its slab does not hand out before it is brought back.
        unsafe { fill(entry.block, len) };
        if is_full {
            self.wait(slab, entry, give);
        } else {
            give(slab.class(), entry);
        }
    }

    /// Marks the contents of the free blocks of a slab that do not read zero.
    pub(super) fn fill_slab(&self, start: NonNull<u8>, class: usize) {
        if self.is_full() {
            // SAFETY: committed granules that were taken just now.
            unsafe { fill(start, class::granules(class) * GRANULE) };
            return;
        }
        for n in 0..class::blocks(class) {
            // SAFETY: a block of the slab.
            let block = unsafe { start.add(n * class::size(class)) };
            // SAFETY: as above, of committed granules that were taken just now.
            unsafe { fill(block, HEAD) };
        }
    }

    /// Resizes a live block where it lies, or returns the layout of the block to move to.
    pub(super) fn resize_hard(
        &self,
        slab: Handle,
        entry: Entry,
        old: Layout,
        new: Layout,
    ) -> Result<Option<Layout>, HeapError> {
        self.check_layout(slab, entry.block.addr().get(), Some(old))?;
        self.check_seal(slab, entry, false)?;
        let (size, asked) = (slab.block_bytes(), new.size());
        let is_half = asked > size / 2;
        let stays = if slab.class() < CLASSES {
            asked + CANARY_LEAST <= size && is_half || class_for(new) == Some(slab.class())
        } else {
            asked <= size && is_half
        };
        if stays && let Some(hard) = &self.hard {
            seal(hard, slab, entry.block, asked);
        }
        Ok((!stays).then_some(new))
    }

    /// Says that a block's user has written more than was asked for; if so, retires it if `dead`.
    #[inline]
    pub(super) fn check_seal(
        &self,
        slab: Handle,
        entry: Entry,
        dead: bool,
    ) -> Result<(), HeapError> {
        let Some(hard) = &self.hard else {
            return Ok(());
        };
        let addr = entry.block.addr().get();
        let canary = hard.canary(addr);
        let size = slab.block_bytes();
        let (first, words) = hard.place(entry.block, size, slab.usable(addr, size));
        let mut other = 0;
        if let Some((last, word)) = hard.last(entry.block, size, slab.usable(addr, size), canary) {
            // SAFETY: the last word of the block; `seal` wrote it.
            other = unsafe { last.read_unaligned() } ^ word;
        }
        for n in 0..words {
            // SAFETY: so many words lie in the block.
            let place = unsafe { first.add(n) };
            // SAFETY: as above; `seal` wrote them.
            other |= unsafe { place.read_unaligned() } ^ canary;
        }
        if other == 0 {
            return Ok(());
        }
        if dead {
            self.retire(entry);
        }
        Err(HeapError::Overflow(BlockAddr::new(addr)))
    }

    /// Keeps a corrupt block from being used again, for as long as the heap lives.
    #[cold]
    fn retire(&self, entry: Entry) {
        entry.state().store(CORRUPT, Relaxed);
        if let Some(hard) = &self.hard {
            hard.corrupt.fetch_add(1, Relaxed);
        }
    }
}

/// Says whether a free block of a size, which is the calling thread's, is as it was when it was freed, or reads zero.
#[inline]
fn is_intact(hard: &Hard, block: NonNull<u8>, size: usize, zero: bool) -> bool {
    let expected = if zero { 0 } else { PATTERN };
    if hard.is_full {
        // SAFETY: all of it was filled when it was freed, or the host gave it zeroed; sizes are whole steps.
        return unsafe { is_all(block, size, expected) };
    }
    // SAFETY: as above, of the head, as which every block is as long and aligned.
    let head = unsafe { block.cast::<[u64; HEAD / 8]>().read() };
    // Pages of free blocks go back to the host, and may read zero then.
    head == [u64::from_ne_bytes([expected; 8]); HEAD / 8] || head == [0; HEAD / 8]
}

/// Notes what was asked for, and writes the canary behind.
#[inline]
fn seal(hard: &Hard, slab: Handle, block: NonNull<u8>, asked: usize) {
    let addr = block.addr().get();
    slab.set_asked(addr, asked);
    let canary = hard.canary(addr);
    let size = slab.block_bytes();
    let (first, words) = hard.place(block, size, asked);
    if let Some((last, word)) = hard.last(block, size, asked, canary) {
        // SAFETY: the last word of the block, behind what its user may use.
        unsafe { last.write_unaligned(word) };
    }
    for n in 0..words {
        // SAFETY: so many words lie in the block, behind what its user may use.
        let place = unsafe { first.add(n) };
        // SAFETY: as above; the block is live or this call's.
        unsafe { place.write_unaligned(canary) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip::SipHasher13;

    #[test]
    fn words_are_hashed_as_by_the_crate() {
        for n in 0..1000_u64 {
            let key = array::from_fn(|byte| {
                let [low, ..] = (n * 31 + 7 * byte as u64).to_le_bytes();
                low
            });
            let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let expected = SipHasher13::new_with_key(&key).hash(&word.to_le_bytes());
            assert_eq!(Sip::new(&key).hash(word), expected);
        }
    }
}
