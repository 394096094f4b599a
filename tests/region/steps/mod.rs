//! A region and a range map in children that are forked between any two instructions of a change:
//! by a handler that interrupted it, and as if another thread had been making it.

mod interrupted;
mod map;

use crate::{
    common::{
        at_length,
        steps::{Then, at_every_step},
    },
    space::{self, OS, Region, byte_at, page},
};
use core::cell::Cell;
use hostmem::{
    OsLock, OsProvider,
    fork::ForkChild,
    page::{Access, PageRange},
    provider::{Commit, Error, ErrorKind, PageProvider, Place, Request},
    range_map::RangeMap,
    region::{PageState, RegionConfig},
};
use hostmem_test_support::isolate::isolated;

const RW: Commit = Commit::READ_WRITE;
type Map = RangeMap<u32, OsProvider, OsLock>;

/// About how many forks each case makes.
fn forks() -> u64 {
    if at_length() { 3000 } else { 16 }
}

/// Pages of the region.
const PAGES: usize = 96;

/// What the handler of a child maps.
const HANDLERS: u16 = 0x77;

struct Bed {
    region: Region,
    space: PageRange,
}

impl Bed {
    fn new(config: RegionConfig) -> Self {
        let (region, space) = space::lent(config, PAGES * page());
        Self { region, space }
    }

    fn part(&self, first: usize, pages: usize) -> PageRange {
        let part = self
            .space
            .part(first * page(), pages * page(), OS.page_size());
        part.expect("a part")
    }

    fn map(&self, first: usize, pages: usize, tag: u16) -> PageRange {
        let part = self.part(first, pages);
        let request = Request::bytes(part.len_bytes()).place(Place::Exact(part.addr()));
        self.region.map(&request, RW, tag).expect("it is free")
    }

    fn state(&self, n: usize) -> Option<(PageState, u16)> {
        let found = self.region.query(self.part(n, 1).addr());
        found.map(|range| (range.state, range.tag))
    }

    /// Begins anew: pages 0 to 7 are mapped and marked, 8 is free, 10 to 13 and 14 to 17 are two
    /// mappings, from 20 on there are eight reserved pages, from 40 on every other page is mapped.
    fn prepare(&self) {
        // SAFETY: no other code uses it.
        unsafe { self.region.unmap(self.space) }.expect("it goes");
        // SAFETY: mapped just now.
        unsafe { self.map(0, 8, 0x11).start().write(0x11) };
        for (first, tag) in [(10, 0x21), (14, 0x22)] {
            let mapped = self.map(first, 4, tag);
            // SAFETY: mapped just now.
            unsafe { mapped.start().write(0x21) };
        }
        let at = self.part(20, 8);
        let request = Request::bytes(at.len_bytes()).place(Place::Exact(at.addr()));
        self.region.reserve(&request).expect("it is free");
        for n in (40..80).step_by(2) {
            self.map(n, 1, 0x31);
        }
    }

    /// Says whether the process map has every page as the region does.
    fn is_as_mapped(&self) -> bool {
        space::is_as_mapped(&self.region, self.space, None)
    }

    /// Says whether the numbers are those of the ranges.
    fn counts(&self) -> bool {
        let ranges = self.region.ranges(self.space.addresses());
        let used: usize = ranges
            .map(|r| r.addresses.last() - r.addresses.start() + 1)
            .sum();
        let gaps = self.region.gaps(self.space.addresses());
        let free: usize = gaps.map(|r| r.last() - r.start() + 1).sum();
        let all = self.region.statistics();
        used == all.used && free == all.free() && all.adopted == self.space.len_bytes()
    }

