//! The search for a hole: policy, and therefore not a backend's. A backend only tries an address.

#[cfg(test)]
mod tests;

use super::{
    Error, ErrorKind, MapFlags, Place, Plan, ProcessMap,
    gaps::{FLOOR, walk_gaps},
};
use crate::page::{AddressRange, PageRange};

/// How often the map is read anew because a hole was taken between reading and mapping. Each round
/// avoids the hole of the one before, so a single racing thread cannot use them up.
const ROUNDS: usize = 32;

/// How many addresses are tried where the host shows no map: enough to find a hole in any window
/// that is mostly empty, few enough to fail within a millisecond.
const BLIND_TRIES: usize = 1024;

/// Finds a hole for `plan` in `map` and takes it with `try_at`, which is given the start and the
/// length of the whole reservation and must not replace anything.
///
/// Anywhere means the lowest hole of the range; near, the hole closest to the anchor. Where no hole
/// is long enough, and the plan settles for less ([`Plan::min_total`]), it is the longest one. The
/// map is read once, unless holes are taken meanwhile.
///
/// Without a map, addresses spread over the range are tried, with the length asked for and then
/// with the least.
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] where no hole fits or all were taken meanwhile; whatever `try_at`
/// reports, other than that a place is taken or denied.
pub fn search(
    plan: &Plan,
    map: &dyn ProcessMap,
    try_at: &mut dyn FnMut(usize, usize) -> Result<PageRange, Error>,
) -> Result<PageRange, Error> {
    let anchor = match plan.place() {
        Place::Exact(base) => return search_exact(plan, base, map, try_at),
        Place::Hint(base) => {
            if plan.aligned(base)
                && plan.fits(base)
                && let Ok(range) = try_at(base, plan.total())
            {
                return Ok(range);
            }
            None
        }
        Place::Near(anchor) => Some(anchor),
        Place::Anywhere => None,
    };
    let mut floor = FLOOR;
    let mut avoid = None;
    for _ in 0..ROUNDS {
        let mut best = Best {
            plan,
            anchor,
            floor,
            avoid,
            found: None,
            longest: None,
        };
        if best.walk(map).is_err() {
            return search_blindly(plan, anchor, try_at);
        }
        let whole = best.found.map(|base| (base, plan.total()));
        let Some((base, len)) = whole.or(best.longest) else {
            return Err(ErrorKind::Exhausted.into());
        };
        match take(plan, base, len, try_at) {
            Err(e) if e.kind() == ErrorKind::Taken => {
                avoid = AddressRange::from_len(base, len);
            }
            // Below the host's lowest mappable address; where that lies is not always readable.
            Err(e) if e.kind() == ErrorKind::Denied => floor = floor.max(base).saturating_mul(2),
            done => return done,
        }
    }
    Err(ErrorKind::Exhausted.into())
}

/// Takes what lies free at `base`. The map is read only where that may be less than was asked for.
fn search_exact(
    plan: &Plan,
    base: usize,
    map: &dyn ProcessMap,
    try_at: &mut dyn FnMut(usize, usize) -> Result<PageRange, Error>,
) -> Result<PageRange, Error> {
    let taken = match take(plan, base, plan.total(), try_at) {
        Err(error) if error.kind() == ErrorKind::Taken && plan.min_total() < plan.total() => error,
        result => return result,
    };
    let Some(wanted) = AddressRange::from_len(base, plan.total()) else {
        return Err(taken);
    };
    let mut free = 0;
    walk_gaps(map, wanted, &mut |gap| {
        if gap.start() == base {
            free = plan.page().round_down(gap.last() - base + 1);
        }
        false
    })?;
    if free < plan.min_total() {
        return Err(taken);
    }
    take(plan, base, free, try_at)
}

/// Takes `len` bytes of a hole at `base`; where that is too much for the host, half as many and so
/// on down to the least that will do.
fn take(
    plan: &Plan,
    base: usize,
    len: usize,
    try_at: &mut dyn FnMut(usize, usize) -> Result<PageRange, Error>,
) -> Result<PageRange, Error> {
    let fitting = plan.of_total(len);
    fitting.halving(|plan| try_at(base, plan.total()))
}

/// The best start seen so far.
struct Best<'a> {
    plan: &'a Plan,
    anchor: Option<usize>,
    floor: usize,
    avoid: Option<AddressRange>,
    /// Where all that is asked for fits.
    found: Option<usize>,
    /// Where most fits of what has less room, and how much.
    longest: Option<(usize, usize)>,
}

