//! What spans carry for the program: a word and a group, and a number of their own; by the granule
//! where a span starts.
//!
//! All are zero in every granule where no span starts: they are cleared before a span goes, so
//! that a new one appears without those of an older one. Readers take no lock.

use super::{
    CodeProvider, JitAllocator, JitError, Span, SpanInfo,
    alloc::describe,
    block::Block,
    find::Which,
    tables::{self, Zero},
};
use crate::{
    arch,
    arena::Arena,
    atomic::{AtomicU32, AtomicU64, Ordering},
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::{ops::Range, ptr::NonNull};

/// Whether spans carry a word for the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Words {
    /// They do not.
    #[default]
    None,
    /// 32 bits: an index.
    Bits32,
    /// 64 bits: a pointer.
    Bits64,
}

/// A live span, with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveSpan {
    /// Where it is.
    pub span: SpanInfo,
    /// Its word; zero until one is set.
    pub word: u64,
    /// Its group; zero until one is set.
    pub group: u32,
    /// Its number; zero where spans have [none](super::JitConfig::numbers).
    pub number: u32,
}

/// Which of the things that spans can carry a configuration asks for.
#[derive(Clone, Copy)]
pub(super) struct Carried {
    pub(super) words: Words,
    pub(super) groups: bool,
    pub(super) numbers: bool,
}

/// What a block's spans carry: an entry a granule, or none at all.
#[derive(Clone, Copy)]
pub(super) struct Tags {
    words32: NonNull<[AtomicU32]>,
    words64: NonNull<[AtomicU64]>,
    groups: NonNull<[AtomicU32]>,
    numbers: NonNull<[AtomicU32]>,
}

/// Numbers that a shard takes at a time.
const NUMBERS: u32 = 256;

/// Returns a table without entries.
const fn no_table<T>() -> NonNull<[T]> {
    NonNull::slice_from_raw_parts(NonNull::dangling(), 0)
}

/// Allocates a table, or one without entries.
fn table<T: Zero, M: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<M, R>,
    len: usize,
) -> Result<NonNull<[T]>, Error> {
    match len {
        0 => Ok(no_table()),
        _ => tables::zeroed(arena, len),
    }
}

impl Tags {
    /// Those of spans that carry nothing.
    pub(super) const NONE: Self = Self {
        words32: no_table(),
        words64: no_table(),
        groups: no_table(),
        numbers: no_table(),
    };

    /// Makes as many entries as `count`, in an arena, of what is wanted.
    pub(super) fn make<M: PageProvider + Copy, R: RawMutex>(
        arena: &Arena<M, R>,
        carried: Carried,
        count: usize,
    ) -> Result<Self, Error> {
        let words = carried.words;
        let entries = |wanted: bool| if wanted { count } else { 0 };
        let mut tags = Self::NONE;
        let mut fill = || {
            tags.words32 = table(arena, entries(words == Words::Bits32))?;
            tags.words64 = table(arena, entries(words == Words::Bits64))?;
            tags.groups = table(arena, entries(carried.groups))?;
            tags.numbers = table(arena, entries(carried.numbers))?;
            Ok(())
        };
        match fill() {
            Ok(()) => Ok(tags),
            Err(error) => {
                // SAFETY: allocated just now, and used by no other code.
                unsafe { tags.free(arena) };
                Err(error)
            }
        }
    }

    /// Gives the tables back.
    ///
    /// # Safety
    ///
    /// They came from this arena, and no other code uses them any more.
    pub(super) unsafe fn free<M: PageProvider + Copy, R: RawMutex>(&self, arena: &Arena<M, R>) {
        // SAFETY: the caller's promise. A table without entries is left alone.
        unsafe { tables::free(arena, self.words32) };
        // SAFETY: as above.
        unsafe { tables::free(arena, self.words64) };
        // SAFETY: as above.
        unsafe { tables::free(arena, self.groups) };
        // SAFETY: as above.
        unsafe { tables::free(arena, self.numbers) };
    }

