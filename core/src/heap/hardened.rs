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
//! | canary | 8 bytes, one of 256 by where it lies | up to 128 bytes, made of the block's address |
//! | pattern | the first 16 bytes, and where the canary was | the block |
//! | freed blocks serve again | the last one first | after a quarantine, in any order |
//! | guards | none | as long as there are mappings |
//!
//! What was asked for lies with the states, where no stray write into blocks reaches it. The
//! magazines of quick calls have no room, and blocks come from another set, so that nothing of it
//! costs the quick calls of other heaps a step. The lower level has quick calls of its own
//! ([`CacheRef::alloc_sealed`](super::cache::CacheRef::alloc_sealed)), which do no more than
//! compare, and leave to the calls here what is not as it should be.
//!
//! A freed block has no canary at the lower level. So where one is found is where the block was
//! asked for to end, and quick calls compare no other number by which to tell a wrong layout.
//!
//! Canaries and the order of blocks have a key each, of 16 bytes. What is made of them is what
//! SipHash-1-3 makes of them (Aumasson and Bernstein, 2012), a pseudorandom function: who learns
//! some of its values knows neither the key nor others. The first byte of a canary is zero, so that
//! text that lacks its end is not read with the canary.

pub(super) mod quarantine;
mod quick;

use super::{
    Heap, HeapConfig,
    cache::{Cache, Magazine},
    class::{self, CLASSES, GRANULE, STEP},
    error::{BlockAddr, HeapError},
    large::Big,
    slab::{CLAIMED, CORRUPT, Entry, FREED, Handle, LIVE, Notes, ZERO},
};
use crate::{
    arena::Arena,
    provider::{PageProvider, Resource, reserve_ahead},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    array,
    hint::cold_path,
    ptr::{NonNull, null_mut},
    slice,
    sync::atomic::{
        AtomicPtr, AtomicU64, AtomicUsize,
        Ordering::{Relaxed, Release},
    },
};
use quarantine::{Quarantine, WAITING};

/// What free blocks hold that were in use. No pointer: an access through one faults.
pub(super) const PATTERN: u8 = 0xdf;

/// Bytes of a canary at least, where another block may follow.
pub(super) const CANARY_LEAST: usize = WORD;

/// Words of a canary at most: what runs over writes the first of them.
const WORDS_MOST: usize = 16;

/// How many canaries there are at the lower level.
const CANARIES: usize = 1 << u8::BITS;

const PATTERN_WORD: u64 = u64::from_ne_bytes([PATTERN; 8]);

/// Bytes of the pattern at the lower level: every block is as long and aligned so.
const HEAD: usize = STEP;

/// The canaries of the lower level.
pub(super) type Canaries = [u64; CANARIES];

/// Where those are, as long as the heap.
#[derive(Clone, Copy)]
pub(super) struct Seals(NonNull<Canaries>);

// SAFETY: they are never changed.
unsafe impl Send for Seals {}
// SAFETY: as for Send.
unsafe impl Sync for Seals {}

impl Seals {
    /// Takes back what [`Seals::as_ptr`] gave.
    ///
    /// # Safety
    ///
    /// The heap stays as long as every copy of this.
    #[inline]
    pub(super) const unsafe fn new(canaries: NonNull<Canaries>) -> Self {
        Self(canaries)
    }

    pub(super) const fn as_ptr(self) -> *mut Canaries {
        self.0.as_ptr()
    }

