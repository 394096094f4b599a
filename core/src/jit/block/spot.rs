//! Spans that are wanted at certain addresses of a block.

use super::{Held, Mode};
use crate::{jit::class, page::AddressRange};
use core::ops::Range;

/// Where a span is wanted, and how long.
#[derive(Clone, Copy)]
pub(in crate::jit) struct Spot {
    /// Granules.
    pub(in crate::jit) need: usize,
    /// A power of two.
    pub(in crate::jit) align: usize,
    pub(in crate::jit) within: AddressRange,
}

/// What a look at some words of a block found.
pub(in crate::jit) enum Placed {
    /// Granules, taken.
    Here(Range<usize>),
    /// None up to this word.
    Behind(usize),
    /// None.
    Nowhere,
}

impl Held<'_> {
    /// Says whether a run of granules lies in a spot, if it lies in the block.
    #[inline]
    pub(in crate::jit) fn is_in_spot(&self, run: &Range<usize>, spot: &Spot) -> bool {
        if run.end > self.guarded.count {
            return false;
        }
        let start = self.guarded.rx.addr().get() + (run.start << self.block.shift);
        let last = start + ((run.end - run.start) << self.block.shift) - 1;
        spot.within.start() <= start
            && last <= spot.within.last()
            && start.is_multiple_of(spot.align)
    }

    /// Takes the lowest granules that lie in a spot.
    pub(in crate::jit) fn allocate_at_spot(&mut self, spot: &Spot) -> Option<Range<usize>> {
        match self.allocate_from(0, usize::MAX, spot) {
            Placed::Here(span) => Some(span),
            Placed::Behind(_) | Placed::Nowhere => None,
        }
    }

    /// Takes the lowest granules that lie in a spot, of runs that start in `word` or behind,
    /// looking at `tries` words.
    pub(in crate::jit) fn allocate_from(
        &mut self,
        word: usize,
        tries: usize,
        spot: &Spot,
    ) -> Placed {
        let window = self.granules_in(spot.within);
        let closed = self.block.mode() != Mode::Open || self.guarded.views.is_none();
        if closed || window.end.saturating_sub(window.start) < spot.need {
            return Placed::Nowhere;
        }
        let class = class::of_run(spot.need);
        // Where the run starts that the window starts in.
        let mut from = word.max(self.bits().run_start(window.start) / 64);
        for _ in 0..tries {
            let found = self.tree().find(from, class);
            let Some(word) = found.filter(|word| word * 64 < window.end) else {
                return Placed::Nowhere;
            };
            let found = self.bits().free_runs_from(word).find_map(|run| {
                let start = self.start_in_spot(&run, &window, spot.align)?;
                let end = start.checked_add(spot.need)?;
                (end <= run.end.min(window.end)).then_some((run, start..end))
            });
            if let Some((run, span)) = found {
                self.take(word, &run, span.clone());
                return Placed::Here(span);
            }
            from = word + 1;
        }
        Placed::Behind(from)
    }

    /// Returns the first granule of a run that lies in a window and is aligned.
    fn start_in_spot(
        &self,
        run: &Range<usize>,
        window: &Range<usize>,
        align: usize,
    ) -> Option<usize> {
        let (base, shift) = (self.guarded.rx.addr().get(), self.block.shift);
        let first = base + (run.start.max(window.start) << shift);
        // The base is a multiple of the granule, as map_block takes care of, so the difference is
        // one too, or is rounded up to the next granule for an alignment below that.
        Some((first.checked_next_multiple_of(align)? - base).div_ceil(1 << shift))
    }

    /// Returns what part of the executable view lies in `window`, as granules.
    pub(in crate::jit) fn granules_in(&self, window: AddressRange) -> Range<usize> {
        let base = self.guarded.rx.addr().get();
        let size = 1 << self.block.shift;
        let low = window.start().saturating_sub(base).div_ceil(size);
        let past = window.last().saturating_add(1).saturating_sub(base) >> self.block.shift;
        low..past.min(self.guarded.count)
    }
}
