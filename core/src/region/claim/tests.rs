//! The policy, on an address space that is nothing but a list.

use super::*;
use crate::{
    page::Access,
    provider::{Capabilities, Commit, MapEntry, MapFlags, Within},
    sync::Lock,
};
use core::ptr::NonNull;

extern crate std;
use std::{vec, vec::Vec};

const GIB: usize = 1 << 30;
const PAGES: [PageSize; 3] = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    start: usize,
    end: usize,
    flags: MapFlags,
    hidden: bool,
}

struct State {
    used: Vec<Used>,
    /// Mapped by somebody else right before the call to `reserve` of that number.
    appear: Vec<(usize, usize, usize)>,
    calls: usize,
    reserved: usize,
}

/// A host that keeps a list of mappings and has no memory: nothing in it is ever touched.
struct Host {
    page: PageSize,
    space: AddressSpace,
    map: Result<(), Error>,
    limit: usize,
    layout: Layout,
    state: Lock<State>,
}

/// Where a host looks for a place by itself.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// From the end down to the start.
    TopDown,
    /// From there up to the end.
    BottomUp(usize),
}

impl Host {
    fn new(bits: u32, page: PageSize) -> Self {
        let user = AddressRange::from_len(0, 1 << bits);
        Self {
            page,
            space: AddressSpace {
                user,
                stack: None,
                stack_limit: Some(8 << 20),
                program_break: None,
            },
            map: Ok(()),
            limit: usize::MAX,
            layout: Layout::TopDown,
            state: Lock::new(State {
                used: Vec::new(),
                appear: Vec::new(),
                calls: 0,
                reserved: 0,
            }),
        }
    }

    fn with(self, start: usize, end: usize, flags: MapFlags) -> Self {
        self.map(start, end, flags, false);
        self
    }

    fn mapped(self, start: usize, end: usize) -> Self {
        self.with(start, end, MapFlags::READ)
    }

    fn hidden(self, start: usize, end: usize) -> Self {
        self.map(start, end, MapFlags::READ, true);
        self
    }

    fn map(&self, start: usize, end: usize, flags: MapFlags, hidden: bool) {
        let mut state = self.state.lock();
        let used = Used {
            start,
            end,
            flags,
            hidden,
        };
        put(&mut state.used, used);
    }

    fn used(&self) -> Vec<Used> {
        self.state.lock().used.clone()
    }

    /// Returns where the host itself puts something, if it finds room.
    fn chosen(&self, used: &[Used], len: usize) -> Option<usize> {
        let top = self.space.user.map_or(1 << 47, |user| user.last() + 1);
        let mut starts: Vec<_> = match self.layout {
            Layout::TopDown => used.iter().map(|u| u.start).rev().collect(),
            Layout::BottomUp(_) => used.iter().map(|u| u.end).collect(),
        };
        let stacks = used.iter().filter(|u| u.flags.contains(MapFlags::GROWS));
        let base = stacks.map(|stack| stack.start - GIB).min().unwrap_or(top);
        let top = match self.layout {
            Layout::TopDown => top.min(base),
            Layout::BottomUp(_) => top,
        };
        let fits = |&start: &usize| start + len <= top && is_free(used, start, start + len);
        match self.layout {
            Layout::TopDown => {
                starts.insert(0, top);
                let down = starts.iter().filter_map(|end| end.checked_sub(len));
                down.filter(|start| *start >= FLOOR).find(fits)
            }
            Layout::BottomUp(base) => {
                starts.insert(0, base);
                starts.into_iter().filter(|start| *start >= base).find(fits)
            }
        }
    }

    /// What lies in a range and is mapped by nobody, in bytes.
    fn free(&self, start: usize, end: usize) -> usize {
        let used = self.used();
        let inside = used
            .iter()
            .map(|u| u.end.min(end).saturating_sub(u.start.max(start)));
        end - start - inside.sum::<usize>()
    }
}

fn is_free(list: &[Used], start: usize, end: usize) -> bool {
    list.iter().all(|u| end <= u.start || u.end <= start)
}

fn put(list: &mut Vec<Used>, used: Used) {
    assert!(is_free(list, used.start, used.end), "{used:x?} is free");
    let index = list.partition_point(|u| u.start < used.start);
    list.insert(index, used);
}

// SAFETY: a reservation was a hole of the list and is no other code's; it has no memory that
// anybody could reach.
unsafe impl PageProvider for Host {
    fn page_size(&self) -> PageSize {
        self.page
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(self.page)?;
        let mut state = self.state.lock();
        let chooses = plan.unconstrained();
        let now = state.calls;
        // What nobody waits for is not counted.
        state.calls += usize::from(!chooses);
        let due = state
            .appear
            .iter()
            .position(|&(call, ..)| call == now && !chooses);
        if let Some(due) = due {
            let (_, start, end) = state.appear.remove(due);
            let used = Used {
                start,
                end,
                flags: MapFlags::READ,
                hidden: false,
            };
            // Nobody maps where something is.
            if is_free(&state.used, start, end) {
                put(&mut state.used, used);
            }
        }
        let start = match plan.place() {
            Place::Exact(start) => start,
            _ if chooses => self
                .chosen(&state.used, plan.total())
                .ok_or(Error::os(ErrorKind::Exhausted, 12))?,
            _ => plan
                .start_at_or_above(plan.within().start().max(FLOOR))
                .expect("some place"),
        };
        let end = start + plan.total();
        if end - 1 > plan.within().last() {
            return Err(ErrorKind::Exhausted.into());
        }
        if !is_free(&state.used, start, end) {
            return Err(Error::os(ErrorKind::Taken, 17));
        }
        let beyond = self.space.user.is_some_and(|user| end - 1 > user.last());
        if beyond || state.reserved + plan.total() > self.limit {
            return Err(Error::os(ErrorKind::Exhausted, 12));
        }
        state.reserved += plan.total();
        let flags = MapFlags::empty();
        put(
            &mut state.used,
            Used {
                start,
                end,
                flags,
                hidden: false,
            },
        );
        let start = NonNull::new(core::ptr::without_provenance_mut(start)).expect("not null");
        Ok(PageRange::new(start, plan.total(), self.page).expect("whole pages"))
    }