    #[inline]
    const fn words32(&self) -> &[AtomicU32] {
        // SAFETY: initialised when the block was made, changed only through its atomics, and alive
        // as long as the arena, which outlives the block's users.
        unsafe { self.words32.as_ref() }
    }

    #[inline]
    const fn words64(&self) -> &[AtomicU64] {
        // SAFETY: as in words32.
        unsafe { self.words64.as_ref() }
    }

    #[inline]
    const fn groups(&self) -> &[AtomicU32] {
        // SAFETY: as in words32.
        unsafe { self.groups.as_ref() }
    }

    #[inline]
    const fn numbers(&self) -> &[AtomicU32] {
        // SAFETY: as in words32.
        unsafe { self.numbers.as_ref() }
    }

    /// Says whether spans carry nothing.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.words32.is_empty()
            && self.words64.is_empty()
            && self.groups.is_empty()
            && self.numbers.is_empty()
    }

    /// Returns the word of the span that starts at a granule.
    #[inline]
    fn word(&self, granule: usize) -> u64 {
        // Acquire: what the word stands for was stored before.
        if let Some(word) = self.words64().get(granule) {
            return word.load(Ordering::Acquire);
        }
        let word = self.words32().get(granule);
        word.map_or(0, |word| word.load(Ordering::Acquire).into())
    }

    /// Begins to fetch the word of a granule.
    #[inline]
    pub(super) fn prefetch(&self, granule: usize) {
        if let Some(word) = self.words64().get(granule) {
            arch::prefetch(word);
        } else if let Some(word) = self.words32().get(granule) {
            arch::prefetch(word);
        }
    }

    /// Returns the group of the span that starts at a granule.
    #[inline]
    pub(super) fn group(&self, granule: usize) -> u32 {
        let group = self.groups().get(granule);
        group.map_or(0, |group| group.load(Ordering::Acquire))
    }

    /// Returns the number of the span that starts at a granule; zero where spans have none.
    #[inline]
    pub(super) fn number(&self, granule: usize) -> u32 {
        let number = self.numbers().get(granule);
        number.map_or(0, |number| number.load(Ordering::Acquire))
    }

    /// Sets the number of the span that starts at a granule, if spans have one.
    #[inline]
    pub(super) fn set_number(&self, granule: usize, number: u32) {
        if let Some(entry) = self.numbers().get(granule) {
            entry.store(number, Ordering::Release);
        }
    }

    /// Takes the number away from the span that starts at a granule, if it has this one, which is
    /// not zero. The shard is locked.
    #[inline]
    pub(super) fn take_number(&self, granule: usize, number: u32) -> bool {
        let Some(entry) = self.numbers().get(granule) else {
            return false;
        };
        let has = number != 0 && entry.load(Ordering::Relaxed) == number;
        if has {
            entry.store(0, Ordering::Relaxed);
        }
        has
    }

    fn set_word(&self, granule: usize, word: u64) -> Result<(), JitError> {
        if let Some(entry) = self.words64().get(granule) {
            entry.store(word, Ordering::Release);
            return Ok(());
        }
        let entry = self.words32().get(granule).ok_or(JitError::Untagged)?;
        let word = u32::try_from(word).map_err(|_| JitError::Untagged)?;
        entry.store(word, Ordering::Release);
        Ok(())
    }

    fn set_group(&self, granule: usize, group: u32) -> Result<(), JitError> {
        let entry = self.groups().get(granule).ok_or(JitError::Untagged)?;
        entry.store(group, Ordering::Release);
        Ok(())
    }

    /// Clears what the span carries that starts at a granule, before it goes.
    #[inline]
    pub(super) fn clear(&self, granule: usize) {
        if self.is_empty() {
            return;
        }
        if let Some(word) = self.words64().get(granule) {
            word.store(0, Ordering::Relaxed);
        }
        for table in [self.words32(), self.groups(), self.numbers()] {
            if let Some(entry) = table.get(granule) {
                entry.store(0, Ordering::Relaxed);
            }
        }
    }
}

