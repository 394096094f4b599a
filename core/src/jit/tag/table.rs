//! The tables of a block: an entry a granule of each of what its spans carry.

use super::Words;
use crate::{
    arch,
    arena::Arena,
    atomic::{AtomicU32, AtomicU64, Ordering},
    jit::{
        JitError,
        tables::{self, Zero},
    },
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::ptr::NonNull;

/// Which of the things that spans can carry a configuration asks for.
#[derive(Clone, Copy)]
pub(in crate::jit) struct Carried {
    pub(in crate::jit) words: Words,
    pub(in crate::jit) groups: bool,
    pub(in crate::jit) numbers: bool,
}

/// What a block's spans carry: an entry a granule, or none at all.
#[derive(Clone, Copy)]
pub(in crate::jit) struct Tags {
    words32: NonNull<[AtomicU32]>,
    words64: NonNull<[AtomicU64]>,
    groups: NonNull<[AtomicU32]>,
    numbers: NonNull<[AtomicU32]>,
}

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
    pub(in crate::jit) const NONE: Self = Self {
        words32: no_table(),
        words64: no_table(),
        groups: no_table(),
        numbers: no_table(),
    };

    /// Makes as many entries as `count`, in an arena, of what is wanted.
    pub(in crate::jit) fn make<M: PageProvider + Copy, R: RawMutex>(
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
    pub(in crate::jit) unsafe fn free<M: PageProvider + Copy, R: RawMutex>(
        &self,
        arena: &Arena<M, R>,
    ) {
        // SAFETY: allocated from `arena` and used no more, by this function's `# Safety`. A table
        // without entries is left alone.
        unsafe { tables::free(arena, self.words32) };
        // SAFETY: allocated from `arena` and used no more, by this function's `# Safety`. A table
        // without entries is left alone.
        unsafe { tables::free(arena, self.words64) };
        // SAFETY: allocated from `arena` and used no more, by this function's `# Safety`. A table
        // without entries is left alone.
        unsafe { tables::free(arena, self.groups) };
        // SAFETY: allocated from `arena` and used no more, by this function's `# Safety`. A table
        // without entries is left alone.
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
        // SAFETY: initialised when the block was made, changed only through its atomics, and alive
        // as long as the arena, which outlives the block's users.
        unsafe { self.words64.as_ref() }
    }

    #[inline]
    const fn groups(&self) -> &[AtomicU32] {
        // SAFETY: initialised when the block was made, changed only through its atomics, and alive
        // as long as the arena, which outlives the block's users.
        unsafe { self.groups.as_ref() }
    }

    #[inline]
    const fn numbers(&self) -> &[AtomicU32] {
        // SAFETY: initialised when the block was made, changed only through its atomics, and alive
        // as long as the arena, which outlives the block's users.
        unsafe { self.numbers.as_ref() }
    }

    /// Says whether spans carry nothing.
    #[inline]
    pub(in crate::jit) const fn is_empty(&self) -> bool {
        self.words32.is_empty()
            && self.words64.is_empty()
            && self.groups.is_empty()
            && self.numbers.is_empty()
    }

    /// Returns the word of the span that starts at a granule.
    #[inline]
    pub(super) fn word(&self, granule: usize) -> u64 {
        // Acquire: what the word stands for was stored before.
        if let Some(word) = self.words64().get(granule) {
            return word.load(Ordering::Acquire);
        }
        let word = self.words32().get(granule);
        word.map_or(0, |word| word.load(Ordering::Acquire).into())
    }

    /// Begins to fetch the word of a granule.
    #[inline]
    pub(in crate::jit) fn prefetch(&self, granule: usize) {
        if let Some(word) = self.words64().get(granule) {
            arch::prefetch(word);
        } else if let Some(word) = self.words32().get(granule) {
            arch::prefetch(word);
        }
    }

    /// Returns the group of the span that starts at a granule.
    #[inline]
    pub(in crate::jit) fn group(&self, granule: usize) -> u32 {
        let group = self.groups().get(granule);
        group.map_or(0, |group| group.load(Ordering::Acquire))
    }

    /// Returns the number of the span that starts at a granule; zero where spans have none.
    #[inline]
    pub(in crate::jit) fn number(&self, granule: usize) -> u32 {
        let number = self.numbers().get(granule);
        number.map_or(0, |number| number.load(Ordering::Acquire))
    }

    /// Sets the number of the span that starts at a granule, if spans have one.
    #[inline]
    pub(in crate::jit) fn set_number(&self, granule: usize, number: u32) {
        if let Some(entry) = self.numbers().get(granule) {
            entry.store(number, Ordering::Release);
        }
    }

    /// Takes the number away from the span that starts at a granule, if it has this one, which is
    /// not zero. The shard is locked.
    #[inline]
    pub(in crate::jit) fn take_number(&self, granule: usize, number: u32) -> bool {
        let Some(entry) = self.numbers().get(granule) else {
            return false;
        };
        let has = number != 0 && entry.load(Ordering::Relaxed) == number;
        if has {
            entry.store(0, Ordering::Relaxed);
        }
        has
    }

    pub(super) fn set_word(&self, granule: usize, word: u64) -> Result<(), JitError> {
        if let Some(entry) = self.words64().get(granule) {
            entry.store(word, Ordering::Release);
            return Ok(());
        }
        let entry = self.words32().get(granule).ok_or(JitError::Untagged)?;
        let word = u32::try_from(word).map_err(|_| JitError::Untagged)?;
        entry.store(word, Ordering::Release);
        Ok(())
    }

    pub(super) fn set_group(&self, granule: usize, group: u32) -> Result<(), JitError> {
        let entry = self.groups().get(granule).ok_or(JitError::Untagged)?;
        entry.store(group, Ordering::Release);
        Ok(())
    }

    /// Clears what the span carries that starts at a granule, before it goes.
    #[inline]
    pub(in crate::jit) fn clear(&self, granule: usize) {
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