    unsafe fn commit(&self, _: PageRange, _: Commit) -> Result<PageSize, Error> {
        Err(ErrorKind::Unsupported.into())
    }

    unsafe fn protect(&self, _: PageRange, _: Access) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }

    unsafe fn decommit(&self, _: PageRange) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        let mut state = self.state.lock();
        let (mut next, mut kept) = (range.addr(), Vec::new());
        for used in core::mem::take(&mut state.used) {
            if used.end <= range.addr() || range.end() <= used.start {
                kept.push(used);
                continue;
            }
            assert_eq!(used.start.max(range.addr()), next, "no hole in what goes");
            assert_eq!(used.flags, MapFlags::empty(), "only reservations go");
            next = used.end.min(range.end());
            let parts = [(used.start, range.addr()), (range.end(), used.end)];
            let parts = parts.into_iter().filter(|(start, end)| start < end);
            kept.extend(parts.map(|(start, end)| Used { start, end, ..used }));
        }
        assert_eq!(next, range.end(), "no hole in what goes");
        state.used = kept;
        state.reserved -= range.len_bytes();
        Ok(())
    }
}

impl ProcessMap for Host {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.map?;
        for used in self.used().iter().filter(|used| !used.hidden) {
            let range = AddressRange::new(used.start, used.end - 1).expect("not empty");
            let flags = used.flags;
            // Reserving while the map is walked is allowed: no lock is held.
            if !visit(MapEntry { range, flags }) {
                break;
            }
        }
        Ok(())
    }

    fn address_space(&self) -> AddressSpace {
        self.space
    }
}

type Slots = Vec<Option<Claimed>>;

/// Asks for all above 4 GiB, without a guard.
fn above() -> ClaimRequest {
    ClaimRequest::above(4 * GIB).guard(0)
}

fn slots() -> Slots {
    vec![None; 512]
}

fn span(start: usize, end: usize) -> AddressRange {
    AddressRange::new(start, end - 1).expect("not empty")
}

fn ranges<P: PageProvider>(claim: &Claim<'_, P>) -> Vec<(usize, usize, Purpose)> {
    let of = |c: Claimed| (c.range.addr(), c.range.end(), c.purpose);
    claim.ranges().map(of).collect()
}

fn usable<P: PageProvider>(claim: &Claim<'_, P>) -> Vec<(usize, usize)> {
    claim.usable().map(|r| (r.addr(), r.end())).collect()
}

/// Claims, checks what holds of any claim, gives back and checks that nothing changed.
fn check(host: &Host, request: &ClaimRequest) -> (Vec<(usize, usize, Purpose)>, ClaimReport) {
    let before = host.used();
    let foreign = |used: &&Used| used.flags != MapFlags::empty();
    let mut slots = slots();
    let mut claim = claim(host, request, &mut slots).expect("a valid request");
    let got = ranges(&claim);
    for pair in got.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "no overlap: {got:x?}");
        assert!(
            pair[0].1 < pair[1].0 || pair[0].2 != pair[1].2,
            "joined: {got:x?}"
        );
    }
    let reserved: usize = got.iter().map(|(start, end, _)| end - start).sum();
    assert_eq!(
        reserved,
        host.state.lock().reserved,
        "all that is reserved is listed"
    );
    let report = *claim.report();
    // SAFETY: no other code uses the claim.
    unsafe { claim.give_back() }.expect("all can go");
    assert_eq!(claim.ranges().count(), 0);
    let after = host.used();
    assert_eq!(
        after.iter().filter(foreign).collect::<Vec<_>>(),
        after.iter().collect::<Vec<_>>(),
        "nothing stays reserved"
    );
    let appeared = after.len() - before.len();
    assert!(
        before.iter().all(|used| after.contains(used)),
        "nobody lost anything"
    );
    assert!(appeared == 0 || host.state.lock().calls != 0);
    (got, report)
}