    /// Returns the canary that lies at an address.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub(super) fn at(self, addr: usize) -> u64 {
        // Spread by Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4).
        let spread = (addr as u32).wrapping_mul(0x9e37_79b9);
        // SAFETY: initialised by `make`, never changed, and there as long as the heap.
        let canaries = unsafe { self.0.as_ref() };
        canaries[(spread >> (u32::BITS - u8::BITS)) as usize]
    }

    /// Writes the canary behind what was asked for of a block.
    ///
    /// # Safety
    ///
    /// The block has [`CANARY_LEAST`] bytes more, and is live or the calling thread's.
    #[inline]
    pub(super) unsafe fn write(self, block: NonNull<u8>, asked: usize) {
        // SAFETY: the caller's promise: inside the block.
        let place = unsafe { block.add(asked) };
        let canary = self.at(place.addr().get());
        // SAFETY: as above.
        unsafe { place.cast::<u64>().write_unaligned(canary) };
    }

    /// Says whether the canary behind what was asked for of a block is as it was written.
    ///
    /// # Safety
    ///
    /// The block has [`CANARY_LEAST`] bytes more, and is the calling thread's to free.
    #[inline]
    pub(super) unsafe fn is_intact(self, block: NonNull<u8>, asked: usize) -> bool {
        // SAFETY: the caller's promise: inside the block.
        let place = unsafe { block.add(asked) };
        // SAFETY: as above; blocks are written when they are made live, or freed, and read zero
        // before.
        let found = unsafe { place.cast::<u64>().read_unaligned() };
        found == self.at(place.addr().get())
    }
}

/// Says whether a free block at the lower level is as it was when it was freed, or reads zero, as
/// where its page went back to the host, or was never used.
///
/// # Safety
///
/// A block that is free, and the calling thread's.
#[inline]
pub(super) unsafe fn is_clean(block: NonNull<u8>) -> bool {
    // SAFETY: the caller's promise; every block is as long and aligned, and was filled so far when
    // it was freed, or the host gave it zeroed.
    let [first, second] = unsafe { block.cast::<[u64; HEAD / WORD]>().read() };
    if first == PATTERN_WORD && second == PATTERN_WORD {
        return true;
    }
    cold_path();
    first | second == 0
}

/// Takes the canary of a block of the lower level away.
///
/// # Safety
///
/// A block of a class, with a canary behind what was asked for, which is the calling thread's to
/// free or to resize.
#[inline]
unsafe fn take_canary(block: NonNull<u8>, asked: usize) {
    // SAFETY: the caller's promise: inside the block.
    let place = unsafe { block.add(asked) };
    // SAFETY: as above: behind what its user may use.
    unsafe { place.cast::<u64>().write_unaligned(PATTERN_WORD) };
}

/// Fills a block of the lower level that is being freed, and takes its canary away, so that no
/// block ever holds an old one.
///
/// # Safety
///
/// A block that the calling thread frees, with a canary behind what was asked for.
#[inline]
pub(super) unsafe fn mark_free(block: NonNull<u8>, asked: usize) {
    // SAFETY: the caller's promise.
    unsafe { take_canary(block, asked) };
    // SAFETY: the caller's promise; every block is as long and aligned.
    unsafe {
        block
            .cast::<[u64; HEAD / 8]>()
            .write([PATTERN_WORD; HEAD / 8])
    };
}

