//! A bit for each page, and a scan for a run of them: the algorithm of FEX-Emu's allocator of
//! 64-bit addresses (`64BitAllocator.cpp`, `FlexBitSet.h`), made anew.
//!
//! ```text
//!                      ◄── after an unmap, first downwards, then ──► upwards
//!   1111011100111111111011111111111111111111100000000000000000000
//!                                            ▲ last: behind what was mapped last, or at the lowest
//!                                              unmapped since
//! ```
//!
//! Bits are looked at one by one. Where a run is cut short by a page in use, the scan goes on
//! behind that one. A downward scan that sees no hole at all is not repeated before the next unmap.

use crate::space::{Mapping, Space};

/// The pages of one region.
pub struct Bitset {
    used: Vec<u64>,
    pages: usize,
    free: usize,
    last: usize,
    unmapped: bool,
}

impl Bitset {
    /// Makes a region of so many free pages.
    pub fn new(pages: u32) -> Self {
        let pages = pages as usize;
        Self {
            used: vec![0; pages.div_ceil(64)],
            pages,
            free: pages,
            last: 0,
            unmapped: false,
        }
    }

    #[inline]
    fn is_used(&self, page: usize) -> bool {
        self.used[page / 64] & (1 << (page % 64)) != 0
    }

    /// Finds the highest run of `len` pages below `last`, and says whether there was any hole.
    fn scan_down(&self, len: usize) -> (Option<usize>, bool) {
        let (mut end, mut hole) = (self.last, false);
        while end >= len {
            // From its lowest page on: how far it is free from above is not known.
            let in_use = (end - len..end).position(|page| self.is_used(page));
            let Some(before) = in_use else {
                return (Some(end - len), true);
            };
            hole |= before > 0;
            end -= len - before;
        }
        (None, hole)
    }

    /// Finds the lowest run of `len` pages at or above `last`.
    fn scan_up(&self, len: usize) -> Option<usize> {
        let mut start = self.last;
        while start + len <= self.pages {
            let in_use = (start..start + len).rposition(|page| self.is_used(page));
            match in_use {
                None => return Some(start),
                Some(at) => start += at + 1,
            }
        }
        None
    }

    fn take(&mut self, start: usize, len: usize) {
        for page in start..start + len {
            let (word, bit) = (&mut self.used[page / 64], 1 << (page % 64));
            assert_eq!(*word & bit, 0, "a page is given out twice");
            *word |= bit;
        }
        self.free -= len;
        self.last = start + len;
    }
}

impl Space for Bitset {
    const NAME: &'static str = "bitset";

    fn place(&mut self, mapping: Mapping) {
        self.take(mapping.start as usize, mapping.pages.into());
        // It got into such a layout by unmapping.
        self.unmapped = true;
    }

    fn map(&mut self, pages: u16, _: u16) -> u32 {
        let len = usize::from(pages);
        assert!(self.free >= len, "the bitset has no room");
        let mut found = None;
        if self.unmapped {
            let (below, hole) = self.scan_down(len);
            found = below;
            self.unmapped = found.is_some() || hole;
        }
        let found = found.or_else(|| self.scan_up(len));
        let start = found.expect("the bitset has no room");
        self.take(start, len);
        u32::try_from(start).expect("the window has no more pages")
    }

    fn unmap(&mut self, mapping: Mapping) {
        let start = mapping.start as usize;
        for page in start..mapping.end() as usize {
            let (word, bit) = (&mut self.used[page / 64], 1 << (page % 64));
            self.free += usize::from(*word & bit != 0);
            *word &= !bit;
        }
        self.last = self.last.min(start);
        self.unmapped = true;
    }
}
