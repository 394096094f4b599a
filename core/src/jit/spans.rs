//! All live spans, in order, while other threads allocate and release.
//!
//! ```text
//!   used    … 0 1 1 1 1 1 0 0 …      a span starts where a granule is used and the one before it
//!   stop    … 1 0 0 1 0 1 0 0 …      is the last of a run: here at the second and the fifth
//! ```
//!
//! The iterator takes the lock of a block's shard for the time of looking at some words of 64
//! granules each, and gives what it found without it. A span that is there all the time stands
//! still, whatever comes and goes beside it, so that it is in the one word in which it starts.

use super::{
    CodeProvider, JitAllocator, LiveSpan,
    block::{Block, Held},
    span::SpanInfo,
};
use crate::{page::AddressRange, provider::PageProvider, sync::RawMutex};
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
    found: Found,
}

/// Words of which is told what was found under one lock.
const FOUND: usize = 8;

/// What was found in some words of a block.
struct Found {
    block: Option<NonNull<Block>>,
    /// The first word's first granule, in both views.
    rx: NonNull<u8>,
    rw: NonNull<u8>,
    granule: usize,
    /// Where spans start that were not given yet, and where runs end.
    starts: [u64; FOUND],
    stops: [u64; FOUND],
    /// The first word with spans that were not given yet.
    at: usize,
    /// Granules from the first one to the end of the last span.
    end: usize,
}

impl Found {
    const NOTHING: Self = Self {
        block: None,
        rx: NonNull::dangling(),
        rw: NonNull::dangling(),
        granule: 0,
        starts: [0; FOUND],
        stops: [0; FOUND],
        at: FOUND,
        end: 0,
    };

    /// Takes the next span.
    #[inline]
    fn next(&mut self) -> Option<(&Block, usize, SpanInfo)> {
        let starts = loop {
            let starts = self.starts.get_mut(self.at)?;
            if *starts != 0 {
                break starts;
            }
            self.at += 1;
        };
        let bit = starts.trailing_zeros();
        *starts &= *starts - 1;
        let first = self.at * 64 + bit as usize;
        let end = match self.stops[self.at] & u64::MAX << bit {
            0 => self.end_behind(self.at),
            stops => self.at * 64 + stops.trailing_zeros() as usize + 1,
        };
        // SAFETY: the blocks of an index live as long as their allocator.
        let block = unsafe { self.block?.as_ref() };
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

    /// Returns where a span ends that starts in a word and goes beyond it.
    #[inline]
    fn end_behind(&self, at: usize) -> usize {
        for (word, stops) in self.stops.iter().enumerate().skip(at + 1) {
            if *stops != 0 {
                return word * 64 + stops.trailing_zeros() as usize + 1;
            }
        }
        self.end
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Yields the live spans by address, with what they carry, while other threads may allocate and
    /// release: a span that is there all the time is told once, and another one at most once for
    /// each time that it comes. What is told may have gone since, so that it is a description of
    /// what was.
    ///
    /// Takes the lock of a release for each 512 granules that have spans: not for signal handlers.
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
            found: Found::NOTHING,
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

    /// Finds the next words with spans that start at or behind where to go on.
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
            let (starts, _) = bits.starts_in(word);
            let starts = starts & u64::MAX << skipped;
            if starts != 0 {
                self.found = found_from(held, word, starts);
                self.from = held.address_of((word + FOUND) * 64);
                return true;
            }
        }
        self.from = held.address_of(behind * 64);
        false
    }
}

/// Returns what is found from a word on, in which spans start at `starts`. The lock is held.
fn found_from(held: &Held<'_>, word: usize, starts: u64) -> Found {
    let (bits, base) = (held.bits(), word * 64);
    let mut found = Found {
        block: Some(held.at),
        rx: held.rx(base),
        rw: held.rw(base),
        granule: base,
        at: 0,
        ..Found::NOTHING
    };
    let mut last = 0;
    for (n, word) in (word..bits.words()).take(FOUND).enumerate() {
        let (here, stops) = bits.starts_in(word);
        let here = if n == 0 { starts } else { here };
        (found.starts[n], found.stops[n]) = (here, stops);
        if here != 0 {
            last = word * 64 + 63 - here.leading_zeros() as usize;
        }
    }
    found.end = bits.end_of(last) - base;
    found
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Iterator for Spans<'_, P, M, R> {
    type Item = LiveSpan;

    #[inline]
    fn next(&mut self) -> Option<LiveSpan> {
        loop {
            while let Some((block, granule, info)) = self.found.next() {
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
