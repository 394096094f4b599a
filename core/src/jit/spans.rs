//! All live spans, in order, while other threads allocate and release.
//!
//! ```text
//!   used    … 0 1 1 1 1 1 0 0 …      a span starts where a granule is used and the one before it
//!   stop    … 1 0 0 1 0 1 0 0 …      is the last of a run: here at the second and the fifth
//! ```
//!
//! The iterator goes by words of 64 granules. It takes the lock of a block's shard for the time of
//! looking at one, and gives what it found without it. A span that is there all the time stands
//! still, whatever comes and goes beside it, so that it is in the one word in which it starts.

use super::{
    CodeProvider, JitAllocator, LiveSpan,
    block::{Block, Held},
    span::SpanInfo,
};
use crate::{page::AddressRange, provider::PageProvider, sync::RawMutex};
use bitvec::{order::Lsb0, slice::BitSlice};
use core::{fmt, ptr::NonNull};

/// Words that are looked at under a lock for one with spans: 64 Ki granules, some microseconds.
const WORDS: usize = 1024;

/// Yields live spans by address: see [`JitAllocator::spans`].
#[must_use = "an iterator does nothing by itself"]
pub struct Spans<'a, P: CodeProvider, M: PageProvider + Copy, R: RawMutex> {
    jit: &'a JitAllocator<P, M, R>,
    range: AddressRange,
    group: Option<u32>,
    /// Where to go on; `None` at the end.
    from: Option<usize>,
    word: Word,
}

/// What was found in one word of a block.
struct Word {
    block: Option<NonNull<Block>>,
    /// The word's first granule, in both views.
    rx: NonNull<u8>,
    rw: NonNull<u8>,
    granule: usize,
    /// Where spans start in it that were not given yet, and where runs end.
    starts: u64,
    stops: u64,
    /// Granules from the word's first one to the end of the last span that starts in it.
    end: usize,
}

impl Word {
    const NONE: Self = Self {
        block: None,
        rx: NonNull::dangling(),
        rw: NonNull::dangling(),
        granule: 0,
        starts: 0,
        stops: 0,
        end: 0,
    };

    /// Takes the next span.
    #[inline]
    fn next(&mut self) -> Option<(&Block, usize, SpanInfo)> {
        let block = self.block?;
        let first = BitSlice::<u64, Lsb0>::from_element(&self.starts).first_one()?;
        self.starts &= self.starts - 1;
        // SAFETY: the blocks of an index live as long as their allocator.
        let block = unsafe { block.as_ref() };
        let stops = self.stops & u64::MAX << first;
        let end = match BitSlice::<u64, Lsb0>::from_element(&stops).first_one() {
            Some(last) => last + 1,
            None => self.end,
        };
        let info = SpanInfo {
            rx: self
                .rx
                .map_addr(|rx| rx.saturating_add(first << block.shift)),
            rw: self
                .rw
                .map_addr(|rw| rw.saturating_add(first << block.shift)),
            len: (end - first) << block.shift,
        };
        Some((block, self.granule + first, info))
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Yields the live spans by address, with what they carry, while other threads may allocate and
    /// release: a span that is there all the time is told once, and another one at most once for
    /// each time that it comes. What is told may have gone since, so that it is a description of
    /// what was.
    ///
    /// Takes the lock of a release for each 64 granules that have spans: not for signal handlers.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use hostmem_core::jit::{CodeProvider, JitAllocator};
    /// # fn dump<P: CodeProvider>(jit: &JitAllocator<P>) {
    /// for block in jit.blocks() {
    ///     for live in jit.spans().within(block.rx.addresses()) {
    ///         let (start, len) = (live.span.rx, live.span.len);
    ///         // A line of a perf map, say.
    ///     }
    /// }
    /// # }
    /// ```
    pub const fn spans(&self) -> Spans<'_, P, M, R> {
        Spans {
            jit: self,
            range: AddressRange::ALL,
            group: None,
            from: Some(0),
            word: Word::NONE,
        }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Spans<'_, P, M, R> {
    /// Yields those only that start within `range`, as one block's do.
    pub const fn within(mut self, range: AddressRange) -> Self {
        self.range = range;
        self.from = Some(range.start());
        self
    }

    /// Yields those only of a group. See [`JitAllocator::set_group`].
    pub const fn of_group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// Finds the next word with spans that start at or behind where to go on.
    #[cold]
    fn advance(&mut self) -> Option<()> {
        loop {
            let from = self.from?;
            if from > self.range.last() {
                return None;
            }
            let block = match self.jit.index.block_at(from) {
                Some(block) => block,
                None => {
                    let (start, block) = self.jit.index.block_from(from)?;
                    self.from = Some(start);
                    block
                }
            };
            // SAFETY: the block lives as long as this allocator, whose index it is in.
            let guard = self.jit.shards.lock(unsafe { block.as_ref() }.shard);
            // SAFETY: the arena outlives the borrow of the allocator; the shard is locked until the
            // Held is gone.
            let held = unsafe { Block::held(block) };
            let found = self.look(&held);
            drop(guard);
            if found {
                return Some(());
            }
        }
    }

    /// Looks at some words of a block, from where to go on; says whether one has spans. Its shard
    /// is locked.
    fn look(&mut self, held: &Held<'_>) -> bool {
        let Some(from) = self.from else {
            return false;
        };
        let Some((granule, exact)) = held.granule_at(from).filter(|_| held.views().is_some())
        else {
            // It was unmapped since: the next turn finds what is there now.
            return false;
        };
        // A span starts at a granule.
        let granule = granule + usize::from(!exact);
        let (bits, first) = (held.bits(), granule / 64);
        let words = first..bits.words().min(first + WORDS);
        let behind = words.end;
        for word in words {
            let skipped = if word == first { granule % 64 } else { 0 };
            let (starts, stops) = bits.starts_in(word);
            let starts = starts & u64::MAX << skipped;
            if starts != 0 {
                let base = word * 64;
                self.word = Word {
                    block: Some(held.at),
                    rx: held.rx(base),
                    rw: held.rw(base),
                    granule: base,
                    starts,
                    stops,
                    end: bits.end_of(base + 63 - starts.leading_zeros() as usize) - base,
                };
                self.from = held.address_of(base + 64);
                return true;
            }
        }
        self.from = held.address_of(behind * 64);
        false
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Iterator for Spans<'_, P, M, R> {
    type Item = LiveSpan;

    #[inline]
    fn next(&mut self) -> Option<LiveSpan> {
        loop {
            while let Some((block, granule, info)) = self.word.next() {
                if self
                    .group
                    .is_some_and(|group| block.tags.group(granule) != group)
                {
                    continue;
                }
                if info.rx.addr().get() > self.range.last() {
                    self.from = None;
                    return None;
                }
                return Some(block.tagged_at(granule, info));
            }
            self.advance()?;
        }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> fmt::Debug for Spans<'_, P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans")
            .field("range", &self.range)
            .field("group", &self.group)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}