#[test]
fn every_gap_above_is_claimed() {
    for page in PAGES {
        let p = page.bytes();
        let host = Host::new(47, page)
            .mapped(0x40_0000, 0x50_0000)
            .mapped(0x5555_0000_0000, 0x5555_0010_0000)
            .mapped(0x7fff_f000_0000, 0x7fff_f000_0000 + p)
            .mapped(0x7fff_f000_0000 + 2 * p, 0x7fff_f000_0000 + 4 * p);
        let request = above().hole(span(4 * GIB, 8 * GIB));
        let found = survey(&host, &request).expect("there is a map");
        let (got, report) = check(&host, &request);
        let expected = [
            (4 * GIB, 8 * GIB, Purpose::Hole),
            (8 * GIB, 0x5555_0000_0000, Purpose::Usable),
            (0x5555_0010_0000, 0x7fff_f000_0000, Purpose::Usable),
            (
                0x7fff_f000_0000 + p,
                0x7fff_f000_0000 + 2 * p,
                Purpose::Usable,
            ),
            (0x7fff_f000_0000 + 4 * p, 1 << 47, Purpose::Usable),
        ];
        assert_eq!(got, expected);
        assert_eq!(found.ranges, expected.len(), "the survey told");
        let bytes: usize = expected.iter().map(|(start, end, _)| end - start).sum();
        assert_eq!(found.bytes, bytes);
        assert_eq!(report.address_bits, Some(47));
        assert_eq!(report.missed, Tally::default());
        assert_eq!((report.error, report.map), (None, Ok(())));
        assert_eq!(
            (report.scans, report.settled, report.full),
            (2, true, false)
        );
        assert_eq!(report.block_break, BreakBlock::NotAsked);
    }
}

#[test]
fn the_edges_of_the_range_are_the_edges_of_the_claim() {
    let host = Host::new(39, PageSize::KIB_4).mapped(6 * GIB, 7 * GIB);
    // One mapping covers the start, another the end.
    let range = span(6 * GIB + 4096, 9 * GIB);
    let (got, _) = check(&host, &ClaimRequest::range(range));
    assert_eq!(got, [(7 * GIB, 9 * GIB, Purpose::Usable)]);
    // Parts of pages are not claimed.
    let range = span(7 * GIB + 1, 7 * GIB + 3 * 4096 - 1);
    let (got, _) = check(&host, &ClaimRequest::range(range));
    assert_eq!(got, [(7 * GIB + 4096, 7 * GIB + 2 * 4096, Purpose::Usable)]);
    // Nothing is free.
    let (got, report) = check(&host, &ClaimRequest::range(span(6 * GIB, 7 * GIB)));
    assert!(got.is_empty() && report.settled);
    // A hole at the end, and one that is the whole range.
    let (got, _) = check(
        &host,
        &ClaimRequest::range(span(7 * GIB, 9 * GIB)).hole(span(8 * GIB, 9 * GIB)),
    );
    assert_eq!(
        got,
        [
            (7 * GIB, 8 * GIB, Purpose::Usable),
            (8 * GIB, 9 * GIB, Purpose::Hole)
        ]
    );
    let all = span(8 * GIB, 9 * GIB);
    let (got, _) = check(&host, &ClaimRequest::range(all).hole(all));
    assert_eq!(got, [(8 * GIB, 9 * GIB, Purpose::Hole)]);
}

#[test]
fn what_becomes_free_is_claimed_by_renewing() {
    let host = Host::new(47, PageSize::KIB_4)
        .mapped(20 * GIB, 21 * GIB)
        .mapped(30 * GIB, 31 * GIB);
    let mut slots = [None; 3];
    let request = above();
    let mut claim = claim(&host, &request, &mut slots).expect("valid");
    assert_eq!(claim.ranges().count(), 3);
    let once = *claim.report();
    let again = *claim.renew();
    assert_eq!(
        (once.scans, again.scans),
        (2, 1),
        "there was nothing to take"
    );
    assert_eq!(ClaimReport { scans: 2, ..again }, once);
    host.state.lock().used.retain(|used| used.start != 20 * GIB);
    assert!(claim.renew().settled);
    assert_eq!(
        usable(&claim),
        [(4 * GIB, 30 * GIB), (31 * GIB, 1 << 47)],
        "the parts were joined"
    );
    // SAFETY: no other code uses the claim.
    unsafe { claim.give_back() }.expect("all can go");
    assert_eq!(host.used().len(), 1);
    assert_eq!(claim.renew().missed, Tally::default());
    assert_eq!(claim.ranges().count(), 2, "also after giving back");
}

#[test]
fn a_hole_outside_the_range_is_refused() {
    let host = Host::new(47, PageSize::KIB_4);
    let request = ClaimRequest::above(8 * GIB).hole(span(4 * GIB, 8 * GIB));
    let refused = claim(&host, &request, &mut []).expect_err("it is not in the range");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let request = ClaimRequest::above(8 * GIB).least(usize::MAX);
    assert!(claim(&host, &request, &mut []).is_err());
    assert_eq!(host.state.lock().calls, 0);
}

