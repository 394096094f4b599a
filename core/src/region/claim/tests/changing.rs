//! Hosts that change meanwhile, and hosts that do not show all.

extern crate std;
use super::super::*;
use super::host::*;
use std::vec;

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