impl Best<'_> {
    fn walk(&mut self, map: &dyn ProcessMap) -> Result<(), Error> {
        let Some(within) = AddressRange::new(
            self.floor.max(self.plan.within().start()),
            self.plan.within().last(),
        ) else {
            return Ok(());
        };
        walk_gaps(map, within, &mut |gap| {
            self.gap(gap);
            let next = gap.last().checked_add(1);
            next.is_some_and(|from| !self.settled(from))
        })
    }

    /// Says whether no gap from `from` upwards can be better than what was found.
    fn settled(&self, from: usize) -> bool {
        match (self.found, self.anchor) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(found), Some(anchor)) => from > anchor && from - anchor > found.abs_diff(anchor),
        }
    }

    fn gap(&mut self, gap: AddressRange) {
        match self.avoid.and_then(|a| a.intersect(gap)) {
            None => self.offer(gap),
            Some(a) => {
                let below = a
                    .start()
                    .checked_sub(1)
                    .and_then(|l| AddressRange::new(gap.start(), l));
                let above = a
                    .last()
                    .checked_add(1)
                    .and_then(|s| AddressRange::new(s, gap.last()));
                for part in [below, above].into_iter().flatten() {
                    self.offer(part);
                }
            }
        }
    }

    /// Considers the best start inside one hole.
    fn offer(&mut self, hole: AddressRange) {
        let Some(base) = best_start(self.plan, hole, self.anchor) else {
            return self.offer_short(hole);
        };
        let better = match (self.found, self.anchor) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(found), Some(anchor)) => base.abs_diff(anchor) < found.abs_diff(anchor),
        };
        if better {
            self.found = Some(base);
        }
    }

    /// Considers a hole that has no room for all.
    fn offer_short(&mut self, hole: AddressRange) {
        let Some(base) = self.plan.start_at_or_above(hole.start().max(1)) else {
            return;
        };
        let Some(room) = hole.last().checked_sub(base) else {
            return;
        };
        let len = self.plan.page().round_down(room.saturating_add(1));
        let len = len.min(self.plan.total());
        let longest = self.longest.map_or(0, |(_, len)| len);
        if len >= self.plan.min_total() && len > longest {
            self.longest = Some((base, len));
        }
    }
}

/// Returns the start in `hole` that is closest to `anchor`, or the lowest without one.
fn best_start(plan: &Plan, hole: AddressRange, anchor: Option<usize>) -> Option<usize> {
    let lowest = plan.start_at_or_above(hole.start())?;
    let highest = plan.start_at_or_below(hole.last().checked_sub(plan.total() - 1)?)?;
    if lowest > highest {
        return None;
    }
    let Some(anchor) = anchor else {
        return Some(lowest);
    };
    let below = plan
        .start_at_or_below(anchor)
        .unwrap_or(lowest)
        .clamp(lowest, highest);
    let above = plan
        .start_at_or_above(anchor)
        .unwrap_or(highest)
        .clamp(lowest, highest);
    Some(if below.abs_diff(anchor) <= above.abs_diff(anchor) {
        below
    } else {
        above
    })
}

/// Tries addresses spread over the range, outwards from the anchor, with the length asked for and
/// then with the least that will do.
fn search_blindly(
    plan: &Plan,
    anchor: Option<usize>,
    try_at: &mut dyn FnMut(usize, usize) -> Result<PageRange, Error>,
) -> Result<PageRange, Error> {
    let least = plan.of_total(plan.min_total());
    match try_spread(plan, anchor, try_at) {
        Err(error) if error.kind() == ErrorKind::Exhausted && plan.min_total() < plan.total() => {
            try_spread(&least, anchor, try_at)
        }
        result => result,
    }
}

fn try_spread(
    plan: &Plan,
    anchor: Option<usize>,
    try_at: &mut dyn FnMut(usize, usize) -> Result<PageRange, Error>,
) -> Result<PageRange, Error> {
    let within = plan.within();
    let low = plan
        .start_at_or_above(within.start().max(FLOOR))
        .ok_or(ErrorKind::Exhausted)?;
    let room = within.last().checked_sub(low).ok_or(ErrorKind::Exhausted)?;
    let stride = (room / BLIND_TRIES).max(plan.total()).max(plan.align());
    let from = anchor.unwrap_or(low).clamp(low, within.last());
    let mut last = Error::of(ErrorKind::Exhausted);
    for n in 0..BLIND_TRIES {
        let up = stride.checked_mul(n).and_then(|d| from.checked_add(d));
        let down = stride
            .checked_mul(n)
            .and_then(|d| from.checked_sub(d))
            .filter(|_| n > 0);
        let up = up.and_then(|a| plan.start_at_or_above(a));
        let down = down
            .and_then(|a| plan.start_at_or_below(a))
            .filter(|&a| a >= low);
        for base in [up, down]
            .into_iter()
            .flatten()
            .filter(|&base| plan.fits(base))
        {
            match try_at(base, plan.total()) {
                Ok(range) => return Ok(range),
                Err(e) => last = e,
            }
        }
    }
    // That the last place tried was taken says nothing to the caller.
    Err(last.with_kind(ErrorKind::Exhausted))
}

/// Says whether a range, without a hole, consists of mappings whose sharing and backing are `kind`
/// ([`MapFlags::SHARED`], [`MapFlags::OBJECT`], both or none): what a backend asks after a call
/// that may have lost the range to somebody else.
///
/// # Errors
///
/// What the process map says where it cannot be read.
pub fn consists_of(
    map: &(impl ProcessMap + ?Sized),
    range: PageRange,
    kind: MapFlags,
) -> Result<bool, Error> {
    let compared = MapFlags::SHARED | MapFlags::OBJECT;
    let wanted = range.addresses();
    let mut next = wanted.start();
    map.walk(&mut |entry| {
        if entry.range.last() < next {
            return true;
        }
        if entry.range.start() > next || entry.flags & compared != kind {
            return false;
        }
        next = entry.range.last().saturating_add(1);
        next <= wanted.last()
    })?;
    Ok(next > wanted.last())
}