#[test]
fn room_is_left_below_what_grows() {
    let stack = 0x7fff_0000_0000;
    let grows = MapFlags::READ | MapFlags::WRITE | MapFlags::GROWS;
    let host = |limit| {
        let mut host = Host::new(47, PageSize::KIB_4)
            .with(stack - 0x2_1000, stack, grows)
            .mapped(stack - 64 * (1 << 20), stack - 63 * (1 << 20));
        host.space.stack_limit = limit;
        host
    };
    let ends = |host: &Host, request: &ClaimRequest| {
        let (got, report) = check(host, request);
        (
            got.iter()
                .map(|&(start, end, _)| (start, end))
                .collect::<Vec<_>>(),
            report.stack_room,
        )
    };
    let above = above();
    let room = 128 << 20;
    for limit in [None, Some(0), Some(8 << 20)] {
        let expected = vec![(4 * GIB, stack - room), (stack, 1 << 47)];
        assert_eq!(ends(&host(limit), &above), (expected, room), "{limit:?}");
    }
    // More than the default, and the gap that the host keeps below.
    let (got, room) = ends(&host(Some(GIB)), &above);
    assert_eq!(room, GIB + (1 << 20));
    assert_eq!(got[0].1, stack - room);
    assert_eq!(ends(&host(Some(usize::MAX)), &above).1, GIB, "no limit");
    assert_eq!(
        ends(&host(Some(1 << 46)), &above).1,
        (1 << 44) - 1,
        "an eighth at most"
    );
    // As the caller says: the mapping below is in the way of more than that.
    let (got, _) = ends(&host(None), &above.stack_room(32 << 20));
    let mib = 1 << 20;
    assert_eq!(
        got,
        [
            (4 * GIB, stack - 64 * mib),
            (stack - 63 * mib, stack - 32 * mib),
            (stack, 1 << 47)
        ]
    );
    for none in [0, 4096] {
        let (got, _) = ends(&host(None), &above.stack_room(none));
        assert_eq!(got[1].1, stack - 0x2_1000, "it is longer than that already");
    }
}

#[test]
fn of_many_that_grow_more_is_left_rather_than_less() {
    let grows = MapFlags::READ | MapFlags::GROWS;
    let mut host = Host::new(47, PageSize::KIB_4);
    for n in 1..=9 {
        host = host.with(n * 100 * GIB, n * 100 * GIB + 4096, grows);
    }
    let (got, _) = check(&host, &above().stack_room(GIB));
    for n in 1..=9 {
        let room = n * 100 * GIB + 4096 - GIB..n * 100 * GIB;
        let free =
            |&(start, end, _): &(usize, usize, Purpose)| end <= room.start || room.end <= start;
        assert!(got.iter().all(free), "{n}: {got:x?}");
    }
    assert_eq!(got.len(), 8, "what lies between the last three is left too");
}

#[test]
fn what_is_to_be_left_is_left() {
    let host = Host::new(47, PageSize::KIB_4).mapped(16 * GIB, 17 * GIB);
    let request = above().leave(span(10 * GIB, 20 * GIB));
    let (got, _) = check(&host, &request);
    let both = [
        (4 * GIB, 10 * GIB, Purpose::Usable),
        (20 * GIB, 1 << 47, Purpose::Usable),
    ];
    assert_eq!(got, both);
    let (got, report) = check(&host, &above().leave(AddressRange::ALL));
    assert!(got.is_empty());
    assert_eq!(report.missed, Tally::default());
}

#[test]
fn short_gaps_are_left_when_asked() {
    let host = Host::new(47, PageSize::KIB_4)
        .mapped(5 * GIB, 6 * GIB)
        .mapped(6 * GIB + 0x1_0000, 7 * GIB)
        .mapped(7 * GIB + 0xf000, 8 * GIB);
    let (got, report) = check(&host, &above().least(0xf001));
    let starts: Vec<_> = got.iter().map(|&(start, ..)| start).collect();
    assert_eq!(starts, [4 * GIB, 6 * GIB, 8 * GIB]);
    assert_eq!(report.missed, Tally::default(), "nothing that was wanted");
}

#[test]
fn mappings_that_appear_meanwhile_are_left_alone() {
    for call in 0..4 {
        for (start, end) in [
            (20 * GIB, 21 * GIB),
            (4 * GIB, 4 * GIB + 4096),
            (39 * GIB, 40 * GIB),
            (41 * GIB, 41 * GIB + 4096),
            ((1 << 47) - 4096, 1 << 47),
        ] {
            let host = Host::new(47, PageSize::KIB_4).mapped(40 * GIB, 41 * GIB);
            let request = above().spare(0);
            host.state.lock().appear.push((call, start, end));
            let mut slots = slots();
            let claim = claim(&host, &request, &mut slots).expect("valid");
            assert_eq!(host.free(4 * GIB, 1 << 47), 0, "no gap is left");
            assert!(claim.report().settled);
            assert_eq!(claim.report().missed, Tally::default());
            assert!(claim.tally(Purpose::Usable).ranges <= 4);
        }
    }
}

#[test]
fn a_host_where_somebody_maps_all_the_time_ends_the_scans() {
    let host = Host::new(47, PageSize::KIB_4).mapped(4 * GIB, (1 << 47) - (64 << 20));
    // At every call, somebody takes the page that comes next.
    let first = (1 << 47) - (64 << 20);
    let appear = (0..4096).map(|n| (n, first + n * 0x3000 + 0x1000, first + n * 0x3000 + 0x2000));
    host.state.lock().appear = appear.collect();
    let mut slots = vec![None; 20_000];
    let claim = claim(&host, &above().spare(0), &mut slots);
    let claim = claim.expect("valid");
    assert!(claim.report().scans <= SCANS);
    assert!(claim.tally(Purpose::Usable).bytes > 0);
}