    /// What a child does in the handler; zero if all is well.
    fn child(&self) -> i32 {
        // SAFETY: the only thread of a child; the provider below has no state.
        if unsafe { self.region.fork_child() }.is_err() {
            return 1;
        }
        if !self.is_as_mapped() {
            return 2;
        }
        if !self.counts() {
            return 3;
        }
        // SAFETY: mapped before the change, which does not touch it.
        let mark = unsafe { self.part(0, 1).start().read() };
        if mark != 0x11 || self.state(7) != Some((PageState::Committed(Access::ReadWrite), 0x11)) {
            return 4;
        }
        for n in (40..80).step_by(2) {
            if self.state(n) != Some((PageState::Committed(Access::ReadWrite), 0x31)) {
                return 5;
            }
        }
        // What is free must be fresh, and no other code's.
        let mut mapped = 0;
        while let Ok(mine) = self.region.map(&Request::bytes(page()), RW, HANDLERS) {
            // SAFETY: mapped just now.
            if unsafe { mine.start().read() } != 0 {
                return 6;
            }
            // SAFETY: mapped just now.
            unsafe { mine.start().write(0x77) };
            mapped += 1;
            if mapped == 20 {
                break;
            }
        }
        if mapped < 20 || !self.is_as_mapped() || !self.counts() {
            return 7;
        }
        0
    }

    /// Says whether what the handler mapped, if this is a child, is as it was left.
    fn handlers_own(&self) -> bool {
        let ranges = self.region.ranges(self.space.addresses());
        let mut own = ranges
            .filter(|r| r.tag == HANDLERS)
            .flat_map(|r| (r.addresses.start()..=r.addresses.last()).step_by(page()));
        own.all(|addr| {
            let mark: *mut u8 = core::ptr::with_exposed_provenance_mut(addr);
            // SAFETY: mapped by the handler.
            unsafe { mark.read() == 0x77 }
        })
    }

    /// Makes a call at whose every step a child is forked. `is_done` says whether its effect is
    /// there.
    fn check(&self, what: &str, call: &dyn Fn() -> Result<(), Error>, is_done: &dyn Fn() -> bool) {
        for then in [Then::Ends, Then::Resumes] {
            eprintln!("{what}, {then:?}");
            at_every_step(
                forks(),
                then,
                &|| self.prepare(),
                &call,
                &|| self.child(),
                &|result| {
                    i32::from(result.is_err()) << 4
                        | i32::from(!is_done()) << 5
                        | i32::from(!self.is_as_mapped() || !self.counts()) << 6
                        | i32::from(!self.handlers_own()) << 3
                },
            );
        }
    }
}

const COMMITTED: PageState = PageState::Committed(Access::ReadWrite);

fn mapping(bed: &Bed) {
    let got = Cell::new(None);
    let map = || {
        let request = Request::bytes(3 * page()).guards(page(), 0);
        let mapped = bed.region.map(&request, RW, 0x55)?;
        // SAFETY: the middle page, mapped just now.
        unsafe { byte_at(mapped, 2 * page()).write(0x55) };
        got.set(Some(mapped));
        Ok(())
    };
    bed.check("map", &map, &|| {
        let Some(mapped) = got.get() else {
            return false;
        };
        let at = |n| bed.region.query(mapped.addr() + n * page());
        let guard = at(0).map(|range| (range.state, range.tag));
        let body = (1..4).all(|n| at(n).is_some_and(|r| r.state == COMMITTED && r.tag == 0x55));
        // SAFETY: mapped and written by the call.
        let mark = unsafe { byte_at(mapped, 2 * page()).read() };
        body && guard == Some((PageState::Reserved, 0x55)) && mark == 0x55
    });
    let place = || {
        let request = Request::bytes(2 * page());
        let place = |body| {
            // SAFETY: the pages are reserved, and this call's alone.
            unsafe { OS.commit(body, RW) }?;
            // SAFETY: committed just now.
            unsafe { body.start().write(0x66) };
            Ok(())
        };
        let mapped = bed.region.map_with(&request, 0x66, COMMITTED, place)?;
        got.set(Some(mapped));
        Ok(())
    };
    bed.check("map_with", &place, &|| {
        got.get().is_some_and(|mapped| {
            let found = bed.region.query(mapped.addr());
            // SAFETY: mapped and written by the call.
            let mark = unsafe { mapped.start().read() };
            mark == 0x66 && found.is_some_and(|r| r.state == COMMITTED && r.tag == 0x66)
        })
    });
    let reserve = || {
        got.set(Some(bed.region.reserve(&Request::bytes(5 * page()))?));
        Ok(())
    };
    bed.check("reserve", &reserve, &|| {
        got.get().is_some_and(|range| {
            let found = bed.region.query(range.end() - 1);
            found.is_some_and(|r| r.state == PageState::Reserved)
        })
    });
}

