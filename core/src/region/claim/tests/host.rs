//! A host that is nothing but a list of mappings.

extern crate std;
use super::super::*;
use crate::{
    page::Access,
    provider::{AddressSpace, Capabilities, Commit, FLOOR, MapEntry, MapFlags, Place, Request},
    sync::Lock,
};
use core::ptr::NonNull;
use std::{vec, vec::Vec};

pub(super) const GIB: usize = 1 << 30;
pub(super) const PAGES: [PageSize; 3] = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) flags: MapFlags,
    hidden: bool,
}

pub(super) struct State {
    pub(super) used: Vec<Used>,
    /// Mapped by somebody else right before the call to `reserve` of that number.
    pub(super) appear: Vec<(usize, usize, usize)>,
    pub(super) calls: usize,
    pub(super) reserved: usize,
}

/// A host that keeps a list of mappings and has no memory: nothing in it is ever touched.
pub(super) struct Host {
    page: PageSize,
    pub(super) space: AddressSpace,
    pub(super) map: Result<(), Error>,
    pub(super) limit: usize,
    pub(super) layout: Layout,
    pub(super) state: Lock<State>,
}

/// Where a host looks for a place by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout {
    /// From the end down to the start.
    TopDown,
    /// From there up to the end.
    BottomUp(usize),
}

impl Host {
    pub(super) fn new(bits: u32, page: PageSize) -> Self {
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

    pub(super) fn with(self, start: usize, end: usize, flags: MapFlags) -> Self {
        self.map(start, end, flags, false);
        self
    }

    pub(super) fn mapped(self, start: usize, end: usize) -> Self {
        self.with(start, end, MapFlags::READ)
    }

    pub(super) fn hidden(self, start: usize, end: usize) -> Self {
        self.map(start, end, MapFlags::READ, true);
        self
    }

    pub(super) fn map(&self, start: usize, end: usize, flags: MapFlags, hidden: bool) {
        let mut state = self.state.lock();
        let used = Used {
            start,
            end,
            flags,
            hidden,
        };
        put(&mut state.used, used);
    }

    pub(super) fn used(&self) -> Vec<Used> {
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

    /// Returns how many bytes of a range are not mapped.
    pub(super) fn free(&self, start: usize, end: usize) -> usize {
        let used = self.used();
        let inside = used
            .iter()
            .map(|u| u.end.min(end).saturating_sub(u.start.max(start)));
        end - start - inside.sum::<usize>()
    }
}

pub(super) fn is_free(list: &[Used], start: usize, end: usize) -> bool {
    list.iter().all(|u| end <= u.start || u.end <= start)
}

pub(super) fn put(list: &mut Vec<Used>, used: Used) {
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
        // Calls that let the host choose are not counted.
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
            // Others map only where the addresses are free.
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

pub(super) type Slots = Vec<Option<Claimed>>;

/// Asks for all above 4 GiB, without a guard.
pub(super) fn above() -> ClaimRequest {
    ClaimRequest::above(4 * GIB).guard(0)
}

pub(super) fn slots() -> Slots {
    vec![None; 512]
}

pub(super) fn span(start: usize, end: usize) -> AddressRange {
    AddressRange::new(start, end - 1).expect("not empty")
}

pub(super) fn ranges<P: PageProvider>(claim: &Claim<'_, P>) -> Vec<(usize, usize, Purpose)> {
    let of = |c: Claimed| (c.range.addr(), c.range.end(), c.purpose);
    claim.ranges().map(of).collect()
}

pub(super) fn usable<P: PageProvider>(claim: &Claim<'_, P>) -> Vec<(usize, usize)> {
    claim.usable().map(|r| (r.addr(), r.end())).collect()
}

/// Claims, checks what holds of any claim, gives back and checks that nothing changed.
pub(super) fn check(
    host: &Host,
    request: &ClaimRequest,
) -> (Vec<(usize, usize, Purpose)>, ClaimReport) {
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
        "every mapping is still there"
    );
    assert!(appeared == 0 || host.state.lock().calls != 0);
    (got, report)
}