impl Block {
    /// Returns what a span of this block carries.
    #[inline]
    pub(super) fn tagged(&self, span: SpanInfo) -> LiveSpan {
        self.tagged_at(self.granule_of(span.rx.addr().get()), span)
    }

    /// Returns what the span carries that starts at a granule of this block.
    #[inline]
    pub(super) fn tagged_at(&self, granule: usize, span: SpanInfo) -> LiveSpan {
        LiveSpan {
            span,
            word: self.tags.word(granule),
            group: self.tags.group(granule),
            number: self.tags.number(granule),
        }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Finds the live span around `addr` as [`JitAllocator::query`] does, with its word and group.
    #[inline]
    pub fn query_tagged(&self, addr: usize) -> Option<LiveSpan> {
        let block = self.index.block_at(addr)?;
        // Meanwhile the bits are looked at, which tell where the span starts: few start far away.
        // SAFETY: the block lives as long as this allocator, whose index it is in.
        unsafe { block.as_ref() }.prefetch_tags(addr);
        let found = self.index.query(addr)?;
        // SAFETY: as above.
        Some(unsafe { found.block.as_ref() }.tagged(found.info))
    }

    /// Sets the word of a span: see [`JitConfig::words`](super::JitConfig::words). It goes with the
    /// span.
    ///
    /// # Errors
    ///
    /// [`JitError::Untagged`] where spans carry no word, or one of 32 bits and `word` is longer;
    /// [`JitError::NotOwned`].
    pub fn set_word(&self, span: &Span, word: u64) -> Result<(), JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        let granule = block.granule_of(span.rx().addr().get());
        block.tags.set_word(granule, word)
    }

    /// Sets the group of a span: see [`JitConfig::groups`](super::JitConfig::groups). It goes with
    /// the span.
    ///
    /// # Errors
    ///
    /// [`JitError::Untagged`] where spans have no groups; [`JitError::NotOwned`].
    pub fn set_group(&self, span: &Span, group: u32) -> Result<(), JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        let granule = block.granule_of(span.rx().addr().get());
        block.tags.set_group(granule, group)
    }

    /// Sets the word of the span that starts at `rx`.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::set_word`]; [`JitError::NotLive`] and [`JitError::Interior`]
    /// where no span starts at `rx`.
    ///
    /// # Safety
    ///
    /// If a span starts at `rx`, it is not released before the call returns.
    pub unsafe fn set_word_at(&self, rx: usize, word: u64) -> Result<(), JitError> {
        let (block, _) = self.live_at(rx)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        block.tags.set_word(block.granule_of(rx), word)
    }

    /// Sets the group of the span that starts at `rx`.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::set_group`]; [`JitError::NotLive`] and [`JitError::Interior`]
    /// where no span starts at `rx`.
    ///
    /// # Safety
    ///
    /// The promises of [`JitAllocator::set_word_at`].
    pub unsafe fn set_group_at(&self, rx: usize, group: u32) -> Result<(), JitError> {
        let (block, _) = self.live_at(rx)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        block.tags.set_group(block.granule_of(rx), group)
    }

    /// Releases all spans of a group; returns how many those were.
    ///
    /// Looks at every live span, but locks as a release does: other threads go on meanwhile. A span
    /// that joins the group during the call may stay.
    ///
    /// # Errors
    ///
    /// [`JitError::Untagged`] where spans have no groups.
    ///
    /// # Safety
    ///
    /// Nobody executes a span of the group, or uses its token or address in another call, from now
    /// on.
    pub unsafe fn release_group(&self, group: u32) -> Result<usize, JitError> {
        if !self.config.has_groups() {
            return Err(JitError::Untagged);
        }
        let mut count = 0;
        for live in self.spans().of_group(group) {
            // SAFETY: no token of the span is used again, by the caller's promise.
            let released = unsafe { self.release_at(live.span.rx.addr().get()) };
            count += usize::from(released.is_ok());
        }
        Ok(count)
    }
}