/// SipHash-1-3 of one word, by a key whose part of the state is computed once. The crate
/// `siphasher`, which tests compare it with, takes longer for a word, as it hashes bytes of any
/// number.
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

    /// Returns the canary of an address as it lies in memory, the first byte of which is zero.
    #[inline]
    const fn canary(&self, addr: usize) -> u64 {
        (self.hash(addr as u64) & !0xff).to_le()
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

/// Makes the state of a heap whose metadata lies around `addr`, if it is hardened.
pub(super) fn make<P: PageProvider, M: PageProvider + Copy, R: RawMutex>(
    provider: &P,
    metadata: &M,
    arena: &Arena<M, R>,
    config: &HeapConfig,
    addr: usize,
) -> Result<Option<Hardened>, HeapError> {
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
        let slots = arena.alloc_slice(WAITING, || AtomicPtr::<u8>::new(null_mut()));
        let slots = slots.map_err(HeapError::Metadata)?;
        Some(Quarantine::new(slots.cast(), bytes))
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
    let mut number = 0;
    let one_more = || {
        // No block starts there.
        number += 1;
        canary.canary(number)
    };
    let seals = if is_full {
        None
    } else {
        let canaries = arena.alloc_slice(CANARIES, one_more);
        let canaries = canaries.map_err(HeapError::Metadata)?.cast();
        // SAFETY: initialised just now, as many; never freed before the arena, which is the heap's.
        Some(unsafe { Seals::new(canaries) })
    };
    Ok(Some(Hardened {
        canary,
        order,
        seals,
        drawn: AtomicU64::new(0),
        corrupt: AtomicUsize::new(0),
        quarantine,
        most_addresses: if is_full {
            reserve_ahead(provider, 0, addresses)
        } else {
            0
        },
        mappings,
    }))
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
            // SAFETY: at most the length of the block.
            return unsafe { Tail::new(entry.block, size, asked, seals.at(addr + asked), 1) };
        }
        let canary = slab.canary(entry);
        let canary = canary.unwrap_or_else(|| self.canary.canary(addr));
        // SAFETY: as above.
        unsafe { Tail::new(entry.block, size, asked, canary, WORDS_MOST) }
    }
}

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// A canary, which is repeated up to a number of words. Where those do not end with the block, it
/// goes on if the block ends shortly behind, so that a write before the next block is found.
pub(super) struct Tail {
    first: NonNull<u64>,
    /// Bytes up to the end of the block.
    len: usize,
    words: usize,
    has_last: bool,
    canary: u64,
}

impl Tail {
    /// Describes one of `most` words at most.
    ///
    /// # Safety
    ///
    /// The block is as long as `size` says, and no less than what was asked for.
    #[inline]
    unsafe fn new(block: NonNull<u8>, size: usize, asked: usize, canary: u64, most: usize) -> Self {
        // SAFETY: the caller's promise.
        let first = unsafe { block.add(asked) };
        let len = size - asked;
        Self {
            first: first.cast(),
            len,
            words: (len / WORD).min(most),
            has_last: most > 1 && len < WORD * (most + 1),
            canary,
        }
    }

    /// Describes one of the highest level.
    ///
    /// # Safety
    ///
    /// As of [`Tail::new`].
    #[inline]
    pub(super) unsafe fn full(block: NonNull<u8>, size: usize, asked: usize, canary: u64) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::new(block, size, asked, canary, WORDS_MOST) }
    }

    /// Returns where the last word of the block lies, and what it holds.
    #[inline]
    fn last(&self) -> Option<(NonNull<u64>, u64)> {
        if !self.has_last || self.words == 0 {
            return None;
        }
        // SAFETY: inside the block, which has a word behind what was asked for.
        let place = unsafe { self.first.byte_add(self.len - WORD) };
        let rest = self.len % WORD;
        let bits = u32::from(rest.to_le_bytes()[0]) * u8::BITS;
        // The bytes in memory move down by so many.
        let word = if cfg!(target_endian = "little") {
            self.canary.rotate_right(bits)
        } else {
            self.canary.rotate_left(bits)
        };
        Some((place, word))
    }

    /// Writes it.
    ///
    /// # Safety
    ///
    /// The block is live, or the calling thread's.
    #[inline]
    pub(super) unsafe fn write(&self) {
        if let Some((last, word)) = self.last() {
            // SAFETY: the last word of the block, behind what its user may use.
            unsafe { last.write_unaligned(word) };
        }
        if self.words != 0 {
            // SAFETY: so many words lie in the block, behind what its user may use.
            unsafe { self.first.write_unaligned(self.canary) };
        }
        for n in 1..self.words {
            // SAFETY: as above.
            let place = unsafe { self.first.add(n) };
            // SAFETY: as above; the caller's promise.
            unsafe { place.write_unaligned(self.canary) };
        }
    }

    /// Says whether it is as it was written.
    ///
    /// # Safety
    ///
    /// Those of [`Tail::write`], which was called.
    #[inline]
    pub(super) unsafe fn is_intact(&self) -> bool {
        let mut other = 0;
        if let Some((last, word)) = self.last() {
            // SAFETY: the last word of the block; `write` wrote it.
            other = unsafe { last.read_unaligned() } ^ word;
        }
        if self.words != 0 {
            // SAFETY: so many words lie in the block; `write` wrote them.
            other |= unsafe { self.first.read_unaligned() } ^ self.canary;
        }
        for n in 1..self.words {
            // SAFETY: as above.
            let place = unsafe { self.first.add(n) };
            // SAFETY: as above.
            other |= unsafe { place.read_unaligned() } ^ self.canary;
        }
        other == 0
    }
}

