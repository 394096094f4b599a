//! How free runs of a block are taken and come back, and what its [`Tree`](super::Tree) knows of
//! them.

use super::{Held, Mode};
use crate::jit::class;
use core::ops::Range;

/// Words of 64 granules looked at for a run whose class does not promise that it fits, before a new
/// block is mapped instead: bounds the cost of an allocation among many runs slightly too short.
const TRIES: usize = 32;

/// What a long run has at least beyond a request, in granules, to become the active one.
const LONG: usize = 64;

impl Held<'_> {
    /// Returns the class of the longest free run; [`class::NONE`] where none is given out.
    #[inline]
    pub(in crate::jit) fn largest(&mut self) -> u8 {
        match self.block.mode() {
            Mode::Open if !self.block.lone => self.tree().largest(),
            _ => class::NONE,
        }
    }

    /// Returns the lowest word with a run of a sufficient class, the active run apart.
    #[inline]
    pub(in crate::jit) fn first_word(&mut self, class: u8) -> Option<usize> {
        self.tree().first(class)
    }

    /// Takes the first run of at least `need` granules that starts in a word. One that is much
    /// longer becomes the active run, of which nothing is taken yet: `None` then, and without one.
    #[inline]
    pub(in crate::jit) fn allocate_in(&mut self, word: usize, need: usize) -> Option<usize> {
        let run = self.run_in(word, need)?;
        if run.len() - need >= LONG {
            // Settling joins runs, perhaps this one with others: look again.
            self.settle_active();
            self.guarded.active = self.run_in(word, need)?;
            self.count_again(word);
            return None;
        }
        let span = run.start..run.start + need;
        self.take(word, &run, span);
        Some(run.start)
    }

    /// Returns the first run of at least `need` granules that starts in a word, the active one
    /// apart.
    #[inline]
    fn run_in(&self, word: usize, need: usize) -> Option<Range<usize>> {
        let mut runs = self.bits().free_runs_from(word);
        runs.find(|run| run.len() >= need && *run != self.guarded.active)
    }

    /// Says whether the active run is one of this block's.
    #[inline]
    pub(in crate::jit) const fn has_active(&self) -> bool {
        self.guarded.active.start < self.guarded.active.end
    }

    /// Returns where the active run starts.
    #[inline]
    pub(in crate::jit) const fn active_start(&self) -> usize {
        self.guarded.active.start
    }

    /// Says whether the active run starts in a word before all other runs of a sufficient class.
    #[inline]
    pub(in crate::jit) fn active_is_before(&mut self, class: u8) -> bool {
        let word = self.guarded.active.start / 64;
        self.first_word(class).is_none_or(|first| word < first)
    }

    /// Takes the first `need` granules of the active run, if it has them; returns the first.
    #[inline]
    pub(in crate::jit) fn allocate_active(&mut self, need: usize) -> Option<usize> {
        let run = self.guarded.active.clone();
        if run.len() < need || self.block.mode() != Mode::Open {
            return None;
        }
        self.bits().allocate_first(&run, need);
        self.guarded.active.start = run.start + need;
        self.guarded.used += need;
        self.guarded.spans += 1;
        Some(run.start)
    }

    /// Makes the active run one like others.
    pub(in crate::jit) fn settle_active(&mut self) {
        let run = core::mem::replace(&mut self.guarded.active, 0..0);
        if !run.is_empty() {
            self.announce(run);
        }
    }

    /// Leaves the active run if it is the one that starts at a granule: it is being taken.
    #[inline]
    fn leave_active(&mut self, start: usize) {
        if self.guarded.active.start == start {
            self.guarded.active = 0..0;
        }
    }

    /// Takes a free run of at least `need` granules whose class has shorter runs too: looks at
    /// some.
    pub(in crate::jit) fn allocate_by_trial(&mut self, need: usize) -> Option<Range<usize>> {
        self.allocate_where(need, TRIES, |run| Some(run.start))
    }

    /// Takes the lowest `need` granules that start where `start_in` says that a span may start in a
    /// free run, looking at `tries` words.
    pub(in crate::jit) fn allocate_where(
        &mut self,
        need: usize,
        tries: usize,
        start_in: impl Fn(&Range<usize>) -> Option<usize>,
    ) -> Option<Range<usize>> {
        if self.block.mode() != Mode::Open {
            return None;
        }
        let class = class::of_run(need);
        let mut from = 0;
        for _ in 0..tries {
            let word = self.tree().find(from, class)?;
            let found = self.bits().free_runs_from(word).find_map(|run| {
                let start = start_in(&run).filter(|s| s.saturating_add(need) <= run.end)?;
                Some((run, start..start + need))
            });
            if let Some((run, span)) = found {
                self.take(word, &run, span.clone());
                return Some(span);
            }
            from = word + 1;
        }
        None
    }

    /// Takes just these granules, if all of them are free and no run of theirs is left apart.
    pub(in crate::jit) fn allocate_granules(&mut self, span: Range<usize>) -> Option<Range<usize>> {
        if self.block.mode() != Mode::Open || span.end > self.guarded.count {
            return None;
        }
        let start = self.bits().run_start(span.start);
        let run = start..self.bits().end_of(span.start);
        if run.end < span.end || self.bits().is_used(span.start) {
            return None;
        }
        self.take(start / 64, &run, span.clone());
        Some(span)
    }

    /// Makes a part of the free run that starts in `word` a span.
    #[inline]
    pub(super) fn take(&mut self, word: usize, run: &Range<usize>, span: Range<usize>) {
        self.bits().allocate(run, span.clone());
        self.guarded.used += span.len();
        self.guarded.spans += 1;
        let rest = span.end..run.end;
        self.leave_active(run.start);
        self.shortened(word, run.len());
        if !rest.is_empty() {
            self.tree()
                .raise(rest.start / 64, class::of_run(rest.len()));
        }
        if span.start > run.start {
            let head = span.start - run.start;
            self.tree().raise(word, class::of_run(head));
        }
    }

    /// Brings the tree up to date after a run of `len` granules that started in `word` went or
    /// became shorter.
    #[inline]
    fn shortened(&mut self, word: usize, len: usize) {
        if self.tree().class(word) != class::of_run(len) {
            return; // Another is longer.
        }
        self.count_again(word);
    }

    #[inline(never)]
    pub(super) fn count_again(&mut self, word: usize) {
        let runs = self.bits().free_runs_from(word);
        let runs = runs.filter(|run| *run != self.guarded.active);
        let longest = runs.map(|run| run.len()).max();
        self.tree()
            .set(word, longest.map_or(class::NONE, class::of_run));
    }

    /// Takes a whole free run of at most a few words, if the range is one.
    #[inline(always)]
    pub(in crate::jit) fn take_run(&mut self, run: Range<usize>) -> bool {
        let count = self.guarded.count;
        if self.block.mode() != Mode::Open || count == 0 || !self.bits().take_run(&run) {
            return false;
        }
        self.guarded.used += run.len();
        self.guarded.spans += 1;
        self.leave_active(run.start);
        self.shortened(run.start / 64, run.len());
        true
    }

    /// Frees a live span and leaves it beside other free runs, where [`Held::allocate_in`] does not
    /// find it; [`Held::join`] comes later.
    #[inline]
    pub(in crate::jit) fn free_apart(&mut self, span: Range<usize>) {
        self.guarded.used -= span.len();
        self.guarded.spans -= 1;
        self.bits().free_tail(span, 0);
    }

    /// Joins a range, if it is a free run that was left apart, with those beside it.
    pub(in crate::jit) fn join(&mut self, run: Range<usize>) {
        if self.guarded.count != 0 && self.bits().is_free_run(&run) {
            self.announce(run);
        }
    }

    /// Frees a live span behind its first `keep` granules; all of it for zero. Says whether the
    /// longest run may be another now.
    #[inline]
    pub(in crate::jit) fn free_tail(&mut self, span: Range<usize>, keep: usize) -> bool {
        self.guarded.used -= span.len() - keep;
        self.guarded.spans -= usize::from(keep == 0);
        let run = self.bits().free_tail(span, keep);
        if keep > 0 && self.has_active() && run.end == self.guarded.active.start {
            // As most that shrink: the tail goes back to where it came from, and before it is what
            // is kept.
            self.bits().join(run.end);
            self.guarded.active.start = run.start;
            return false;
        }
        self.announce(run)
    }

    /// Joins a free run with those beside it, and notes in the tree what that makes; says whether
    /// the tree changed.
    #[inline]
    fn announce(&mut self, run: Range<usize>) -> bool {
        let mut run = run;
        let mut started = run.start;
        let mut changed = false;
        while self.bits().join_left(&mut run) {
            changed |= self.joined(started, &run);
            started = run.start;
        }
        if self.has_active() && run.end == self.guarded.active.start {
            // Nothing free lies behind the active run.
            self.bits().join(run.end);
            run.end = self.guarded.active.end;
        } else {
            loop {
                let end = run.end;
                if !self.bits().join_right(&mut run) {
                    break;
                }
                changed |= self.joined(end, &run);
            }
        }
        let word = run.start / 64;
        if self.has_active() && run.contains(&self.guarded.active.start) {
            // The active run became longer.
            self.guarded.active = run;
            if self.tree().class(word) != class::NONE {
                self.count_again(word);
                changed = true;
            }
            return changed;
        }
        self.tree().raise(word, class::of_run(run.len())) || changed
    }

    /// Brings the tree up to date after a run that started at a granule became a part of `run`;
    /// says whether it had to be.
    #[inline]
    fn joined(&mut self, started: usize, run: &Range<usize>) -> bool {
        let word = started / 64;
        let known = word != run.start / 64 && self.tree().class(word) != class::NONE;
        if known {
            self.count_again(word);
        }
        known
    }

    /// Yields the maximal runs of used granules, in order.
    pub(in crate::jit) fn used_runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.bits().used_runs()
    }
}

impl<'a> Held<'a> {
    /// Yields the free runs, in order. The bits are the block's, so that what the lock guards
    /// besides may be changed meanwhile.
    pub(in crate::jit) fn free_runs(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let bits = self.block.bits(self.guarded.count);
        (0..bits.words()).flat_map(move |word| bits.free_runs_from(word))
    }
}