fn unmapping(bed: &Bed) {
    let free = |range: PageRange| {
        // In a child the handler may have something there.
        let mut all = (range.addr()..range.end()).step_by(page());
        all.all(|addr| bed.region.query(addr).is_none_or(|r| r.tag == HANDLERS))
    };
    for (first, pages) in [(10, 4), (11, 2), (8, 30), (50, 9)] {
        let range = bed.part(first, pages);
        if first == 50 {
            // The child looks at these.
            continue;
        }
        // SAFETY: no other code uses it.
        let unmap = || unsafe { bed.region.unmap(range) };
        bed.check("unmap", &unmap, &|| free(range));
    }
}

fn changing(bed: &Bed) {
    let are = |first, pages, state| {
        (first..first + pages).all(|n| bed.state(n).is_some_and(|(found, _)| found == state))
    };
    let both = bed.part(12, 4);
    // SAFETY: committed.
    let protect = || unsafe { bed.region.protect(both, Access::Read) };
    bed.check("protect", &protect, &|| {
        // SAFETY: readable in any case.
        let mark = unsafe { bed.part(10, 1).start().read() };
        are(12, 4, PageState::Committed(Access::Read)) && mark == 0x21
    });
    let reserved = bed.part(22, 3);
    // SAFETY: reserved.
    let commit = || unsafe { bed.region.commit(reserved, RW) }.map(drop);
    bed.check("commit", &commit, &|| are(22, 3, COMMITTED));
    // SAFETY: no other code uses it.
    let decommit = || unsafe { bed.region.decommit(both) };
    bed.check("decommit", &decommit, &|| are(12, 4, PageState::Reserved));
    let over = bed.part(13, 3);
    // SAFETY: no other code uses it.
    let replace = || unsafe { bed.region.map_over(over, RW, 0x44) };
    bed.check("map_over", &replace, &|| {
        // SAFETY: mapped by the call.
        let mark = unsafe { over.start().read() };
        are(13, 3, COMMITTED) && bed.state(14) == Some((COMMITTED, 0x44)) && mark == 0
    });
    let place = |range: PageRange| {
        let (at, len) = (range.start().as_ptr(), range.len_bytes());
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the pages are the region's, and given to this call.
        let got = unsafe { libc::mmap(at.cast(), len, access, flags, -1, 0) };
        if got != at.cast() {
            return Err(ErrorKind::Exhausted.into());
        }
        // SAFETY: mapped just now.
        unsafe { at.write(0x46) };
        Ok(())
    };
    // SAFETY: no other code uses it.
    let replace = || unsafe { bed.region.map_over_with(over, 0x46, COMMITTED, place) };
    bed.check("map_over_with", &replace, &|| {
        // SAFETY: mapped and written by the call.
        let mark = unsafe { over.start().read() };
        are(13, 3, COMMITTED) && bed.state(14) == Some((COMMITTED, 0x46)) && mark == 0x46
    });
}

#[test]
fn children_forked_within_a_regions_changes_have_whole_regions() {
    let name = "children_forked_within_a_regions_changes_have_whole_regions";
    isolated!(name, || {
        let bed = &Bed::new(RegionConfig::new());
        mapping(bed);
        unmapping(bed);
        changing(bed);
    });
}