/// Spans that are known by their address and number, for programs that copy what names a span.
impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Returns the next number of a span, which is never zero, from those that its shard has.
    #[inline]
    pub(super) fn next_number(&self, own: &mut Range<u32>) -> u32 {
        loop {
            match own.next() {
                Some(0) => {}
                Some(number) => return number,
                None => {
                    let start = self.numbers.fetch_add(NUMBERS, Ordering::Relaxed);
                    // The last one is not used where numbers begin again.
                    *own = start..start.saturating_add(NUMBERS);
                }
            }
        }
    }

    /// Makes a token of the live span that starts at `rx` and has this number, as a program keeps
    /// them that cannot keep tokens: one in C.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], [`JitError::NotLive`] or [`JitError::Interior`] where no span starts
    /// at `rx`; [`JitError::NotLive`] where one does that has another number, since the one meant
    /// was released; [`JitError::Untagged`] where spans have no
    /// [numbers](super::JitConfig::numbers).
    ///
    /// # Safety
    ///
    /// If the span is live, the caller owns it; no other token of it is used as long as this one
    /// is, and no other code releases the span meanwhile, by its address or number.
    #[inline]
    pub unsafe fn span_at(&self, rx: usize, number: u32) -> Result<Span, JitError> {
        if !self.config.has_numbers() {
            return Err(JitError::Untagged);
        }
        let (block, info) = self.live_at(rx)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        // Zero is what one has whose number was taken away.
        if number == 0 || block.tags.number(block.granule_of(rx)) != number {
            return Err(JitError::NotLive);
        }
        Ok(Span::new(info, self.id()))
    }

    /// Returns the number of a span; zero where spans have [none](super::JitConfig::numbers), and
    /// where it was [taken](JitAllocator::take_numbered) away.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`].
    #[inline]
    pub fn number(&self, span: &Span) -> Result<u32, JitError> {
        let block = self.block_of_span(span)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        Ok(block.tags.number(block.granule_of(span.rx().addr().get())))
    }

    /// Gives the span back that starts at `rx` and has this number. Of several calls for one span,
    /// at the same time or one after the other, one succeeds.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::span_at`]; nothing changes then.
    ///
    /// # Safety
    ///
    /// If the span is live, the caller owns it, and no token of it is used again.
    #[inline]
    pub unsafe fn release_numbered(&self, rx: usize, number: u32) -> Result<(), JitError> {
        let (block, which) = self.numbered(rx, number)?;
        // SAFETY: the block is one of the index; the caller's promise: it owns the span.
        unsafe { self.release_in(block, which) }
    }

    /// Takes the span that starts at `rx` and has this number: makes its token, and takes the
    /// number away, so that copies of what named the span are refused from now on. Of several
    /// calls for one span one succeeds.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::span_at`]; nothing changes then.
    ///
    /// # Safety
    ///
    /// If the span is live, the caller owns it, and no other token of it is used again.
    pub unsafe fn take_numbered(&self, rx: usize, number: u32) -> Result<Span, JitError> {
        let (block, which) = self.numbered(rx, number)?;
        // SAFETY: the block is one of the index, and the guard is kept until the span is described.
        let (_guard, held) = unsafe { self.lock_block(block) };
        let span = which.find(&held)?;
        Ok(Span::new(describe(&held, &span), self.id()))
    }

    /// Gives a span a number that was [taken](JitAllocator::take_numbered) away from it.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`]; [`JitError::Untagged`] where spans have no numbers.
    pub fn set_number(&self, span: &Span, number: u32) -> Result<(), JitError> {
        if !self.config.has_numbers() {
            return Err(JitError::Untagged);
        }
        let block = self.block_of_span(span)?;
        // SAFETY: the block lives as long as this allocator, whose it is.
        let block = unsafe { block.as_ref() };
        block
            .tags
            .set_number(block.granule_of(span.rx().addr().get()), number);
        Ok(())
    }

    /// Finds the block that a numbered span would lie in.
    #[inline]
    fn numbered(&self, rx: usize, number: u32) -> Result<(NonNull<Block>, Which), JitError> {
        if !self.config.has_numbers() {
            return Err(JitError::Untagged);
        }
        Ok((self.block_of(rx)?, Which::Numbered { rx, number }))
    }
}