#[test]
fn what_the_map_does_not_show_is_found_by_halving() {
    let host = Host::new(47, PageSize::KIB_4)
        .mapped(40 * GIB, 41 * GIB)
        .hidden(20 * GIB + 0x3000, 20 * GIB + 0x7000)
        .hidden(1 << 40, (1 << 40) + (64 << 20));
    let mut slots = slots();
    let claim = claim(&host, &above(), &mut slots).expect("valid");
    assert_eq!(host.free(4 * GIB, 1 << 47), 0, "no gap is left");
    let report = claim.report();
    assert!(report.settled && report.map.is_ok());
    let hidden = Tally {
        ranges: 2,
        bytes: 0x4000 + (64 << 20),
    };
    assert_eq!(report.missed, hidden);
    assert_eq!(report.error.map(Error::kind), Some(ErrorKind::Taken));
    assert_eq!(
        claim.tally(Purpose::Usable).ranges,
        4,
        "the halves were joined"
    );
}

#[test]
fn without_a_map_everything_is_tried() {
    for page in PAGES {
        let p = page.bytes();
        let mut host = Host::new(47, page)
            .mapped(0x5555_0000_0000, 0x5555_0010_0000)
            .mapped(1 << 40, (1 << 40) + (32 << 20))
            .mapped((1 << 40) + (32 << 20) + p, (1 << 40) + (33 << 20));
        host.map = Err(ErrorKind::Unsupported.into());
        // As if the host had told where the stack is; another time, this test's own is taken for
        // it.
        let stack = (p == 4096).then_some(0x6000_0000_0000);
        host.space.stack = stack;
        let request = above().stack_room(1 << 20);
        let mut slots = slots();
        let claim = claim(&host, &request, &mut slots).expect("valid");
        let report = claim.report();
        assert_eq!(report.map, Err(ErrorKind::Unsupported.into()));
        assert!(!report.settled, "that cannot be known");
        assert_eq!(report.scans, 2);
        let here = stack.unwrap_or((&raw const p).addr() - (1 << 19));
        assert!(claim.usable().all(|range| !range.contains(here)));
        let free = host.free(4 * GIB, 1 << 47);
        assert!(free <= (1 << 20) + 2 * p, "only room is left: {free:#x}");
        let used = (1 << 20) + (33 << 20) - p;
        assert_eq!(report.missed.bytes, used);
        assert_eq!(survey(&host, &request), Err(ErrorKind::Unsupported.into()));
    }
}

#[test]
fn without_a_map_tries_are_bounded() {
    let mut host = Host::new(47, PageSize::KIB_4).mapped(16 * GIB, 20 * GIB);
    host.map = Err(ErrorKind::Unsupported.into());
    let mut slots = slots();
    let claim = claim(&host, &above(), &mut slots).expect("valid");
    assert!(host.state.lock().calls <= 2 * scan::TRIES + 64);
    // By the first scan, down to its coarse length, all the same.
    assert!(host.free(20 * GIB, 1 << 46) <= claim.report().stack_room + (4 << 20));
}

#[test]
fn a_limit_of_addresses_shrinks_the_claim() {
    for page in PAGES {
        for (limit, spare) in [
            (16 * GIB, GIB),
            (5 * GIB + 0x3_0000, GIB),
            (GIB + (1 << 20), GIB),
            (700 << 20, 512 << 20),
            (GIB / 2, 0),
        ] {
            let mut host = Host::new(47, page).mapped(64 * GIB, 65 * GIB);
            host.limit = limit;
            let request = above().hole(span(4 * GIB, 8 * GIB)).spare(spare);
            let mut slots = slots();
            let claim = claim(&host, &request, &mut slots).expect("valid");
            let report = claim.report();
            let usable = claim.tally(Purpose::Usable);
            let rest = limit - spare - usable.bytes;
            assert!(rest < page.bytes(), "all was taken but {rest}");
            assert_eq!(usable.ranges, 1, "in one piece");
            assert_eq!(
                claim.tally(Purpose::Hole).bytes,
                0,
                "memory comes before the hole"
            );
            let error = report.error.expect("it was refused");
            assert_eq!(
                (error.kind(), error.errno()),
                (ErrorKind::Exhausted, Some(12))
            );
            assert!(report.missed.bytes > 1 << 46 && report.missed.ranges == 3);
            assert!(report.settled);
            assert!(host.state.lock().calls < 256, "halving is quick");
        }
    }
}

#[test]
fn nothing_is_got_where_nothing_can_be_had() {
    let mut host = Host::new(47, PageSize::KIB_4);
    host.limit = 0;
    let (got, report) = check(&host, &above());
    assert!(got.is_empty() && report.settled);
    assert_eq!(report.missed.bytes, (1 << 47) - 4 * GIB);
}