/// Returns the class for a block and its canary.
#[inline]
pub(super) fn class_for(layout: Layout) -> Option<usize> {
    let size = layout.size().checked_add(CANARY_LEAST)?;
    let wanted = Layout::from_size_align(size, layout.align()).ok()?;
    if let Some(class) = class::quick(wanted) {
        return Some(class);
    }
    let class = class::of(wanted)?;
    if can_note(class, layout.size()) {
        return Some(class);
    }
    // A few bytes with a great alignment: a class of which more can be noted.
    class::of(Layout::from_size_align(class::BYTE_MAX + 1, layout.align()).ok()?)
}

/// Says whether a block of a class has room for what is asked for and a canary, and that can be
/// noted.
pub(super) const fn can_note(class: usize, asked: usize) -> bool {
    let most = if class::size(class) <= class::BYTE_MAX {
        u8::MAX as usize
    } else {
        u16::MAX as usize
    };
    match class::size(class).checked_sub(asked.saturating_add(CANARY_LEAST)) {
        Some(slack) => slack <= most,
        None => false,
    }
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
pub(super) unsafe fn is_all(block: NonNull<u8>, len: usize, byte: u8) -> bool {
    debug_assert!(block.addr().get().is_multiple_of(align_of::<u64>()) && len.is_multiple_of(8));
    // SAFETY: the caller's promise; blocks are aligned to more than a word, and whole words long.
    let words = unsafe { slice::from_raw_parts(block.cast::<u64>().as_ptr(), len / WORD) };
    let expected = u64::from_ne_bytes([byte; 8]);
    // The first word is as expected, and each word is as the one before, which is compared by the
    // widest instructions that there are.
    words.first().is_none_or(|word| *word == expected)
        && words.get(1..) == words.get(..words.len().wrapping_sub(1))
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    #[inline]
    pub(super) const fn is_hardened(&self) -> bool {
        self.hardened.is_some()
    }

    /// Returns what is kept of blocks.
    pub(super) const fn notes(&self) -> Notes {
        match &self.hardened {
            None => Notes::None,
            Some(hardened) if hardened.is_full() => Notes::Canaries,
            Some(_) => Notes::Asked,
        }
    }

    #[inline]
    pub(super) const fn is_full(&self) -> bool {
        match &self.hardened {
            Some(hardened) => hardened.is_full(),
            None => false,
        }
    }

    /// Allocates a block, and says whether it reads zero.
    #[cold]
    pub(super) fn alloc_hardened(&self, shard: usize, layout: Layout) -> Result<Big, HeapError> {
        let Some(class) = class_for(layout) else {
            return self.alloc_big_sealed(layout);
        };
        let entry = self.take_one(shard, class)?;
        self.hand_out(None, entry, class, layout)
    }

    /// Allocates a block without a class, and says whether it reads zero.
    pub(super) fn alloc_big_sealed(&self, layout: Layout) -> Result<Big, HeapError> {
        let (block, zero) = self.alloc_big_or_reclaim(layout)?;
        if let (Some(hardened), Some(slab)) = (&self.hardened, self.slab_at(block.addr().get())) {
            seal(hardened, slab, slab.only(), layout.size());
        }
        Ok((block, zero))
    }

    /// Makes a block live that was taken from its slab, and says whether it reads zero. `slab` is
    /// that, if it is known.
    ///
    /// # Errors
    ///
    /// [`HeapError::WriteAfterFree`] where somebody wrote into it meanwhile.
    #[inline]
    pub(super) fn hand_out(
        &self,
        slab: Option<Handle>,
        entry: Entry,
        class: usize,
        layout: Layout,
    ) -> Result<Big, HeapError> {
        let addr = entry.block.addr().get();
        let zero = entry.state().load(Relaxed) == ZERO;
        let slab = slab
            .or_else(|| self.slab_at(addr))
            .ok_or(HeapError::NotOwned)?;
        let hardened = self.hardened.as_ref().ok_or(HeapError::Config)?;
        if !is_intact(hardened, entry.block, class::size(class), zero) {
            self.retire(entry);
            return Err(HeapError::WriteAfterFree(BlockAddr::new(addr)));
        }
        seal(hardened, slab, entry, layout.size());
        entry.state().store(LIVE, Release);
        Ok((entry.block, zero))
    }

    /// Frees a block by a call without a handle, or says why not.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`](super::LocalHeap::free).
    #[cold]
    pub(super) unsafe fn free_hardened_by(
        &self,
        block: NonNull<u8>,
        layout: Option<Layout>,
    ) -> Result<(), HeapError> {
        let find = |addr| self.slab_at(addr);
        let give = |class, entry| self.flush(class, &[entry]);
        // SAFETY: the caller's promise.
        unsafe { self.free_hardened(block, find, layout, give) }
    }

    /// Frees a block, or says why not, and tells `give` of blocks to bring back: this one, or those
    /// that have waited. `find` is the caller's quickest way to the slab around an address, which
    /// need not know those of huge blocks.
    ///
    /// # Safety
    ///
    /// As of [`LocalHeap::free`](super::LocalHeap::free).
    #[inline]
    pub(super) unsafe fn free_hardened(
        &self,
        block: NonNull<u8>,
        find: impl Fn(usize) -> Option<Handle>,
        layout: Option<Layout>,
        give: impl FnMut(usize, Entry),
    ) -> Result<(), HeapError> {
        let addr = block.addr().get();
        let found = find(addr).and_then(|slab| Some((slab, slab.live(addr)?)));
        let (slab, entry) = match found {
            Some(found) => found,
            None => self.live_at(addr)?,
        };
        check_layout(addr, slab.usable_of(entry), layout)?;
        if slab.class() >= CLASSES {
            if !self.claim_big(slab, addr) {
                return Err(HeapError::NotLive);
            }
            self.check_seal(slab, entry, slab.usable_of(entry), true)?;
            self.free_claimed(slab);
            return Ok(());
        }
        if self.is_full() {
            // One of two that free it at the same moment.
            entry.take_live(CLAIMED)?;
            if find(addr) != Some(slab) {
                // It was freed since it was looked up, and its descriptor is that of other blocks
                // now.
                entry.state().store(LIVE, Release);
                return Err(HeapError::NotLive);
            }
        }
        // Not before: it may have been another's until it was taken.
        let asked = slab.usable_of(entry);
        self.check_seal(slab, entry, asked, true)?;
        entry.state().store(FREED, Relaxed);
        self.release_hardened(slab, entry, asked, find, give);
        Ok(())
    }

    /// Marks the contents of a block of a class, whose state is that of a free one, and of which so
    /// much was asked for, and has it wait; tells `give` of blocks to bring back: this one, or
    /// those that have waited.
    #[inline]
    pub(super) fn release_hardened(
        &self,
        slab: Handle,
        entry: Entry,
        asked: usize,
        find: impl Fn(usize) -> Option<Handle>,
        mut give: impl FnMut(usize, Entry),
    ) {
        if self.is_full() {
            // SAFETY: a block that is free, and that its slab does not hand out before it is
            // brought back.
            unsafe { fill(entry.block, slab.block_bytes()) };
            self.wait(slab, entry, find, give);
        } else {
            // SAFETY: as above; all blocks of classes have room for a canary.
            unsafe { mark_free(entry.block, asked) };
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
    pub(super) fn resize_hardened(
        &self,
        slab: Handle,
        entry: Entry,
        old: Layout,
        new: Layout,
    ) -> Result<Option<Layout>, HeapError> {
        let before = self.check_live(slab, entry, old)?;
        let (size, asked) = (slab.block_bytes(), new.size());
        let is_half = asked > size / 2;
        let stays = if slab.class() < CLASSES {
            can_note(slab.class(), asked) && (is_half || class_for(new) == Some(slab.class()))
        } else {
            asked <= size && is_half
        };
        if stays && let Some(hardened) = &self.hardened {
            if hardened.seals.is_some() && slab.class() < CLASSES {
                // SAFETY: a block of a class with a canary behind what was asked for.
                unsafe { take_canary(entry.block, before) };
            }
            seal(hardened, slab, entry, asked);
        }
        Ok((!stays).then_some(new))
    }

    /// Returns what was asked for of a live block, if it was by this layout, and nothing was
    /// written behind.
    pub(super) fn check_live(
        &self,
        slab: Handle,
        entry: Entry,
        layout: Layout,
    ) -> Result<usize, HeapError> {
        let asked = slab.usable_of(entry);
        check_layout(entry.block.addr().get(), asked, Some(layout))?;
        self.check_seal(slab, entry, asked, false)?;
        Ok(asked)
    }

    /// Says that a block's user has written more than was asked for; if so, retires it if `dead`.
    #[inline]
    pub(super) fn check_seal(
        &self,
        slab: Handle,
        entry: Entry,
        asked: usize,
        dead: bool,
    ) -> Result<(), HeapError> {
        let Some(hardened) = &self.hardened else {
            return Ok(());
        };
        // SAFETY: `seal` wrote it when the block was made live.
        if unsafe { hardened.tail(slab, entry, asked).is_intact() } {
            return Ok(());
        }
        cold_path();
        if dead {
            self.retire(entry);
        }
        Err(HeapError::Overflow(BlockAddr::new(
            entry.block.addr().get(),
        )))
    }

    /// Keeps a corrupt block from being used again, for as long as the heap lives.
    #[cold]
    fn retire(&self, entry: Entry) {
        entry.state().store(CORRUPT, Relaxed);
        if let Some(hardened) = &self.hardened {
            hardened.corrupt.fetch_add(1, Relaxed);
        }
    }
}

/// Says whether a free block of a size, which is the calling thread's, is as it was when it was
/// freed, or reads zero.
#[inline]
fn is_intact(hardened: &Hardened, block: NonNull<u8>, size: usize, zero: bool) -> bool {
    if hardened.is_full() {
        let expected = if zero { 0 } else { PATTERN };
        // SAFETY: all of it was filled when it was freed, or the host gave it zeroed; sizes are
        // whole steps.
        return unsafe { is_all(block, size, expected) };
    }
    // SAFETY: the caller has taken it from its slab.
    unsafe { is_clean(block) }
}

/// Notes what was asked for, and writes the canary behind.
#[inline]
fn seal(hardened: &Hardened, slab: Handle, entry: Entry, asked: usize) {
    slab.set_asked(entry, asked);
    // SAFETY: the block is live, or this call's.
    unsafe { hardened.tail(slab, entry, asked).write() };
}

/// Compares a layout with what was asked for.
#[inline]
pub(super) fn check_layout(
    addr: usize,
    asked: usize,
    layout: Option<Layout>,
) -> Result<(), HeapError> {
    let Some(layout) = layout else {
        return Ok(());
    };
    // The alignment is not kept, but the address tells of some that they were not asked for.
    if asked == layout.size() && addr & (layout.align() - 1) == 0 {
        return Ok(());
    }
    Err(HeapError::WrongLayout(BlockAddr::new(addr)))
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
