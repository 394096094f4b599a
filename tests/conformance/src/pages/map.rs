//! Pages as the process map shows them.

use crate::{
    Outcome,
    harness::{Region, Snapshot, undisturbed},
};
use hostmem_core::{
    page::{Access, AddressRange},
    provider::{Commit, MapFlags, PageProvider, Place, ProcessMap, Request},
};

const NO_MAP: Outcome = Outcome::Skipped("the host shows no process map");
const ACCESS: MapFlags = MapFlags::READ.union(MapFlags::WRITE).union(MapFlags::EXEC);

fn window<P: PageProvider + Copy>(
    region: &Region<P>,
    pages: core::ops::Range<usize>,
) -> AddressRange {
    region.part(&pages).addresses()
}

pub(super) fn map_is_ascending_and_shows_reservations<P>(p: P) -> Outcome
where
    P: PageProvider + ProcessMap + Copy,
{
    let region = Region::pages(p, 5);
    let shown = Snapshot::of(&p, region.range().addresses());
    let Some(shown) = shown else { return NO_MAP };
    let flags = shown
        .uniform(region.range().addresses())
        .expect("a reservation is in the map");
    assert!(!flags.intersects(ACCESS), "reserved pages are inaccessible");
    let (mut last, mut count, mut stopped_at) = (None, 0, 0);
    p.walk(&mut |entry| {
        assert!(
            last < Some(entry.range.start()),
            "mappings come in ascending order"
        );
        last = Some(entry.range.last());
        count += 1;
        true
    })
    .expect("the map was readable before");
    p.walk(&mut |_| {
        stopped_at += 1;
        stopped_at < count.min(2)
    })
    .expect("the map was readable before");
    assert_eq!(stopped_at, count.min(2), "the walk ends when it is told to");
    Outcome::Passed
}

pub(super) fn release_unmaps<P: PageProvider + ProcessMap + Copy>(p: P) -> Outcome {
    undisturbed("released pages are unmapped", || {
        let mut region = Region::committed(p, 8);
        region.release(2..5).expect("a part can be released");
        let Some(hole) = Snapshot::of(&p, window(&region, 2..5)) else {
            return Some(NO_MAP);
        };
        let left = Snapshot::of(&p, window(&region, 0..2))?;
        assert!(
            left.uniform(window(&region, 0..2)).is_some(),
            "what was not released stays"
        );
        region.release(0..2).expect("release succeeds");
        region.release(5..8).expect("release succeeds");
        let all = Snapshot::of(&p, region.range().addresses())?;
        (hole.is_empty() && all.is_empty()).then_some(Outcome::Passed)
    })
}

pub(super) fn guards_are_inaccessible<P: PageProvider + ProcessMap + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    let request = Request::bytes(4 * page).guards(2 * page, page);
    let mut region = Region::reserve(p, &request).expect("a small reservation succeeds");
    for round in 0..2 {
        region
            .commit(2..6, Commit::READ_WRITE)
            .expect("the body can be committed");
        for guard in [0..2, 6..7] {
            let guard = window(&region, guard);
            let Some(shown) = Snapshot::of(&p, guard) else {
                return NO_MAP;
            };
            let flags = shown.uniform(guard).expect("a guard is reserved");
            assert!(
                !flags.intersects(ACCESS),
                "round {round}: the guard {guard:?} is accessible"
            );
        }
        region.decommit(2..6).expect("the body can be decommitted");
    }
    Outcome::Passed
}

pub(super) fn access_shows_in_the_map<P: PageProvider + ProcessMap + Copy>(p: P) -> Outcome {
    let mut region = Region::committed(p, 6);
    let all = window(&region, 0..6);
    if Snapshot::of(&p, all).is_none() {
        return NO_MAP;
    }
    let shown = |region: &Region<P>| {
        let shown = Snapshot::of(&p, window(region, 2..4)).expect("the map was readable before");
        shown
            .uniform(window(region, 2..4))
            .expect("the pages have one access")
            & ACCESS
    };
    assert_eq!(
        shown(&region),
        MapFlags::READ | MapFlags::WRITE,
        "committed for both"
    );
    region
        .protect(2..4, Access::Read)
        .expect("less access is granted");
    assert_eq!(shown(&region), MapFlags::READ, "protected to reading");
    region
        .protect(2..4, Access::None)
        .expect("less access is granted");
    assert_eq!(shown(&region), MapFlags::empty(), "protected to nothing");
    region
        .protect(2..4, Access::ReadWrite)
        .expect("access below the ceiling is granted");
    region.decommit(2..4).expect("decommit succeeds");
    assert_eq!(shown(&region), MapFlags::empty(), "decommitted");
    Outcome::Passed
}

pub(super) fn failed_exact_changes_nothing<P: PageProvider + ProcessMap + Copy>(p: P) -> Outcome {
    undisturbed("a failed exact reservation changes nothing", || {
        let mut region = Region::pages(p, 32);
        region
            .commit(8..12, Commit::READ_WRITE)
            .expect("a small commit succeeds");
        region.release(16..20).expect("release succeeds");
        let all = region.range().addresses();
        let Some(before) = Snapshot::of(&p, all) else {
            return Some(NO_MAP);
        };
        for (first, pages) in [(0, 1), (8, 2), (7, 3), (15, 2), (16, 5), (18, 4), (0, 32)] {
            let place = Place::Exact(region.at(first));
            let result = p.reserve(&Request::bytes(pages * region.page()).place(place));
            assert!(
                result.is_err(),
                "page {first} and the {pages} from there are in use"
            );
        }
        (Snapshot::of(&p, all)? == before).then_some(Outcome::Passed)
    })
}

pub(super) fn the_null_page_is_never_given<P: PageProvider + ProcessMap + Copy>(p: P) -> Outcome {
    let null = AddressRange::from_len(0, p.page_size().bytes()).expect("not empty");
    let Some(before) = Snapshot::of(&p, null) else {
        return NO_MAP;
    };
    // Which kind of error says so depends on the host; some would let a privileged process have it.
    let exact = p.reserve(&Request::bytes(1).place(Place::Exact(0)));
    assert!(exact.is_err(), "the null page was reserved");
    assert_eq!(
        Snapshot::of(&p, null).as_ref(),
        Some(&before),
        "refused, and mapped all the same"
    );
    let hinted = Region::reserve(p, &Request::bytes(1).place(Place::Hint(0)));
    assert_ne!(
        hinted.expect("a hint is no reason to fail").addr(),
        0,
        "the null page was reserved"
    );
    assert_eq!(
        Snapshot::of(&p, null),
        Some(before),
        "not taken, and mapped all the same"
    );
    Outcome::Passed
}
