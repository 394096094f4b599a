//! The search for a hole: policy, and therefore not a backend's. A backend only tries an address.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        page::PageSize,
        provider::{MapEntry, Placement, Request},
    };
    use core::ptr::NonNull;

    const PAGE: PageSize = PageSize::KIB_4;

    struct Used<'a>(&'a [(usize, usize)]);

    impl ProcessMap for Used<'_> {
        fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
            for &(start, end) in self.0 {
                let range = AddressRange::new(start, end - 1).expect("not empty");
                if !visit(MapEntry {
                    range,
                    flags: MapFlags::READ,
                }) {
                    break;
                }
            }
            Ok(())
        }
    }

    struct NoMap;

    impl ProcessMap for NoMap {
        fn walk(&self, _: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
            Err(ErrorKind::Unsupported.into())
        }
    }

    fn found(request: Request<'_>, used: &[(usize, usize)]) -> Result<usize, ErrorKind> {
        let plan = request.plan(PAGE).map_err(Error::kind)?;
        run(&plan, &Used(used), used)
    }

    fn run(plan: &Plan, map: &dyn ProcessMap, used: &[(usize, usize)]) -> Result<usize, ErrorKind> {
        search(plan, map, &mut |base, len| {
            if used.iter().any(|&(s, e)| base < e && s < base + len) {
                return Err(ErrorKind::Taken.into());
            }
            let start = NonNull::new(core::ptr::without_provenance_mut(base));
            start
                .and_then(|s| PageRange::new(s, len, PAGE))
                .ok_or(ErrorKind::InvalidArgument.into())
        })
        .map(|r| r.addr())
        .map_err(Error::kind)
    }

    fn window(start: usize, end: usize) -> AddressRange {
        AddressRange::new(start, end - 1).expect("not empty")
    }

    #[test]
    fn anywhere_takes_the_lowest_hole_of_the_window() {
        let used = [(0x10_0000, 0x10_2000), (0x10_3000, 0x11_0000)];
        let request = Request::bytes(0x1000).within(window(0x10_0000, 0x12_0000));
        assert_eq!(found(request, &used), Ok(0x10_2000));
        assert_eq!(
            found(
                Request {
                    len: 0x2000,
                    ..request
                },
                &used
            ),
            Ok(0x11_0000)
        );
        let full = request.within(window(0x10_0000, 0x10_2000));
        assert_eq!(found(full, &used), Err(ErrorKind::Exhausted));
    }

    #[test]
    fn near_takes_the_closest_hole_on_either_side() {
        let used = [(0x50_0000, 0x60_0000), (0x60_1000, 0x70_0000)];
        let near = |anchor| Request::bytes(0x1000).placement(Placement::near(anchor, 1 << 24));
        assert_eq!(found(near(0x51_0000), &used), Ok(0x4f_f000));
        assert_eq!(found(near(0x5f_0000), &used), Ok(0x60_0000));
        assert_eq!(found(near(0x6f_0000), &used), Ok(0x70_0000));
        assert_eq!(found(near(0x80_0000), &used), Ok(0x80_0000));
    }

    #[test]
    fn guards_lie_inside_the_window_and_align_the_body() {
        let request = Request::bytes(0x1000)
            .guards(0x1000, 0x1000)
            .align(0x1_0000)
            .within(window(0x10_0000, 0x20_0000));
        assert_eq!(found(request, &[]), Ok(0x10_f000));
        let tight = request.within(window(0x10_f000, 0x11_2000));
        assert_eq!(found(tight, &[]), Ok(0x10_f000));
        let too_tight = request.within(window(0x10_f000, 0x11_1000));
        assert_eq!(found(too_tight, &[]), Err(ErrorKind::Exhausted));
    }

    #[test]
    fn a_hole_taken_meanwhile_is_avoided() {
        let plan = Request::bytes(0x1000).within(window(0x10_0000, 0x20_0000));
        let plan = plan.plan(PAGE).expect("valid");
        assert_eq!(
            run(&plan, &Used(&[]), &[(0x10_0000, 0x10_1000)]),
            Ok(0x10_1000)
        );
    }

    /// A map that counts how often it is walked.
    struct Walks<'a>(Used<'a>, core::sync::atomic::AtomicUsize);

    impl ProcessMap for Walks<'_> {
        fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
            self.1.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            self.0.walk(visit)
        }
    }

    /// Searches, where a host maps no more than `most` bytes at once; returns what was found and
    /// the walks that it took.
    fn longest(
        request: Request<'_>,
        used: &[(usize, usize)],
        most: usize,
    ) -> (Result<(usize, usize), ErrorKind>, usize) {
        let map = Walks(Used(used), core::sync::atomic::AtomicUsize::new(0));
        let plan = match request.plan(PAGE) {
            Ok(plan) => plan,
            Err(error) => return (Err(error.kind()), 0),
        };
        let found = search(&plan, &map, &mut |base, len| {
            if used.iter().any(|&(s, e)| base < e && s < base + len) {
                return Err(ErrorKind::Taken.into());
            }
            if len > most {
                return Err(ErrorKind::Exhausted.into());
            }
            let start = NonNull::new(core::ptr::without_provenance_mut(base));
            let range = start.and_then(|start| PageRange::new(start, len, PAGE));
            range.ok_or(ErrorKind::InvalidArgument.into())
        });
        let found = found.map(|range| (range.addr(), range.len_bytes()));
        (found.map_err(Error::kind), map.1.into_inner())
    }

    #[test]
    fn one_walk_finds_the_longest_hole_that_will_do() {
        // Holes of two, five, three and five pages.
        let used = [
            (0x10_0000, 0x10_1000),
            (0x10_3000, 0x10_4000),
            (0x10_9000, 0x10_a000),
            (0x10_d000, 0x10_e000),
            (0x11_3000, 0x12_0000),
        ];
        let within = window(0x10_0000, 0x12_0000);
        let ask = |len, min| Request::bytes(len).at_least(min).within(within);
        let all = usize::MAX;
        let found = |request| longest(request, &used, all);
        // What fits is where it would be anyway.
        assert_eq!(found(ask(0x2000, 0x1000)), (Ok((0x10_1000, 0x2000)), 1));
        assert_eq!(found(ask(0x3000, 0x1000)), (Ok((0x10_4000, 0x3000)), 1));
        // What does not fit gets the lowest of the longest.
        assert_eq!(found(ask(0x1_0000, 0x1000)), (Ok((0x10_4000, 0x5000)), 1));
        assert_eq!(found(ask(0x1_0000, 0x5000)), (Ok((0x10_4000, 0x5000)), 1));
        let none = (Err(ErrorKind::Exhausted), 1);
        assert_eq!(found(ask(0x1_0000, 0x5001)), none, "six pages");
        assert_eq!(found(ask(0x1_0000, 0x6000)), none);
        assert_eq!(found(Request::bytes(0x6000).within(within)), none);
        // Alignment and guards take their part of a hole.
        let aligned = ask(0x1_0000, 0x1000).align(0x4000);
        assert_eq!(found(aligned), (Ok((0x10_4000, 0x5000)), 1));
        let aligned = ask(0x1_0000, 0x1000).align(0x1_0000);
        assert_eq!(found(aligned), (Ok((0x11_0000, 0x3000)), 1));
        let guarded = ask(0x1_0000, 0x3000).guards(0x1000, 0x1000);
        assert_eq!(found(guarded), (Ok((0x10_4000, 0x5000)), 1));
        assert_eq!(found(ask(0x1_0000, 0x4000).guards(0x1000, 0x1000)), none);
        // A window ends in the middle of a page.
        let odd = ask(0x1_0000, 0x1000).within(window(0x10_4800, 0x10_8800));
        assert_eq!(found(odd), (Ok((0x10_5000, 0x3000)), 1));
        // Near, the closest of those that fit; else the longest.
        let near = |len| ask(len, 0x1000).place(Place::Near(0x10_b000));
        assert_eq!(found(near(0x3000)), (Ok((0x10_a000, 0x3000)), 1));
        assert_eq!(found(near(0x8000)), (Ok((0x10_4000, 0x5000)), 1));
    }

    #[test]
    fn an_exact_place_gives_what_is_free_there() {
        let used = [(0x10_4000, 0x10_5000)];
        let at = |base, len, min| {
            let request = Request::bytes(len).at_least(min);
            longest(request.place(Place::Exact(base)), &used, usize::MAX)
        };
        assert_eq!(at(0x10_0000, 0x4000, 0x1000), (Ok((0x10_0000, 0x4000)), 0));
        assert_eq!(at(0x10_0000, 0x9000, 0x1000), (Ok((0x10_0000, 0x4000)), 1));
        assert_eq!(at(0x10_0000, 0x9000, 0x5000), (Err(ErrorKind::Taken), 1));
        assert_eq!(at(0x10_4000, 0x9000, 0x1000), (Err(ErrorKind::Taken), 1));
        assert_eq!(at(0x10_5000, 0x9000, 0x1000), (Ok((0x10_5000, 0x9000)), 0));
        // The range asked for ends before all of it.
        let inside = |base, min| {
            let request = Request::bytes(0x4000).at_least(min);
            let request = request.within(window(0x10_0000, 0x10_2000));
            longest(request.place(Place::Exact(base)), &used, usize::MAX).0
        };
        assert_eq!(inside(0x10_0000, 0x1000), Ok((0x10_0000, 0x2000)));
        assert_eq!(inside(0x10_1000, 0x1000), Ok((0x10_1000, 0x1000)));
        assert_eq!(inside(0x10_1000, 0x2000), Err(ErrorKind::OutsideRange));
        assert_eq!(inside(0x10_2000, 0x1000), Err(ErrorKind::OutsideRange));
    }

    #[test]
    fn what_a_host_has_too_little_of_is_halved_in_the_same_hole() {
        let within = window(0x10_0000, 0x20_0000);
        let ask = |min| Request::bytes(0x1_0000).at_least(min).within(within);
        let found = |min, most| longest(ask(min), &[], most);
        assert_eq!(found(0x1000, 0x5000), (Ok((0x10_0000, 0x4000)), 1));
        assert_eq!(found(0x3000, 0x3000), (Ok((0x10_0000, 0x3000)), 1));
        assert_eq!(found(0x6000, 0x5000), (Err(ErrorKind::Exhausted), 1));
    }

    #[test]
    fn a_least_length_is_validated() {
        let kind = |len, min| {
            let plan = Request::bytes(len).at_least(min).plan(PAGE);
            plan.map(|plan| (plan.min_total(), plan.total()))
                .map_err(Error::kind)
        };
        assert_eq!(kind(0x3000, 1), Ok((0x1000, 0x3000)));
        assert_eq!(kind(0x2001, 0x2001), Ok((0x3000, 0x3000)));
        assert_eq!(kind(0x3000, 0), Err(ErrorKind::InvalidArgument));
        assert_eq!(kind(0x3000, 0x3001), Err(ErrorKind::InvalidArgument));
        assert_eq!(kind(0x3000, usize::MAX), Err(ErrorKind::InvalidArgument));
    }

    #[test]
    fn without_a_map_the_least_length_is_tried_last() {
        let used = [(0x10_1000, 0x1f_f000)];
        let within = window(0x10_0000, 0x20_0000);
        let plan = Request::bytes(0x4000).at_least(0x1000).within(within);
        let plan = plan.plan(PAGE).expect("valid");
        assert_eq!(run(&plan, &NoMap, &used), Ok(0x10_0000));
    }

    #[test]
    fn without_a_map_addresses_are_tried() {
        let used = [(0x10_0000, 0x18_0000)];
        let plan = Request::bytes(0x1000).within(window(0x10_0000, 0x20_0000));
        let base = run(&plan.plan(PAGE).expect("valid"), &NoMap, &used).expect("half is free");
        assert!((0x18_0000..0x20_0000).contains(&base));
        let near = Request::bytes(0x1000).placement(Placement {
            within: window(0x10_0000, 0x20_0000),
            ..Placement::near(0x17_f000, 0)
        });
        assert_eq!(
            run(&near.plan(PAGE).expect("valid"), &NoMap, &used),
            Ok(0x18_0000)
        );
        let full = plan
            .within(window(0x10_0000, 0x18_0000))
            .plan(PAGE)
            .expect("valid");
        assert_eq!(run(&full, &NoMap, &used), Err(ErrorKind::Exhausted));
    }

    #[test]
    fn a_window_at_the_top_of_the_address_space_does_not_overflow() {
        let top = AddressRange::new(usize::MAX - 0xffff, usize::MAX).expect("not empty");
        // The last page's end is not representable, so it is not used.
        let got = found(Request::bytes(0x1000).within(top), &[]);
        assert_eq!(got, Ok(usize::MAX - 0xffff));
        let all = found(Request::bytes(0x1_0000).within(top), &[]);
        assert!(all.is_err());
    }

    #[test]
    fn a_range_consists_of_what_covers_all_of_it() {
        let range = |start: usize, len| {
            let start = NonNull::new(core::ptr::without_provenance_mut(start)).expect("not null");
            PageRange::new(start, len, PAGE).expect("whole pages")
        };
        let map = Used(&[
            (0x1_0000, 0x1_2000),
            (0x1_2000, 0x1_3000),
            (0x1_4000, 0x1_5000),
        ]);
        let plain = |range| consists_of(&map, range, MapFlags::empty()).expect("there is a map");
        assert!(plain(range(0x1_0000, 0x3000)));
        assert!(plain(range(0x1_1000, 0x2000)));
        assert!(!plain(range(0x1_1000, 0x3000)), "a hole at the end");
        assert!(!plain(range(0x1_3000, 0x2000)), "a hole at the start");
        assert!(!plain(range(0x2_0000, 0x1000)), "all a hole");
        let view = MapFlags::SHARED | MapFlags::OBJECT;
        assert_eq!(consists_of(&map, range(0x1_0000, 0x1000), view), Ok(false));
        assert!(consists_of(&NoMap, range(0x1_0000, 0x1000), view).is_err());
    }
}