#[test]
fn r13_a_39_bit_host_gives_what_it_has() {
    let stack = (1 << 39) - 0x10_0000;
    let grows = MapFlags::READ | MapFlags::GROWS;
    for page in PAGES {
        let host = Host::new(39, page).with(stack, (1 << 39) - 0x1_0000, grows);
        let (got, report) = check(&host, &above());
        assert_eq!(report.address_bits, Some(39));
        let room = 128 << 20;
        let expected = [
            (4 * GIB, (1 << 39) - 0x1_0000 - room, Purpose::Usable),
            ((1 << 39) - 0x1_0000, 1 << 39, Purpose::Usable),
        ];
        assert_eq!(got, expected);
        // A 64-bit guest wants what such a host has not.
        let (got, report) = check(&host, &ClaimRequest::range(span(1 << 47, 1 << 48)));
        assert!(got.is_empty());
        assert_eq!((report.range, report.scans), (None, 0));
    }
    let host = Host::new(48, PageSize::KIB_4);
    let (got, _) = check(&host, &ClaimRequest::range(span(1 << 47, 1 << 48)));
    assert_eq!(got, [(1 << 47, 1 << 48, Purpose::Usable)]);
}

#[test]
fn a_host_that_does_not_tell_its_end_is_claimed_up_to_it() {
    let mut host = Host::new(47, PageSize::KIB_4);
    let user = host.space.user.take();
    // What lies behind the end is refused, as by a host that says no more than that.
    let host = Within::new(&host, user.expect("told above"));
    let mut slots = slots();
    let request = above();
    let claim = claim(&host, &request, &mut slots).expect("valid");
    assert_eq!(usable(&claim), [(4 * GIB, 1 << 47)]);
    assert_eq!(claim.report().address_bits, None);
}

#[test]
fn too_few_slots_are_reported() {
    let mut host = Host::new(47, PageSize::KIB_4);
    for n in 1..=10 {
        host = host.mapped((4 + n) * GIB, (4 + n) * GIB + 4096);
    }
    for count in 0..11 {
        let mut slots = vec![None; count];
        let mut claim = claim(&host, &above(), &mut slots).expect("valid");
        assert_eq!(claim.ranges().count(), count);
        assert!(claim.report().full && claim.report().settled);
        assert_eq!(claim.report().missed.ranges, 11 - count);
        assert_eq!(
            claim.report().error.map(Error::kind),
            Some(ErrorKind::Exhausted)
        );
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
    }
    let mut slots = [None; 11];
    assert!(
        !claim(&host, &above(), &mut slots)
            .expect("valid")
            .report()
            .full
    );
}

#[test]
fn more_gaps_than_a_batch_holds_are_claimed() {
    let mut host = Host::new(47, PageSize::KIB_4);
    for n in 0..300 {
        host = host.mapped(8 * GIB + n * 0x2000, 8 * GIB + n * 0x2000 + 0x1000);
    }
    let (got, report) = check(&host, &above());
    assert_eq!(got.len(), 301);
    assert_eq!((report.scans, report.missed.ranges), (2, 0));
}

#[test]
fn the_break_is_kept_from_growing() {
    let with = |at: usize| {
        let mut host = Host::new(47, PageSize::KIB_4).mapped(0x50_0000, 0x60_0000);
        host.space.program_break = Some(at);
        host
    };
    let request = above().block_break();
    for at in [0x60_0000, 0x5f_f001] {
        let (got, report) = check(&with(at), &request);
        assert_eq!(report.block_break, BreakBlock::Blocked);
        assert_eq!(got[0], (0x60_0000, 0x60_1000, Purpose::Break));
    }
    let (_, report) = check(&with(0x60_0000).mapped(0x60_0000, 0x60_1000), &request);
    assert_eq!(report.block_break, BreakBlock::Already);
    // Above, the claim itself is in its way.
    let (got, report) = check(&with(6 * GIB), &request);
    assert_eq!((got.len(), report.block_break), (1, BreakBlock::Already));
    let (_, report) = check(&Host::new(47, PageSize::KIB_4), &request);
    assert_eq!(report.block_break, BreakBlock::Unknown);
    let mut limited = with(0x60_0000);
    limited.limit = 0;
    let (_, report) = check(&limited, &request);
    let refused = Error::os(ErrorKind::Exhausted, 12);
    assert_eq!(report.block_break, BreakBlock::Failed(refused));
    let host = with(0x60_0000);
    let claim = claim(&host, &request, &mut []).expect("valid");
    let full = ErrorKind::Exhausted.into();
    assert_eq!(claim.report().block_break, BreakBlock::Failed(full));
    assert_eq!(host.state.lock().reserved, 0);
}

#[test]
fn what_is_withdrawn_is_not_given_back() {
    let host = Host::new(47, PageSize::KIB_4);
    let mut slots = [None; 3];
    let mut claim = claim(&host, &above(), &mut slots).expect("valid");
    let whole = claim.usable().next().expect("one range");
    let part = |offset, len| whole.part(offset, len, PageSize::KIB_4).expect("inside");
    let (head, middle) = (part(0, 0x1000), part(0x5000, 0x1000));
    let tail = part(whole.len_bytes() - 0x1000, 0x1000);
    for range in [head, middle, tail] {
        claim.withdraw(range).expect("it lies in the claim");
        let again = claim.withdraw(range).expect_err("not any more");
        assert_eq!(again.kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(claim.ranges().count(), 2);
    claim.withdraw(part(0x3000, 0x1000)).expect("a third slot");
    let before = ranges(&claim);
    let error = claim.withdraw(part(0x9000, 0x1000)).expect_err("no fourth");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(ranges(&claim), before, "nothing changed");
    // SAFETY: no other code uses the claim.
    unsafe { claim.give_back() }.expect("all can go");
    assert_eq!(host.state.lock().reserved, 4 * 0x1000);
    for range in [head, middle, tail, part(0x3000, 0x1000)] {
        // SAFETY: withdrawn, and no other code uses it.
        unsafe { host.release(range) }.expect("it is still reserved");
    }
    assert!(host.used().is_empty());
}

/// SplitMix64, as in `sim`.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ z >> 31) >> 1).expect("64 bits")
}

/// What a page of the window is, by the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Free,
    Used,
    Hidden,
    Kept,
}

