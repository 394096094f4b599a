//! The parts of a range that a claim leaves alone.

use super::request::Terms;
use crate::{
    page::AddressRange,
    provider::{Error, MapFlags, ProcessMap},
};

/// Returns an address in the caller's stack.
pub(super) fn stack_pointer() -> usize {
    let here = 0u8;
    (&raw const here).addr()
}

/// Addresses that are left as they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    ranges: [Option<AddressRange>; Self::MOST],
}

impl Left {
    /// The range of the request, others' room, that of the caller's stack, now and at first, and
    /// the room of what grows: Linux tells of one such mapping.
    const MOST: usize = 7;

    fn new(terms: &Terms) -> Self {
        let mut ranges = [None; Self::MOST];
        ranges[0] = terms.leave;
        ranges[1] = terms.others;
        Self { ranges }
    }

    /// Finds what to leave: what the request says, and the room of what the map says grows.
    pub(super) fn seen(map: &impl ProcessMap, terms: &Terms) -> Result<Self, Error> {
        let mut left = Self::new(terms);
        let callers = [stack_pointer(), terms.caller];
        let mut end = 0;
        map.walk(&mut |entry| {
            let start = entry.range.start();
            // Somebody else than the kernel may make a stack grow, too (valgrind does): one that
            // ends in a hole. Those of threads end in guards.
            let is_stack = |at: &usize| entry.range.contains(*at);
            let may_grow = end != start && callers.iter().any(is_stack);
            if entry.flags.contains(MapFlags::GROWS) || may_grow {
                let below = entry.range.last().saturating_sub(terms.stack_room);
                let lowest = below.saturating_add(1);
                let room = start.checked_sub(1);
                left.add(room.and_then(|last| AddressRange::new(lowest, last)));
            }
            end = entry.range.last().saturating_add(1);
            true
        })?;
        Ok(left)
    }

    /// Leaves room for a stack that no map shows: below the address in it that the host tells, else
    /// below the caller's, which is the main thread's if that is who calls.
    pub(super) fn unseen(terms: &Terms) -> Self {
        let mut left = Self::new(terms);
        let at = terms.stack.unwrap_or(terms.caller);
        left.add(AddressRange::new(at.saturating_sub(terms.stack_room), at));
        left
    }

    /// Adds a range; where there is no place for it, all up to the one before is left too.
    fn add(&mut self, range: Option<AddressRange>) {
        let [.., last] = &mut self.ranges;
        let both = range.zip(*last).and_then(|(range, before)| {
            let start = range.start().min(before.start());
            AddressRange::new(start, range.last().max(before.last()))
        });
        let whole = both.or(range);
        let free = self.ranges.iter().position(Option::is_none);
        self.ranges[free.unwrap_or(Self::MOST - 1)] = whole;
    }

    /// Calls `visit` for the parts of `gap` that are not left.
    pub(super) fn cut(&self, gap: AddressRange, visit: &mut dyn FnMut(AddressRange)) {
        let mut rest = Some(gap);
        while let Some(gap) = rest {
            let met = self
                .ranges
                .iter()
                .flatten()
                .filter_map(|left| left.intersect(gap));
            let Some(left) = met.min_by_key(|left| left.start()) else {
                visit(gap);
                return;
            };
            if let Some(last) = left.start().checked_sub(1)
                && let Some(below) = AddressRange::new(gap.start(), last)
            {
                visit(below);
            }
            let above = left.last().checked_add(1);
            rest = above.and_then(|start| AddressRange::new(start, gap.last()));
        }
    }
}