#[test]
fn random_hosts_are_claimed_as_a_page_array_says() {
    const PAGES: usize = 160;
    let base = 64 * GIB;
    for seed in 0..4000u64 {
        let mut state = seed;
        let mut below = |n: usize| random(&mut state) % n;
        let page = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64][below(3)];
        let at = |n: usize| base + n * page.bytes();
        let seen = below(4) != 0;
        let mut host = Host::new(39, page);
        host.space.stack = Some(4 * GIB);
        if !seen {
            host.map = Err(ErrorKind::Denied.into());
        }
        let mut oracle = [Kind::Free; PAGES];
        for _ in 0..below(12) {
            let (start, len) = (below(PAGES), 1 + below(12));
            let end = (start + len).min(PAGES);
            if oracle[start..end].iter().any(|&kind| kind != Kind::Free) {
                continue;
            }
            let (kind, hidden) = [(Kind::Used, false), (Kind::Hidden, true)][below(5) / 4];
            oracle[start..end].fill(kind);
            host.map(at(start), at(end), MapFlags::READ, hidden);
        }
        let mut request = ClaimRequest::range(span(at(0), at(PAGES)))
            .spare(0)
            .stack_room(GIB);
        let part = |start: usize, len: usize| span(at(start), at((start + len).min(PAGES)));
        let in_part =
            |part: Option<AddressRange>, n: usize| part.is_some_and(|part| part.contains(at(n)));
        if below(2) == 0 {
            request.hole = Some(part(below(PAGES), 1 + below(40)));
        }
        if below(3) == 0 {
            request.leave = Some(part(below(PAGES), 1 + below(40)));
        }
        for (n, kind) in oracle.iter_mut().enumerate() {
            if in_part(request.leave, n) && *kind == Kind::Free {
                *kind = Kind::Kept;
            }
        }
        let mut slots = vec![None; PAGES];
        let mut claim = claim(&host, &request, &mut slots).expect("a valid request");
        let owner = |n: usize| claim.ranges().find(|c| c.range.contains(at(n)));
        for (n, kind) in oracle.iter().enumerate() {
            let expected = (*kind == Kind::Free).then_some({
                if in_part(request.hole, n) {
                    Purpose::Hole
                } else {
                    Purpose::Usable
                }
            });
            let got = owner(n).map(|claimed| claimed.purpose);
            assert_eq!(got, expected, "seed {seed}, page {n}: {kind:?}");
        }
        let missed = |kind: &&Kind| **kind == Kind::Hidden || (!seen && **kind == Kind::Used);
        let kept = |n: usize| in_part(request.leave, n);
        let missed = oracle
            .iter()
            .enumerate()
            .filter(|(n, kind)| missed(kind) && !kept(*n));
        let missed = missed.count() * page.bytes();
        assert_eq!(claim.report().missed.bytes, missed, "seed {seed}");
        assert_eq!(claim.report().settled, seen, "seed {seed}");
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
        assert_eq!(host.state.lock().reserved, 0, "seed {seed}");
    }
}

#[test]
fn the_start_of_what_lies_above_a_guest_is_a_guard() {
    for page in PAGES {
        let host = Host::new(47, page).mapped(0x40_0000, 0x50_0000);
        let (got, report) = check(&host, &ClaimRequest::above(4 * GIB));
        let guard = 4 * GIB + (64 << 10);
        let expected = [
            (4 * GIB, guard, Purpose::Guard),
            (guard, 1 << 47, Purpose::Usable),
        ];
        assert_eq!(got, expected);
        assert!(report.is_complete());
        // Behind it a hole, and all of it in a hole, or a part.
        for (start, end) in [(guard, 8 * GIB), (8 * GIB, 9 * GIB)] {
            let request = ClaimRequest::above(4 * GIB).hole(span(start, end));
            let (got, _) = check(&host, &request);
            assert_eq!(got[0], (4 * GIB, guard, Purpose::Guard));
            assert!(got.contains(&(start, end, Purpose::Hole)));
        }
        let request = ClaimRequest::above(4 * GIB).hole(span(4 * GIB, 8 * GIB));
        let (got, _) = check(&host, &request);
        assert_eq!(got[0], (4 * GIB, 8 * GIB, Purpose::Hole));
        // A range of one's own has none unless asked.
        let request = ClaimRequest::range(span(4 * GIB, 8 * GIB));
        let (got, _) = check(&host, &request);
        assert_eq!(got, [(4 * GIB, 8 * GIB, Purpose::Usable)]);
        let (got, _) = check(&host, &request.guard(4 * GIB));
        assert_eq!(got, [(4 * GIB, 8 * GIB, Purpose::Guard)]);
    }
}

#[test]
fn where_the_host_looks_above_only_room_is_left_there() {
    let base = 0x2aaa_aaaa_0000;
    for (bytes, room) in [(4 * GIB, 4 * GIB), (1 << 20, 1 << 20), (0, 0)] {
        let mut host = Host::new(47, PageSize::KIB_64)
            .mapped(0x40_0000, 0x50_0000)
            .mapped(base, base + 0x10_0000)
            .mapped(base + 0x20_0000, base + 0x30_0000);
        host.layout = Layout::BottomUp(base);
        let mut slots = slots();
        let request = above().others_room(bytes);
        let mut claim = claim(&host, &request, &mut slots).expect("valid");
        let page = Request::bytes(1);
        if room == 0 {
            let error = Error::os(ErrorKind::Exhausted, 12);
            assert_eq!(claim.report().others, Others::Nowhere(error));
            assert_eq!(host.reserve(&page).map_err(Error::kind), Err(error.kind()));
            continue;
        }
        let Others::Room(left) = claim.report().others else {
            panic!("{:?}", claim.report());
        };
        assert_eq!(left.last() - left.start() + 1, room);
        assert!(claim.report().is_complete(), "{:?}", claim.report());
        for _ in 0..2 {
            let theirs = host.reserve(&page).expect("there is room");
            assert!(left.contains(theirs.addr()));
            assert_eq!(claim.renew().others, Others::Room(left), "it stays theirs");
        }
    }
    // Not in the room of a stack, where that is all that is free above.
    let grows = MapFlags::READ | MapFlags::GROWS;
    let mut host = Host::new(47, PageSize::KIB_4).with(0x7f00_0000_0000, 0x7f00_0010_0000, grows);
    host.layout = Layout::BottomUp(base);
    let (_, report) = check(&host, &above());
    let room = span(base, base + 4 * GIB);
    assert_eq!(report.others, Others::Room(room));
    // Where it is a limit, nothing is left.
    let mut host = Host::new(47, PageSize::KIB_4);
    (host.layout, host.limit) = (Layout::BottomUp(base), 16 * GIB);
    let mut slots = slots();
    let claim = claim(&host, &above().spare(0), &mut slots).expect("valid");
    assert!(matches!(claim.report().others, Others::Nowhere(_)));
    assert_eq!(claim.tally(Purpose::Usable).bytes, 16 * GIB);
    // Others land elsewhere by themselves.
    let host = Host::new(47, PageSize::KIB_4);
    let (_, report) = check(&host, &above());
    assert_eq!(report.others, Others::Outside);
}

#[test]
fn an_incomplete_claim_is_an_error_where_that_is_asked() {
    let mut host = Host::new(47, PageSize::KIB_4);
    for n in 1..=3 {
        host = host.mapped((4 + n) * GIB, (4 + n) * GIB + 4096);
    }
    let request = above().require_complete();
    for count in 0..4 {
        let mut slots = vec![None; count];
        let kind = claim(&host, &request, &mut slots)
            .map(drop)
            .map_err(Error::kind);
        assert_eq!(kind, Err(ErrorKind::Exhausted), "{count} slots");
        assert_eq!(host.state.lock().reserved, 0, "nothing stays claimed");
        let partial = claim(&host, &above(), &mut slots).expect("valid");
        assert!(!partial.report().is_complete());
        let mut partial = partial;
        // SAFETY: no other code uses the claim.
        unsafe { partial.give_back() }.expect("all can go");
    }
    let mut slots = vec![None; 4];
    let all = claim(&host, &request, &mut slots).expect("enough slots");
    assert!(all.report().is_complete());
    // A limit, a map that cannot be read, and an end that is not known.
    let mut host = Host::new(47, PageSize::KIB_4);
    host.limit = GIB;
    let mut slots = vec![None; 4];
    let kind = claim(&host, &request, &mut slots)
        .map(drop)
        .map_err(Error::kind);
    assert_eq!(kind, Err(ErrorKind::Exhausted));
    let mut host = Host::new(47, PageSize::KIB_4);
    (host.map, host.space.stack) = (Err(ErrorKind::Denied.into()), Some(GIB));
    let kind = claim(&host, &request, &mut slots)
        .map(drop)
        .map_err(Error::kind);
    assert_eq!(kind, Err(ErrorKind::Denied));
    // Such a host has none of these addresses, which is all of them.
    let host = Host::new(32, PageSize::KIB_4);
    let none = claim(&host, &request, &mut slots).expect("nothing to claim");
    assert_eq!((none.ranges().count(), none.report().range), (0, None));
}

#[test]
fn what_the_break_gave_in_the_range_is_told() {
    for (heap, brk, inside) in [
        ((5 * GIB, 6 * GIB), 6 * GIB, GIB),
        ((5 * GIB, 6 * GIB), 6 * GIB - 100, GIB),
        ((3 * GIB, 6 * GIB), 6 * GIB, 2 * GIB),
        ((GIB, 2 * GIB), 2 * GIB, 0),
    ] {
        let mut host = Host::new(47, PageSize::KIB_4).mapped(heap.0, heap.1);
        host.space.program_break = Some(brk);
        let (_, report) = check(&host, &above());
        assert_eq!(report.heap_bytes, inside, "{heap:x?}");
    }
}
